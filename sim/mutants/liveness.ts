import { type Mutant, remembered, withheld } from './mutant.ts';

const async_ = { synchronous: 0, durability: 'required', fencing: 'fast' } as const;
const sync = { synchronous: 1, durability: 'required', fencing: 'fast' } as const;

/** What must happen in the end. */
export const livelihood: readonly Mutant[] = [
  {
    name: 'no-new-term',
    broken: 'a leader whose Postgres runs as standby takes no new term (CE11)',
    caughtBy: ['liveness'],
    profile: { config: async_, instances: 2, only: ['disk-full', 'stop-pod', 'crash-postgres'] },
    rules: withheld((c) => c.kind === 'transact' && c.write.kind === 'new-term'),
  },
  {
    name: 'nobody-stands',
    broken: 'no standby ever takes over',
    caughtBy: ['liveness'],
    profile: { config: sync, favour: ['lose-volume'] },
    rules: remembered((state) =>
      state.reign === undefined ? { ...state, standAfter: Number.MAX_SAFE_INTEGER } : state,
    ),
  },
  {
    name: 'pause-without-end',
    broken: 'a pause that the operator does not take back never ends for the agents',
    caughtBy: ['liveness'],
    profile: { config: sync, only: ['pause', 'lose-volume'] },
    rules: remembered((state, _before, facts) =>
      state.pause === undefined ? state : { ...state, pause: { ...state.pause, since: facts.now } },
    ),
  },
  {
    name: 'nobody-rejoins',
    broken: 'an old primary with another history is neither rewound nor cloned',
    caughtBy: ['liveness'],
    profile: { config: sync, favour: ['isolate', 'freeze'] },
    rules: withheld((c) => c.kind === 'operate' && ['rewind', 'clone'].includes(c.operation.do)),
  },
  {
    name: 'lost-name-kept',
    broken: 'a synchronous standby that is gone is never replaced',
    caughtBy: ['liveness'],
    profile: { config: sync, instances: 3, favour: ['lose-volume'] },
    rules: withheld((c) => c.kind === 'transact' && c.write.kind === 'sync' && c.write.leader.beat > 3),
  },
];
