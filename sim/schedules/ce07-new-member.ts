import type { NamedSchedule } from './named.ts';

/**
 * The leader is cut off from etcd and serves on with the promise of everybody on its list. A third instance comes back
 * with new data, which that list does not name: it was not asked, sees no heartbeat, and must not stand all the same.
 */
export const ce07NewMember: NamedSchedule = {
  name: 'ce07-new-member',
  counterexample: 'CE7',
  variant: 'new-member-stands',
  schedule: {
    noise: 1,
    instances: 3,
    config: { synchronous: 0, durability: 'required', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 3000, kind: 'lose-volume', who: 2, for: 200 },
      { at: 3001, kind: 'operation', who: 2, do: 'clone', fate: 'slow', delay: 2500 },
      { at: 5000, kind: 'cut-etcd', who: 0, for: 20000, requests: true, answers: true },
    ],
  },
};
