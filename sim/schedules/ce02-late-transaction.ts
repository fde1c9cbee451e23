import type { NamedSchedule } from './named.ts';

/**
 * A change of the synchronous set is carried out, and the leader does not hear of it. If it went on as if nothing had
 * happened, Postgres and etcd would differ about whom commits wait for.
 */
export const ce02LateTransaction: NamedSchedule = {
  name: 'ce02-late-transaction',
  counterexample: 'CE2',
  variant: 'no-barrier',
  schedule: {
    noise: 241,
    instances: 3,
    config: { synchronous: 1, durability: 'required', fencing: 'fast' },
    ttlMs: 6000,
    faults: [
      { at: 2076, kind: 'lose-power', who: 1, for: 120 },
      { at: 2137, kind: 'cut-etcd', who: 'leader', for: 1437, requests: false, answers: true },
    ],
  },
};
