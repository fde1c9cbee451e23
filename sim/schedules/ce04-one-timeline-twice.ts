import type { NamedSchedule } from './named.ts';

/**
 * A standby is promoted and is cut off before the old primary has seen its timeline; the old primary is promoted next. If
 * Postgres chose the number, both would begin the same timeline.
 */
export const ce04OneTimelineTwice: NamedSchedule = {
  name: 'ce04-one-timeline-twice',
  counterexample: 'CE4',
  variant: 'timeline-not-reserved',
  schedule: {
    noise: 9,
    instances: 2,
    config: { synchronous: 1, durability: 'required', fencing: 'fast' },
    ttlMs: 6000,
    faults: [
      { at: 2053, kind: 'crash-postgres', who: 'leader' },
      { at: 2183, kind: 'isolate', who: 'leader', for: 1490 },
    ],
  },
};
