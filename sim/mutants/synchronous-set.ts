import type { Facts, Observation, Settings } from '../../src/agent/ha/index.ts';
import { answered, type Mutant, operated, remembered, told, written } from './mutant.ts';

const sync = { synchronous: 1, durability: 'required', fencing: 'fast' } as const;
const far = 1n << 40n;

function observing(facts: Facts, change: (o: Observation) => Observation): Facts {
  const { observation } = facts.postgres;
  return observation === undefined
    ? facts
    : { ...facts, postgres: { ...facts.postgres, observation: change(observation) } };
}

const withNames = (settings: Settings, synchronousNames: readonly string[]): Settings => ({
  ...settings,
  synchronousNames,
});

/** R3, R4, R8: which names are in `sync` and in `synchronous_standby_names`, and in what order they get there. */
export const synchronousSet: readonly Mutant[] = [
  {
    name: 'removed-from-postgres-first',
    broken: 'R3: a name leaves Postgres before it has left etcd (model m01)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: sync, favour: ['lose-power', 'cut-link'] },
    rules: (shipped) => ({
      ...shipped,
      decide: (state, input, facts) => {
        const { state: next, commands } = shipped.decide(state, input, facts);
        const removal = commands.find(
          (c) =>
            c.kind === 'transact' &&
            c.write.kind === 'sync' &&
            (c.write.sync?.names.length ?? 9) < (next.reign?.sync.names.length ?? 0),
        );
        const settings = facts.applied && withNames(facts.applied, []);
        return removal === undefined || settings === undefined
          ? { state: next, commands }
          : {
              state: next,
              commands: [
                { kind: 'operate', id: -1, operation: { do: 'configure', settings }, because: 'a mutant' },
                ...commands,
              ],
            };
      },
    }),
  },
  {
    name: 'added-to-etcd-alone',
    broken: 'R8: a new name enters etcd without Postgres requiring it (model m09)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: sync, favour: ['lose-power', 'cut-link'] },
    rules: (shipped) =>
      told((facts, state) => ({
        ...observing(facts, (o) => ({
          ...o,
          walsenders: o.walsenders.map((w) => ({
            ...w,
            syncPriority: state.syncNames.indexOf(w.applicationName) + 1,
          })),
        })),
        ...(facts.applied === undefined ? {} : { applied: withNamesApplied(facts.applied, state.syncNames) }),
      }))(
        operated((o, _state, facts) =>
          o.do === 'configure' && facts.applied !== undefined && facts.applied.synchronousNames.length > 0
            ? { ...o, settings: withNames(o.settings, facts.applied.synchronousNames) }
            : o,
        )(shipped),
      ),
  },
  {
    name: 'joiner-not-awaited',
    broken: 'R8: a new name enters etcd before its standby has confirmed (model m08)',
    caughtBy: ['newest-copy-kept', 'no-acknowledged-commit-lost', 'late-acknowledgement', 'read-value-lost'],
    profile: {
      instances: 3,
      config: sync,
      only: ['slow-link', 'lose-power', 'lose-volume'],
    },
    rules: told((facts) =>
      observing(facts, (o) => ({ ...o, walsenders: o.walsenders.map((w) => ({ ...w, flushLsn: far })) })),
    ),
  },
  {
    name: 'walsenders-not-awaited',
    broken: 'R8: not every walsender has taken up the new names (CE5a)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: sync, favour: ['slow-reload', 'switchover', 'lose-power'] },
    rules: told((facts, state) =>
      observing(facts, (o) => ({
        ...o,
        walsenders: o.walsenders.map((w) => ({
          ...w,
          syncPriority: state.syncNames.indexOf(w.applicationName) + 1,
        })),
      })),
    ),
  },
  {
    name: 'joiner-last',
    broken: 'R8: a new name is put last, so that nothing shows who has taken up the names (CE5b)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: { ...sync, synchronous: 2 }, instances: 4, favour: ['slow-reload', 'lose-power'] },
    rules: (shipped) =>
      told((facts, state) => {
        const last = state.syncNames.length;
        const turned = (priority: number) => (priority === 0 ? 0 : last + 1 - priority);
        return {
          ...observing(facts, (o) => ({
            ...o,
            walsenders: o.walsenders.map((w) => ({ ...w, syncPriority: turned(w.syncPriority) })),
          })),
          ...(facts.applied === undefined
            ? {}
            : { applied: withNamesApplied(facts.applied, facts.applied.synchronousNames.toReversed()) }),
        };
      })(
        operated((o) =>
          'settings' in o
            ? { ...o, settings: withNames(o.settings, o.settings.synchronousNames.toReversed()) }
            : o,
        )(shipped),
      ),
  },
  {
    name: 'wait-not-proved',
    broken: 'R8: coming from no names at all, no commit was seen to wait (CE5c)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: { ...sync, durability: 'preferred' }, favour: ['slow-reload', 'lose-power'] },
    rules: remembered((state) => (state.waitProved ? state : { ...state, waitProved: true })),
  },
  {
    name: 'everybody-promotable',
    broken: 'R4: the taking transaction puts everybody into the set (model m10)',
    caughtBy: ['no-acknowledged-commit-lost', 'late-acknowledgement', 'read-value-lost'],
    profile: { instances: 4, config: sync, favour: ['lose-power', 'isolate', 'cut-link', 'slow-link'] },
    rules: written((write, facts) =>
      write.kind !== 'take' || write.sync === undefined
        ? write
        : {
            ...write,
            sync: {
              ...write.sync,
              names: [...facts.dcs.view.members.values()]
                .map(({ value: m }) => ({ instance: m.instance, dataId: m.dataId }))
                .filter((m) => m.instance !== facts.me.instance),
            },
          },
    ),
  },
  {
    name: 'promoted-without-names',
    broken: 'R4: a promotion with no names required (model m11)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: sync, favour: ['lose-power', 'isolate'] },
    rules: operated((o) => (o.do === 'promote' ? { ...o, settings: withNames(o.settings, []) } : o)),
  },
  {
    name: 'restarted-without-names',
    broken: 'R3: a restart in place with no names required (model m14)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost'],
    profile: { config: sync, favour: ['kill-agent', 'crash-postgres'] },
    rules: operated((o) =>
      o.do === 'start' && o.as === 'primary' ? { ...o, settings: withNames(o.settings, []) } : o,
    ),
  },
  {
    name: 'anyone-stands',
    broken: 'R9: a standby outside the set takes over (model m12)',
    caughtBy: ['no-acknowledged-commit-lost', 'late-acknowledgement', 'read-value-lost'],
    profile: { config: sync, favour: ['isolate', 'cut-link', 'slow-link', 'lose-power'] },
    rules: told((facts, state) => {
      const { sync: stored } = facts.dcs.view;
      const { volume, me } = facts;
      if (state.reign !== undefined || stored === undefined || volume.state !== 'ready') return facts;
      const mine = { instance: me.instance, dataId: volume.dataId };
      const value = {
        ...stored.value,
        names: [mine, ...stored.value.names.filter((m) => m.dataId !== mine.dataId)],
      };
      return { ...facts, dcs: { ...facts.dcs, view: { ...facts.dcs.view, sync: { ...stored, value } } } };
    }),
  },
  {
    name: 'empty-is-async',
    broken: 'R9: an empty set is taken for the async mode (CE10)',
    caughtBy: ['no-acknowledged-commit-lost', 'late-acknowledgement', 'read-value-lost'],
    profile: {
      config: { ...sync, durability: 'preferred' },
      instances: 2,
      ttlMs: 4_000,
      only: ['lose-power', 'isolate', 'cut-link', 'kill-agent'],
    },
    rules: told((facts, state) => {
      const { sync: stored } = facts.dcs.view;
      if (state.reign !== undefined || stored === undefined || stored.value.names.length > 0) return facts;
      const value = { ...stored.value, mode: 'async' as const };
      return { ...facts, dcs: { ...facts.dcs, view: { ...facts.dcs.view, sync: { ...stored, value } } } };
    }),
  },
  {
    name: 'timeout-is-success',
    broken: 'R2: a transaction without an answer is taken for done (model m06)',
    caughtBy: [
      'names-in-force',
      'no-acknowledged-commit-lost',
      'late-acknowledgement',
      'fence-in-time',
      'fresh-heartbeat',
      'won-term',
      'history-first',
    ],
    profile: { config: sync, favour: ['transaction', 'cut-etcd', 'lose-power'] },
    rules: answered((input, state, facts) => {
      if (input.kind !== 'transaction' || input.outcome.kind !== 'unknown') return input;
      const { view } = facts.dcs;
      const revision = String(Number(view.revision) + 1);
      const value = state.transaction?.write.sync ?? view.sync?.value;
      return {
        ...input,
        outcome: { kind: 'done', revision, sync: value === undefined ? undefined : { value, revision } },
      };
    }),
  },
  {
    name: 'no-barrier',
    broken: 'R2: after a transaction without an answer nothing is written anew before going on (CE2)',
    caughtBy: ['names-in-force', 'no-acknowledged-commit-lost', 'late-acknowledgement'],
    profile: {
      config: sync,
      instances: 3,
      only: ['transaction', 'cut-link', 'lose-power', 'slow-link', 'cut-etcd', 'isolate'],
    },
    rules: remembered((state) =>
      state.reign?.barrier === true ? { ...state, reign: { ...state.reign, barrier: false } } : state,
    ),
  },
  {
    name: 'unconditional-take',
    broken:
      'the taking transaction compares neither the leader nor the set: a stale read is trusted (model m03b)',
    caughtBy: ['unique-term', 'no-acknowledged-commit-lost', 'late-acknowledgement', 'one-writable'],
    profile: { config: sync, only: ['slow-watch', 'isolate', 'cut-link', 'cut-etcd', 'lose-power'] },
    rules: written((write) => {
      if (write.kind !== 'take') return write;
      const { expectLeader: _l, expectSync: _s, ...rest } = write;
      return rest as typeof write;
    }),
    flaws: { staleReads: (_present, known) => known },
  },
  {
    name: 'takeover-lets-clients-in',
    broken: 'a new primary lets clients in although a second member of the set may be behind it (S9)',
    caughtBy: ['read-value-lost'],
    profile: {
      instances: 3,
      config: { ...sync, synchronous: 2 },
      only: ['slow-link', 'cut-link', 'isolate', 'lose-power', 'stall-agent', 'crash-postgres'],
    },
    rules: remembered((state) =>
      state.reign?.open === false && state.reign.stage === 'promote'
        ? { ...state, reign: { ...state.reign, open: true } }
        : state,
    ),
  },
  {
    name: 'clients-let-in-early',
    broken: 'a restarted primary lets clients in before the set holds what it began with (S9)',
    caughtBy: ['read-value-lost'],
    profile: {
      config: sync,
      instances: 3,
      only: ['crash-postgres', 'cut-link', 'isolate', 'slow-link', 'kill-agent', 'disk-stall', 'lose-power'],
    },
    rules: remembered((state) =>
      state.reign?.open === false && (state.reign.stage === 'history' || state.reign.stage === 'leading')
        ? { ...state, reign: { ...state.reign, open: true } }
        : state,
    ),
  },
];

function withNamesApplied<T extends Settings>(applied: T, synchronousNames: readonly string[]): T {
  return { ...applied, synchronousNames };
}
