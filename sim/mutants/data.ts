import type { Volume } from '../../src/agent/ha/index.ts';
import { type Mutant, told } from './mutant.ts';

const sync = { synchronous: 1, durability: 'required', fencing: 'fast' } as const;

/** R5, R7 and what may be done to data directories. */
export const data: readonly Mutant[] = [
  {
    name: 'receiver-goes-on',
    broken: 'R5: the WAL receiver confirms after the end of WAL was fixed (model m02b)',
    caughtBy: ['late-acknowledgement', 'no-acknowledged-commit-lost', 'one-history-per-timeline'],
    profile: { config: sync, favour: ['stall-agent', 'cut-etcd', 'freeze'] },
    rules: told((facts, state) => {
      const { observation } = facts.postgres;
      if (state.takeover === undefined || observation === undefined) return facts;
      const { receiver: _, ...rest } = observation;
      return { ...facts, postgres: { ...facts.postgres, observation: rest } };
    }),
    flaws: { receiverStays: true },
  },
  {
    name: 'replay-not-awaited',
    broken: 'R5: a promotion before everything received is replayed',
    caughtBy: ['all-replayed', 'no-acknowledged-commit-lost'],
    profile: { config: sync, favour: ['slow-replay', 'lose-power', 'crash-postgres'] },
    flaws: { promotionSkipsReplay: true },
  },
  {
    name: 'lag-without-bound',
    broken: 'an asynchronous standby takes over although it lacks more than it may',
    caughtBy: ['maximum-lag'],
    profile: {
      config: { synchronous: 0, maximumLagBytes: 0 },
      favour: ['slow-link', 'cut-link', 'isolate', 'lose-power'],
    },
    rules: told((facts) => {
      const { config } = facts.dcs.view;
      if (config === undefined) return facts;
      const { maximumLagBytes: _, ...value } = config.value;
      return { ...facts, dcs: { ...facts.dcs, view: { ...facts.dcs.view, config: { ...config, value } } } };
    }),
  },
  {
    name: 'names-outlive-data',
    broken: 'R7: a re-made volume under an old name counts as the old one (CE3)',
    caughtBy: [
      'no-acknowledged-commit-lost',
      'late-acknowledgement',
      'read-value-lost',
      'newest-copy-kept',
      'one-history-per-timeline',
    ],
    profile: { config: sync, favour: ['restore-backup'] },
    rules: told((facts) => {
      const { volume, me } = facts;
      const { leader, sync: stored } = facts.dcs.view;
      const named = [leader?.value, ...(stored?.value.names ?? [])].find((m) => m?.instance === me.instance);
      return volume.state === 'ready' && named !== undefined
        ? { ...facts, volume: { ...volume, dataId: named.dataId } }
        : facts;
    }),
  },
  {
    name: 'taint-ignored',
    broken: 'data of an interrupted pg_rewind are started (S12)',
    caughtBy: ['usable-data'],
    profile: { config: sync, favour: ['isolate', 'kill-agent', 'lose-power'] },
    rules: (shipped) => {
      const before = new Map<string, Volume>();
      return told((facts) => {
        const { volume, me } = facts;
        if (volume.state === 'ready') before.set(me.instance, volume);
        const known = before.get(me.instance);
        return volume.state === 'tainted' && known !== undefined ? { ...facts, volume: known } : facts;
      })(shipped);
    },
    flaws: { startsAnything: true },
  },
  {
    name: 'cloned-from-anybody',
    broken: 'S13: data are thrown away for those of an instance that has not proved that it leads',
    caughtBy: ['newest-copy-kept', 'no-acknowledged-commit-lost', 'one-history-per-timeline'],
    profile: { instances: 2, config: sync, only: ['restore-backup', 'order'], favour: ['restore-backup'] },
    rules: told((facts, state) => {
      const { leader } = facts.dcs.view;
      if (leader === undefined || state.reign !== undefined) return facts;
      const peer = facts.peers.get(leader.value.instance);
      if (peer === undefined) return facts;
      const { dataId, bootId, term } = leader.value;
      const answer = { ...peer.answer, state: 'primary', dataId, bootId, term, openMs: 1_000 } as const;
      const at = facts.now;
      return { ...facts, peers: new Map(facts.peers).set(answer.instance, { at, answer }) };
    }),
  },
];
