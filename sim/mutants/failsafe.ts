import type { Facts, PromiseFacts } from '../../src/agent/ha/index.ts';
import { leaderGraceMs } from '../../src/dcs/index.ts';
import { type Mutant, remembered, told } from './mutant.ts';

const async_ = { synchronous: 0, durability: 'required', fencing: 'fast' } as const;
const strict = { synchronous: 1, durability: 'required', fencing: 'strict' } as const;

/** What has become of each question: every answer is made a promise, also one that never came. */
function allPromised(facts: Facts, when: (real: readonly PromiseFacts[]) => boolean): Facts {
  const real = [...facts.promises.values()];
  const newest = Math.max(...real.map((p) => p.at));
  const given = real.find((p) => p.answer.promised)?.answer;
  const leader = facts.dcs.view.leader?.value;
  if (given === undefined || !given.promised || leader === undefined || !when(real)) return facts;
  const promises = new Map<string, PromiseFacts>();
  for (const by of leader.members) promises.set(by.instance, { at: newest, answer: { ...given, by } });
  return { ...facts, promises };
}

/** R11: a leader without etcd. */
export const failsafe: readonly Mutant[] = [
  {
    name: 'promise-ignored',
    broken: 'R11: who has promised not to stand does all the same (model l_promise_ignored)',
    caughtBy: ['one-writable'],
    profile: { config: async_, favour: ['cut-etcd'] },
    rules: (shipped) => ({
      ...shipped,
      givePromise: (state, facts, asked) => ({ ...shipped.givePromise(state, facts, asked), state }),
    }),
  },
  {
    name: 'promise-ignored-strict',
    broken: 'R11: the same with a synchronous set and strict fencing',
    caughtBy: ['one-writable'],
    profile: { config: strict, favour: ['cut-etcd'] },
    rules: (shipped) => ({
      ...shipped,
      givePromise: (state, facts, asked) => ({ ...shipped.givePromise(state, facts, asked), state }),
    }),
  },
  {
    name: 'promise-forgotten',
    broken: 'R10, R11: who has promised starts anew and takes an unknown heartbeat for an old one',
    caughtBy: ['one-writable'],
    profile: { config: async_, only: ['cut-etcd', 'kill-agent', 'lose-power'] },
    rules: remembered((state, before) =>
      before.leaderSeen === undefined && state.leaderSeen !== undefined
        ? { ...state, bootedAt: 0, leaderSeen: { ...state.leaderSeen, at: 0 } }
        : state,
    ),
  },
  {
    name: 'majority-of-promises',
    broken: 'R11: one promise is enough (model l_majority)',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: { instances: 3, config: async_, only: ['cut-etcd', 'cut-link', 'isolate'] },
    rules: told((facts) => allPromised(facts, () => true)),
  },
  {
    name: 'failsafe-from-the-answer',
    broken:
      'R11: the deadline counts from the answers, not from before asking (model l_failsafe_from_answer)',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: {
      instances: 2,
      ttlMs: 4_000,
      config: async_,
      only: ['cut-link'],
      also: [
        { at: 3_000, kind: 'cut-etcd', who: 0, for: 20_000, requests: true, answers: true },
        { at: 3_000, kind: 'slow-link', from: 1, to: 0, for: 20_000, delay: 1_500 },
        { at: 3_000, kind: 'stubborn', who: 0, for: 20_000 },
      ],
    },
    rules: remembered((state, before, facts) =>
      state.reign !== undefined &&
      state.reign.goodAt === before.reign?.goodAt &&
      state.reign.deadline > before.reign.deadline
        ? {
            ...state,
            reign: { ...state.reign, deadline: facts.now + leaderGraceMs(state.reign.timing) },
          }
        : state,
    ),
  },
  {
    name: 'old-promises-count',
    broken: 'R11: a promise that was given once is good for ever',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: { config: async_, only: ['cut-etcd', 'cut-link', 'isolate', 'freeze'] },
    rules: told((facts) => ({
      ...facts,
      promises: new Map([...facts.promises].map(([name, p]) => [name, { ...p, at: facts.now }])),
    })),
  },
  {
    name: 'new-member-stands',
    broken: 'R11: a member stands that its leader has not yet listed (CE7)',
    caughtBy: ['fence-in-time', 'one-writable'],
    profile: {
      instances: 3,
      config: async_,
      only: ['lose-volume', 'cut-etcd', 'operation'],
      also: [{ at: 5_000, kind: 'cut-etcd', who: 'leader', for: 20_000, requests: true, answers: true }],
    },
    rules: told((facts, state) => {
      const { volume, me, dcs } = facts;
      const { leader } = dcs.view;
      if (state.reign !== undefined || leader === undefined || volume.state !== 'ready') return facts;
      const members = [...leader.value.members, { instance: me.instance, dataId: volume.dataId }];
      const value = { ...leader.value, members };
      return { ...facts, dcs: { ...dcs, view: { ...dcs.view, leader: { ...leader, value } } } };
    }),
  },
  {
    name: 'nobody-promises',
    broken: 'R11: nobody gives a promise',
    caughtBy: ['failsafe'],
    profile: { only: ['etcd-outage'] },
    rules: (shipped) => ({ ...shipped, promisesToAsk: () => [] }),
  },
];
