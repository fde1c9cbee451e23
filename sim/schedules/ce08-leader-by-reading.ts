import type { NamedSchedule } from './named.ts';

/**
 * The leader's agent starts anew and reads that it leads. That says nothing about now: somebody may take over in the next
 * moment.
 */
export const ce08LeaderByReading: NamedSchedule = {
  name: 'ce08-leader-by-reading',
  counterexample: 'CE8',
  variant: 'leader-by-reading',
  schedule: {
    noise: 2,
    instances: 2,
    config: { synchronous: 0, durability: 'required', fencing: 'fast' },
    ttlMs: 4000,
    faults: [{ at: 3080, kind: 'kill-agent', who: 'leader', for: 185 }],
  },
};
