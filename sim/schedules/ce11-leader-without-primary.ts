import type { NamedSchedule } from './named.ts';

/**
 * The leader's Postgres runs as a standby, in a term that its data directory has used up. Without a new term there would
 * be a leader with fresh heartbeats and no primary, for ever.
 */
export const ce11LeaderWithoutPrimary: NamedSchedule = {
  name: 'ce11-leader-without-primary',
  counterexample: 'CE11',
  variant: 'no-new-term',
  schedule: {
    noise: 2000046,
    instances: 2,
    config: { synchronous: 0, durability: 'required', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 4685, kind: 'disk-full', who: 0, for: 1073 },
      { at: 6468, kind: 'stop-pod', who: 'leader' },
      { at: 6523, kind: 'crash-postgres', who: 1 },
    ],
  },
};
