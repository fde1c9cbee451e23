import type { Facts } from '../../src/agent/ha/index.ts';
import { leaderGraceMs } from '../../src/dcs/index.ts';
import { type Mutant, remembered, told } from './mutant.ts';

const async_ = { synchronous: 0, durability: 'required', fencing: 'fast' } as const;

function withTiming(facts: Facts, change: { ttlMs?: number; fenceBudgetMs?: number }): Facts {
  const { config } = facts.dcs.view;
  if (config === undefined) return facts;
  const value = { ...config.value, timing: { ...config.value.timing, ...change } };
  return { ...facts, dcs: { ...facts.dcs, view: { ...facts.dcs.view, config: { ...config, value } } } };
}

/** Section "Fence": what rests on clocks. */
export const time: readonly Mutant[] = [
  {
    name: 'fence-margin-negative',
    broken: 'fencing begins after the ttl is over (model l_late_fence)',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: { favour: ['isolate', 'cut-etcd'] },
    rules: told((facts) => withTiming(facts, { fenceBudgetMs: -1_000 })),
  },
  {
    name: 'fence-without-budget',
    broken: 'fencing begins just before the ttl is over, with no time to end it (model l_fence_eq_ttl)',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: { favour: ['isolate', 'cut-etcd', 'stubborn', 'stall-agent'] },
    rules: told((facts) => withTiming(facts, { fenceBudgetMs: 0 })),
  },
  {
    name: 'deadline-from-the-answer',
    broken:
      'the deadline counts from the answer to a heartbeat, not from its sending (model l_from_response)',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: {
      instances: 2,
      ttlMs: 4_000,
      config: async_,
      only: ['slow-etcd', 'stubborn', 'cut-etcd'],
      // Nobody promises anything.
      also: [{ at: 2_500, kind: 'cut-link', from: 0, to: 1, for: 20_000 }],
    },
    rules: remembered((state, before, facts, input) =>
      input.kind === 'transaction' &&
      input.outcome.kind === 'done' &&
      state.reign !== undefined &&
      state.reign.goodAt !== before.reign?.goodAt
        ? {
            ...state,
            reign: {
              ...state.reign,
              goodAt: facts.now,
              deadline: facts.now + leaderGraceMs(state.reign.timing),
            },
          }
        : state,
    ),
  },
  {
    name: 'no-deadline-for-init',
    broken: 'koschei-init is told no deadline: nobody fences when the agent stands still',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: { favour: ['stall-agent'] },
    rules: (shipped) => ({ ...shipped, fenceDeadline: () => 0 }),
  },
  {
    name: 'clock-stops-when-suspended',
    broken: 'deadlines are kept on a clock that stands still while the machine is suspended (S16)',
    caughtBy: ['fence-in-time', 'one-writable', 'fresh-heartbeat'],
    profile: { favour: ['freeze', 'isolate'] },
    flaws: { clockStopsWhenSuspended: true },
  },
  {
    name: 'boot-takes-heartbeat-for-old',
    broken:
      'R10: an observer that has just started takes an unknown heartbeat for an old one (model l_boot_stale)',
    caughtBy: ['one-writable'],
    profile: { config: async_, favour: ['kill-agent', 'cut-etcd', 'isolate'] },
    rules: (shipped) =>
      remembered((state, before) =>
        before.leaderSeen === undefined && state.leaderSeen !== undefined
          ? { ...state, bootedAt: 0, leaderSeen: { ...state.leaderSeen, at: 0 } }
          : state,
      )(shipped),
  },
  {
    name: 'ttl-not-awaited',
    broken: 'an asynchronous takeover does not wait for the whole ttl',
    caughtBy: ['one-writable'],
    profile: { config: async_, favour: ['cut-etcd', 'isolate'] },
    rules: told((facts, state) => {
      const { leader } = facts.dcs.view;
      if (state.reign !== undefined || leader === undefined) return facts;
      const { ttlMs: _, ...value } = leader.value;
      const view = { ...facts.dcs.view, leader: { ...leader, value } };
      return withTiming({ ...facts, dcs: { ...facts.dcs, view } }, { ttlMs: 3_000 });
    }),
  },
];
