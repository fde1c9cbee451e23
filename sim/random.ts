/**
 * A stream of pseudo-random numbers. Everything that happens in a simulation comes from such streams and from the
 * faults of its schedule, so that a seed is a story.
 */
export interface Random {
  /** A number from 0 up to 1, exclusive. */
  next(): number;
  /** An integer from `low` to `high`, both inclusive. */
  between(low: number, high: number): number;
  /** True with probability `p`. */
  chance(p: number): boolean;
  /** One of the items, which must not be none. */
  pick<T>(items: readonly [T, ...T[]]): T;
}

/**
 * sfc32 ("Small Fast Counting"), Chris Doty-Humphrey, PractRand 0.94, http://pracrand.sourceforge.net: 128 bits of state,
 * passes PractRand and TestU01's BigCrush. Seeded from two 32-bit numbers and run 12 rounds, as PractRand does.
 */
export function random(seed: number, stream = 0): Random {
  let a = 0;
  let b = seed | 0;
  let c = stream | 0;
  let counter = 1;
  const next = () => {
    const t = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4_294_967_296;
  };
  for (let i = 0; i < 12; i++) next();
  const between = (low: number, high: number) => low + Math.floor(next() * (high - low + 1));
  return {
    next,
    between,
    chance: (p) => next() < p,
    pick: ([first, ...more]) => more[between(-1, more.length - 1)] ?? first,
  };
}
