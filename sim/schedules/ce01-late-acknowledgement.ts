import type { NamedSchedule } from './named.ts';

/**
 * The old primary is frozen with a report of its synchronous standby in a socket. When it thaws it acknowledges a commit
 * after the next primary has been promoted. That is allowed, and must be: the next primary has the commit.
 */
export const ce01LateAcknowledgement: NamedSchedule = {
  name: 'ce01-late-acknowledgement',
  counterexample: 'CE1',
  schedule: {
    noise: 39,
    instances: 3,
    config: { synchronous: 1, durability: 'required', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 7137, kind: 'slow-reports', who: 0, for: 2657, delay: 939 },
      { at: 7346, kind: 'freeze', who: 'leader', for: 1822 },
    ],
  },
};
