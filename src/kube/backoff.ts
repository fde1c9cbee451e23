export interface BackoffLimits {
  readonly minMs: number;
  readonly maxMs: number;
}

/**
 * How long to wait after the given number of failures in a row (1 for the first): doubles each time from `minMs` up to
 * `maxMs`, of which a random part of up to one half is taken off, so that many who failed together do not come back
 * together.
 * @param random a number in [0, 1)
 */
export function backoffMs(failures: number, limits: BackoffLimits, random: number): number {
  const full = Math.min(limits.maxMs, limits.minMs * 2 ** Math.min(failures - 1, 50));
  return full * (1 - random / 2);
}
