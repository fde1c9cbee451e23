import type { NamedSchedule } from './named.ts';

/**
 * The same, with the new name at the end of the list: no priority changes, so nothing shows who has loaded it.
 */
export const ce05bNewNameLast: NamedSchedule = {
  name: 'ce05b-new-name-last',
  counterexample: 'CE5 (b)',
  variant: 'joiner-last',
  schedule: {
    noise: 1000030,
    instances: 4,
    config: { synchronous: 2, durability: 'required', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 6810, kind: 'kill-agent', who: 1, for: 383 },
      { at: 7080, kind: 'slow-reload', who: 0, for: 107, delay: 1386 },
    ],
  },
};
