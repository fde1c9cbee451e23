import type { NamedSchedule } from './named.ts';

/**
 * Coming from no synchronous standby at all, the checkpointer has not yet loaded the names: the standby shows as
 * synchronous, and no commit waits for it.
 */
export const ce05cCommitsDoNotWait: NamedSchedule = {
  name: 'ce05c-commits-do-not-wait',
  counterexample: 'CE5 (c)',
  variant: 'wait-not-proved',
  schedule: {
    noise: 4000118,
    instances: 2,
    config: { synchronous: 1, durability: 'preferred', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 2478, kind: 'slow-reload', who: 1, for: 2063, delay: 426 },
      { at: 2646, kind: 'switchover' },
    ],
  },
};
