import type { Attempt, Read, Server } from './history.ts';
import { isEarlier, some } from './primaries.ts';

/** What reads of registers showed. */
export interface ReadVerdict {
  readonly reads: number;
  /** Old values from a primary that had been replaced, within the time that it may still answer reads. */
  readonly staleUntilFence: number;
  /** What is wrong, as sentences. */
  readonly problems: readonly string[];
}

/**
 * Judges reads of atomic registers with one writer each. A read sees at least the last write that was acknowledged
 * before it began and the newest value that an earlier read saw, and at most the last one attempted before it ended;
 * never a value whose transaction failed. Exact, O(n log n).
 *
 * An old primary that is cut off may answer with old values until it fences (docs/high-availability.md, "What is not
 * guaranteed"): such a read is allowed until `fenceWithin` milliseconds after a later primary was first heard of.
 */
export function judgeReads(
  attempts: readonly Attempt[],
  reads: readonly Read[],
  fenceWithin: number,
): ReadVerdict {
  const writes = Map.groupBy(attempts, ({ worker }) => worker);
  const readsOf = Map.groupBy(reads, ({ worker }) => worker);
  const successions = newestServers([...attempts.flatMap(servedBy), ...reads]);
  const [old, aborted, future]: [string[], string[], string[]] = [[], [], []];
  let staleUntilFence = 0;
  for (const [worker, mine] of readsOf) {
    const written = (writes.get(worker) ?? []).toSorted((a, b) => a.seq - b.seq);
    const failed = new Set(written.filter(({ outcome }) => outcome === 'failed').map(({ seq }) => seq));
    const seen = [
      ...written.flatMap((each) =>
        servedBy(each).map((server) => ({ ...server, at: each.completedAt, value: each.seq })),
      ),
      ...mine.map((each) => ({ ...each, at: each.completedAt })),
    ];
    const anybodys = runningMaximum(seen);
    /** What primaries up to and including this one showed. */
    const own = new Map<string, Point[]>();
    const floorsOf = (server: Server) => {
      const key = `${server.timeline} ${server.started}`;
      const found = own.get(key) ?? runningMaximum(seen.filter((each) => !isEarlier(server, each)));
      own.set(key, found);
      return found;
    };
    const ceilings = runningMaximum(written.map(({ invokedAt, seq }) => ({ at: invokedAt, value: seq })));
    for (const each of mine) {
      const name = `reader ${each.reader} read ${each.value} of ${worker}`;
      if (failed.has(each.value)) aborted.push(name);
      else if (each.value > (before(ceilings, each.completedAt)?.value ?? 0)) future.push(name);
      else {
        const floor = before(anybodys, each.invokedAt)?.value ?? 0;
        if (each.value >= floor) continue;
        const successor = successions.find(({ server }) => isEarlier(each, server));
        const excused =
          successor !== undefined &&
          each.invokedAt <= successor.at + fenceWithin &&
          each.value >= (before(floorsOf(each), each.invokedAt)?.value ?? 0);
        if (excused) staleUntilFence += 1;
        else old.push(`${name} instead of ${floor}`);
      }
    }
  }
  const rows = (what: string, names: readonly string[]) =>
    names.length === 0 ? [] : [`${names.length} ${what}: ${some(names)}`];
  return {
    reads: reads.length,
    staleUntilFence,
    problems: [
      ...rows('reads saw an old value', old),
      ...rows('reads saw a value whose transaction had failed', aborted),
      ...rows('reads saw a value that nobody had written', future),
    ],
  };
}

function servedBy({ timeline, server, started, completedAt, outcome }: Attempt) {
  return timeline === undefined || outcome !== 'acknowledged'
    ? []
    : [{ timeline, server: server ?? '', started: started ?? 0, completedAt }];
}

/** Each server that is later than all before it, and when it was first heard of; in order. */
function newestServers(
  answers: readonly (Server & { readonly completedAt: number })[],
): { readonly at: number; readonly server: Server }[] {
  const found: { readonly at: number; readonly server: Server }[] = [];
  for (const answer of answers.toSorted((a, b) => a.completedAt - b.completedAt)) {
    const last = found.at(-1)?.server;
    if (last === undefined || isEarlier(last, answer)) found.push({ at: answer.completedAt, server: answer });
  }
  return found;
}

interface Point {
  readonly at: number;
  readonly value: number;
}

/** The points in order of time, each with the largest value so far. */
function runningMaximum(points: readonly Point[]): Point[] {
  let value = 0;
  return points
    .toSorted((a, b) => a.at - b.at)
    .map((point) => {
      value = Math.max(value, point.value);
      return { at: point.at, value };
    });
}

/** The last point before a moment. */
function before(points: readonly Point[], moment: number): Point | undefined {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((points[middle]?.at ?? 0) < moment) low = middle + 1;
    else high = middle;
  }
  return points[low - 1];
}
