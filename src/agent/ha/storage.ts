import type { Facts, StorageFacts } from './facts.ts';

/**
 * A leader on whose volume nothing has become durable for this long leaves the place to somebody else, ms: as long as for
 * a database that does not answer. A write that takes longer than this is no longer a slow disk that flushes a checkpoint.
 */
export const storageSilenceMs = 5_000;
/** A standby with such a volume is none to count on after this long, ms: that costs nothing, so it is shorter. */
export const standbyStorageSilenceMs = 2_500;

/** A volume on which nothing has become durable for more than `ms`; undefined: none, or nobody knows. */
export function stalledStorage(facts: Facts, ms: number): StorageFacts | undefined {
  return facts.storage.find(({ goodAt, lookedAt }) => lookedAt - goodAt > ms);
}

/** Below this a volume is as good as full, bytes: two WAL segments, without which Postgres is not started again either. */
const fullBelowBytes = 32 << 20;

/** What people should know of the volumes of this instance. The text stays the same for as long as it is so. */
export function storageProblem(facts: Facts): { reason: string; message: string } | undefined {
  const stalled = stalledStorage(facts, storageSilenceMs);
  if (stalled === undefined) {
    const full = facts.storage.find((v) => v.freeBytes !== undefined && v.freeBytes < fullBelowBytes);
    if (full === undefined) return undefined;
    return {
      reason: 'DiskFull',
      message: `the ${full.volume} volume has less than ${fullBelowBytes >> 20} MiB left; enlarge it before Postgres ends for want of room`,
    };
  }
  const { volume, failure } = stalled;
  return {
    reason: 'DiskStalled',
    message: `nothing written to the ${volume} volume has become durable for more than ${storageSilenceMs / 1_000} s${failure === undefined ? '' : ` (${failure})`}; look for a disk that is stalled, failed or read-only`,
  };
}
