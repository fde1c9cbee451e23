import type { NamedSchedule } from './named.ts';

/**
 * An agent stands still, somebody else leads, and the agent goes on with a heartbeat. If that compared the holder and not
 * the revision, or nothing, the old leader would write over the new one.
 */
export const ce02bHolderCompared: NamedSchedule = {
  name: 'ce02b-holder-compared',
  counterexample: 'CE2b',
  variant: 'heartbeat-not-compared',
  schedule: {
    noise: 37,
    instances: 2,
    config: { synchronous: 1, durability: 'required', fencing: 'fast' },
    ttlMs: 6000,
    faults: [{ at: 5685, kind: 'stall-agent', who: 'leader', for: 1345 }],
  },
};
