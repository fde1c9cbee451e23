import type { NamedSchedule } from './named.ts';

/**
 * The volume of the synchronous standby is replaced by an old backup under the same name. If names counted instead of
 * data ids, it would take over without what it had confirmed.
 */
export const ce03RemadeVolume: NamedSchedule = {
  name: 'ce03-remade-volume',
  counterexample: 'CE3',
  variant: 'names-outlive-data',
  schedule: {
    noise: 2000028,
    instances: 2,
    config: { synchronous: 1, durability: 'required', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 6581, kind: 'freeze', who: 'leader', for: 1674 },
      { at: 6655, kind: 'restore-backup', who: 'sync', for: 171 },
    ],
  },
};
