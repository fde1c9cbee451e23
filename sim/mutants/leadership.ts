import type { Facts, HaState } from '../../src/agent/ha/index.ts';
import { answered, type Mutant, operated, remembered, told, written } from './mutant.ts';

const sync = { synchronous: 1, durability: 'required', fencing: 'fast' } as const;
const async_ = { synchronous: 0, durability: 'required', fencing: 'fast' } as const;

/** The configuration without what it says of single instances, where it is so. */
const withoutOptions =
  (where: (facts: Facts, state: HaState) => boolean) =>
  (facts: Facts, state: HaState): Facts => {
    const { config } = facts.dcs.view;
    if (config === undefined || !where(facts, state)) return facts;
    const { instances: _, ...value } = config.value;
    return { ...facts, dcs: { ...facts.dcs, view: { ...facts.dcs.view, config: { ...config, value } } } };
  };

/** R1, R5, R6, R10: who leads, since when, and in which term. */
export const leadership: readonly Mutant[] = [
  {
    name: 'term-not-raised',
    broken: 'a takeover keeps the term of the leader before (model m13)',
    caughtBy: ['unique-term'],
    profile: { favour: ['lose-power', 'isolate'] },
    rules: written((write) =>
      write.kind === 'take' ? { ...write, leader: { ...write.leader, term: write.leader.term - 1 } } : write,
    ),
  },
  {
    name: 'heartbeat-not-compared',
    broken: 'R1: a heartbeat compares no revision: an old leader writes over the new one (model m16)',
    caughtBy: ['unique-term'],
    profile: { favour: ['isolate', 'cut-etcd', 'stall-agent', 'freeze', 'transaction'] },
    rules: written((write) => {
      if (write.kind !== 'heartbeat') return write;
      const { expectLeader: _, ...rest } = write;
      return rest as typeof write;
    }),
  },
  {
    name: 'refusal-ignored',
    broken: 'a leader whose write was refused goes on',
    caughtBy: ['fence-in-time', 'one-writable', 'late-acknowledgement', 'fresh-heartbeat'],
    profile: { favour: ['cut-etcd', 'isolate', 'freeze', 'stall-agent'] },
    rules: remembered((state, before, facts, input) =>
      input.kind === 'transaction' && input.outcome.kind === 'refused' && before.reign !== undefined
        ? {
            ...state,
            reign: { ...before.reign, deadline: facts.now + 4_000, goodAt: facts.now, barrier: false },
          }
        : state,
    ),
  },
  {
    name: 'leader-by-reading',
    broken: 'R10: a restarted agent leads because it reads that it does (CE8)',
    caughtBy: ['fresh-heartbeat'],
    profile: { config: async_, favour: ['kill-agent', 'crash-postgres', 'cut-etcd'] },
    rules: (shipped) => ({
      ...shipped,
      decide: (state, input, facts) => {
        const d = shipped.decide(state, input, facts);
        const resume = d.commands.find((c) => c.kind === 'transact' && c.write.kind === 'resume');
        if (resume?.kind !== 'transact') return d;
        const { sync: stored } = facts.dcs.view;
        const outcome = { kind: 'done', revision: resume.write.expectLeader, sync: stored } as const;
        return shipped.decide(d.state, { kind: 'transaction', id: resume.id, outcome }, facts);
      },
    }),
  },
  {
    name: 'starts-as-primary',
    broken: 'R10: a Postgres that last was a primary is started as one (model m17)',
    caughtBy: ['fresh-heartbeat', 'fence-in-time', 'one-writable'],
    profile: { favour: ['kill-agent', 'lose-power', 'isolate'] },
    rules: operated((o, _state, facts) =>
      o.do === 'start' && facts.volume.state === 'ready' && facts.volume.promotedTerm > 0
        ? { ...o, as: 'primary', term: facts.volume.promotedTerm, timeline: facts.volume.timeline }
        : o,
    ),
  },
  {
    name: 'promotes-twice',
    broken: 'R5: data that were promoted in this term are promoted in it again',
    caughtBy: ['unique-term', 'unique-timeline'],
    profile: { config: async_, favour: ['kill-agent', 'crash-postgres', 'lose-power'] },
    rules: told((facts) => {
      const { volume, postgres } = facts;
      if (volume.state !== 'ready' || facts.dcs.view.history.size === 0) return facts;
      const { observation } = postgres;
      return {
        ...facts,
        volume: { ...volume, promotedTerm: 0, timeline: 0 },
        postgres:
          observation === undefined || !observation.inRecovery
            ? postgres
            : { ...postgres, observation: { ...observation, timeline: 1 } },
      };
    }),
  },
  {
    name: 'promotes-unasked',
    broken: 'R5: a candidate whose transaction had no answer promotes',
    caughtBy: ['won-term', 'fresh-heartbeat', 'no-acknowledged-commit-lost', 'unique-term'],
    profile: { config: sync, favour: ['transaction', 'isolate', 'cut-etcd', 'lose-power'] },
    rules: answered((input, state, facts) => {
      const write = state.transaction?.write;
      if (input.kind !== 'transaction' || input.outcome.kind === 'done' || write?.kind !== 'take')
        return input;
      const revision = facts.dcs.view.revision;
      const value = write.sync;
      return {
        ...input,
        outcome: { kind: 'done', revision, sync: value === undefined ? undefined : { value, revision } },
      };
    }),
  },
  {
    name: 'history-not-written',
    broken: 'clients are led to a primary before the history names its term',
    caughtBy: ['history-first'],
    profile: { favour: ['lose-power'] },
    rules: written((write) => {
      const { history: _, ...rest } = write;
      return rest;
    }),
  },
  {
    name: 'timeline-not-reserved',
    broken: 'R6: Postgres chooses the next timeline that it does not know (CE4)',
    caughtBy: ['unique-timeline'],
    profile: { config: sync, favour: ['lose-power', 'isolate', 'crash-postgres'] },
    flaws: { timelineNotReserved: true },
  },
  {
    name: 'hand-over-not-verified',
    broken: 'a leader hands over without the target having everything (model m15)',
    caughtBy: ['level-hand-over', 'no-acknowledged-commit-lost'],
    profile: { favour: ['switchover', 'stop-pod', 'slow-link', 'cut-link', 'disk-stall'] },
    rules: told((facts, state) => {
      const target = state.handover?.target;
      const peer = target && facts.peers.get(target.instance);
      if (peer === undefined) return facts;
      const answer = { ...peer.answer, receivedLsn: 1n << 40n };
      return { ...facts, peers: new Map(facts.peers).set(answer.instance, { ...peer, answer }) };
    }),
  },
  {
    name: 'way-back-without-barrier',
    broken: 'R2: after a hand-over without an answer the old primary simply starts again (CE6)',
    caughtBy: ['one-writable', 'fresh-heartbeat', 'fence-in-time'],
    profile: { instances: 3, config: async_, only: ['switchover', 'transaction', 'cut-etcd', 'stop-pod'] },
    rules: remembered((state) => {
      const { reign, handover } = state;
      if (reign?.barrier !== true || handover === undefined) return state;
      const { handover: _, ...rest } = state;
      return { ...rest, reign: { ...reign, barrier: false, stage: 'start', open: true } };
    }),
  },
  {
    name: 'barred-stands',
    broken: 'an instance that may not lead (noFailover) stands for election',
    caughtBy: ['may-lead'],
    profile: {
      instances: 3,
      noFailover: [2],
      config: { ...sync, synchronous: 1 },
      favour: ['bar', 'lose-power'],
    },
    rules: told(withoutOptions((facts) => facts.postgres.startedAs === 'standby')),
  },
  {
    name: 'barred-chosen',
    broken: 'an instance that may not lead (noFailover) is made synchronous',
    caughtBy: ['may-lead'],
    profile: { instances: 3, noFailover: [2], config: sync, favour: ['lose-power'] },
    rules: told(withoutOptions((_, state) => state.reign !== undefined)),
  },
  {
    name: 'forced-at-once',
    broken:
      'a failover that a person asks for does not wait for the ttl of the old leader, nor for a sign of it',
    caughtBy: ['forced-failover'],
    profile: { config: sync, favour: ['force-failover', 'isolate', 'cut-link', 'cut-etcd'] },
    rules: (shipped) => ({
      ...shipped,
      decide: (state, input, facts) => {
        const { view } = facts.dcs;
        const asked = view.request?.value;
        if (asked?.kind !== 'failover' || asked.to !== facts.me.instance || state.leaderSeen === undefined)
          return shipped.decide(state, input, facts);
        const request = { value: { ...asked, primaryIsOff: true }, revision: view.request?.revision ?? '' };
        const leaderSeen = { ...state.leaderSeen, at: facts.now - 60_000 };
        return shipped.decide({ ...state, leaderSeen, bootedAt: facts.now - 60_000 }, input, {
          ...facts,
          peers: new Map(),
          dcs: { ...facts.dcs, view: { ...view, request } },
        });
      },
    }),
  },
  {
    name: 'loss-not-recorded',
    broken: 'the history does not say that a person accepted a loss',
    caughtBy: ['forced-failover'],
    profile: { config: sync, favour: ['force-failover', 'lose-power', 'lose-volume'] },
    rules: written((write) =>
      write.history === undefined ? write : { ...write, history: { ...write.history, lossAccepted: false } },
    ),
  },
  {
    name: 'stands-in-a-pause',
    broken: 'a standby takes over although automatic failover is paused',
    caughtBy: ['paused'],
    profile: { config: sync, favour: ['pause', 'lose-power'] },
    rules: told((facts) => {
      const { config } = facts.dcs.view;
      if (config === undefined) return facts;
      const { paused: _, ...value } = config.value;
      return { ...facts, dcs: { ...facts.dcs, view: { ...facts.dcs.view, config: { ...config, value } } } };
    }),
  },
  {
    name: 'hands-over-running',
    broken: 'a leader hands over before its Postgres is stopped',
    caughtBy: ['level-hand-over'],
    profile: { favour: ['switchover'] },
    rules: (shipped) => ({
      ...shipped,
      decide: (state, input, facts) => {
        const d = shipped.decide(state, input, facts);
        const stop = d.commands.find((c) => c.kind === 'operate' && c.operation.do === 'stop');
        if (stop?.kind !== 'operate' || d.state.handover === undefined) return d;
        return shipped.decide(
          d.state,
          { kind: 'operation', id: stop.id, outcome: { ok: true, lsn: 0n } },
          facts,
        );
      },
    }),
  },
];
