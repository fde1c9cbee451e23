import { commanded, type Mutant, remembered } from './mutant.ts';

const sync = { synchronous: 1, durability: 'required', fencing: 'fast' } as const;

/** What must happen in the end. */
export const livelihood: readonly Mutant[] = [
  {
    name: 'no-new-term',
    broken: 'a leader whose Postgres runs as standby takes no new term (CE11)',
    caughtBy: ['liveness'],
    profile: { config: sync, favour: ['operation', 'kill-agent', 'lose-power', 'crash-postgres'] },
    rules: commanded((command) =>
      command.kind === 'transact' && command.write.kind === 'new-term' ? undefined : command,
    ),
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
    name: 'nobody-rejoins',
    broken: 'an old primary with another history is neither rewound nor cloned',
    caughtBy: ['liveness'],
    profile: { config: sync, favour: ['isolate', 'freeze'] },
    rules: (shipped) => ({
      ...shipped,
      decide: (state, input, facts) => {
        const d = shipped.decide(state, input, facts);
        const gone = d.commands.some(
          (c) => c.kind === 'operate' && (c.operation.do === 'rewind' || c.operation.do === 'clone'),
        );
        return gone ? { state, commands: [] } : d;
      },
    }),
  },
  {
    name: 'lost-name-kept',
    broken: 'a synchronous standby that is gone is never replaced',
    caughtBy: ['liveness'],
    profile: { config: sync, instances: 3, favour: ['lose-volume'] },
    rules: commanded((command) =>
      command.kind === 'transact' && command.write.kind === 'sync' && command.write.leader.beat > 3
        ? undefined
        : command,
    ),
  },
];
