import type { NamedSchedule } from './named.ts';

/**
 * While a synchronous standby is replaced, a walsender has not yet loaded the new names and releases commits by the old
 * ones.
 */
export const ce05aWalsenderWithOldNames: NamedSchedule = {
  name: 'ce05a-walsender-with-old-names',
  counterexample: 'CE5 (a)',
  variant: 'walsenders-not-awaited',
  schedule: {
    noise: 21,
    instances: 4,
    config: { synchronous: 1, durability: 'required', fencing: 'fast' },
    ttlMs: 6000,
    faults: [
      { at: 3760, kind: 'slow-reload', who: 'leader', for: 379, delay: 128 },
      { at: 4035, kind: 'switchover', to: 1 },
    ],
  },
};
