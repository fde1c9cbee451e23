import type { NamedSchedule } from './named.ts';

/**
 * The only synchronous standby is gone for a moment, the set is empty, and the primary fails. The standby, back again,
 * must not lead: what was acknowledged meanwhile is on the primary alone.
 */
export const ce10EmptyIsNotAbsent: NamedSchedule = {
  name: 'ce10-empty-is-not-absent',
  counterexample: 'CE10',
  variant: 'empty-is-async',
  schedule: {
    noise: 54,
    instances: 2,
    config: { synchronous: 1, durability: 'preferred', fencing: 'fast' },
    ttlMs: 4000,
    faults: [
      { at: 2509, kind: 'lose-power', who: 'leader', for: 2100 },
      { at: 4438, kind: 'kill-agent', who: 'sync', for: 6754 },
    ],
  },
};
