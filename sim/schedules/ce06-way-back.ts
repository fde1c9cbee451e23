import type { NamedSchedule } from './named.ts';

/**
 * A hand-over is carried out, and the old primary does not hear of it. If it simply started again, two instances would
 * take writes.
 */
export const ce06WayBack: NamedSchedule = {
  name: 'ce06-way-back',
  counterexample: 'CE6',
  variant: 'way-back-without-barrier',
  schedule: {
    noise: 3,
    instances: 2,
    config: { synchronous: 0, durability: 'required', fencing: 'fast' },
    ttlMs: 6000,
    faults: [
      { at: 3000, kind: 'transaction', who: 0, write: 'vacate', fate: 'answer-lost', delay: 0 },
      { at: 3001, kind: 'switchover' },
      { at: 3500, kind: 'cut-etcd', who: 0, for: 3000, requests: true, answers: true },
    ],
  },
};
