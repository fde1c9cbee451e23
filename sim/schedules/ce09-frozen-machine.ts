import type { NamedSchedule } from './named.ts';

/**
 * The primary's machine is suspended for longer than its deadline. Nothing there can fence before it thaws; but then it
 * must, at once, and not after what was left of the deadline.
 */
export const ce09FrozenMachine: NamedSchedule = {
  name: 'ce09-frozen-machine',
  counterexample: 'CE9',
  variant: 'clock-stops-when-suspended',
  schedule: {
    noise: 54,
    instances: 2,
    config: { synchronous: 1, durability: 'preferred', fencing: 'fast' },
    ttlMs: 6000,
    faults: [
      { at: 2779, kind: 'freeze', who: 'leader', for: 1896 },
      { at: 3632, kind: 'isolate', who: 0, for: 6754 },
    ],
  },
};
