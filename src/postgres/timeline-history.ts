import { PostgresError } from './errors.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import type { PostgresPaths } from './paths.ts';

/** One line of a timeline history file: the ancestor and where its successor leaves it. */
export interface TimelineFork {
  readonly timeline: number;
  readonly endLsn: Lsn;
  readonly reason: string;
}

/** Name of a history file: eight hexadecimal digits. Timeline 1 has none. */
export function historyFileName(timeline: number): string {
  return `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
}

/**
 * Reads a history file: the ancestors of `timeline`, oldest first. An empty file has none ("not a child").
 * Throws PostgresError `InvalidTimelineHistory`.
 */
export function parseTimelineHistory(timeline: number, text: string): TimelineFork[] {
  const forks: TimelineFork[] = [];
  for (const line of text.split('\n')) {
    if (/^\s*(#|$)/.test(line)) continue;
    const [, number, lsn, reason] = /^\s*(\d+)\s+(\S+)(?:\s+(.*))?$/.exec(line) ?? [];
    const ancestor = Number(number);
    const before = forks.at(-1)?.timeline ?? 0;
    if (number === undefined || lsn === undefined || ancestor <= before || ancestor >= timeline) {
      throw new PostgresError('InvalidTimelineHistory', {
        expected: `ancestors of timeline ${timeline} in rising order`,
        found: JSON.stringify(line.slice(0, 200)),
        advice: 'the history file is damaged: take it from another instance',
      });
    }
    forks.push({ timeline: ancestor, endLsn: parseLsn(lsn), reason: reason ?? '' });
  }
  return forks;
}

/**
 * R6: the numbers to fill with empty history files so that Postgres, which probes contiguously from its own timeline,
 * chooses exactly `allotted` at promotion. Throws RangeError unless allotted > own >= 1.
 */
export function timelinesToFill(own: number, allotted: number): number[] {
  if (!Number.isSafeInteger(own) || !Number.isSafeInteger(allotted) || own < 1 || allotted <= own) {
    throw new RangeError(`the allotted timeline ${allotted} must be greater than the own one ${own}`);
  }
  return Array.from({ length: allotted - own - 1 }, (_, index) => own + 1 + index);
}

/** Reads and parses a history file in pg_wal; timeline 1 has none and no ancestors. `undefined`: not there. */
export async function readTimelineHistory(
  _paths: PostgresPaths,
  _timeline: number,
): Promise<TimelineFork[] | undefined> {
  throw new Error('not written yet');
}

/**
 * R6: puts empty history files on disk, durably, for every number between `own` and `allotted`, and removes every
 * history file of a timeline greater than `own` that is not empty (a sibling's would be taken for the parent), so that
 * the next promotion chooses `allotted`. Call it when the WAL receiver is verified gone, just before `promote`.
 */
export async function reserveTimeline(
  _paths: PostgresPaths,
  _timelines: { own: number; allotted: number },
): Promise<void> {
  throw new Error('not written yet');
}

/**
 * R6: before a start of a Postgres that did not reach the allotted timeline: removes each history file, empty or not,
 * whose timeline is greater than `own` (the timeline of its data).
 */
export async function removeLaterHistories(_paths: PostgresPaths, _own: number): Promise<void> {
  throw new Error('not written yet');
}
