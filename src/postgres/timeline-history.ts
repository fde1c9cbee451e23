import { open, readdir, readFile, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { ifThere, syncDirectory } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import { formatLsn, type Lsn, parseLsn } from './lsn.ts';
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

/**
 * Reads and parses a history file in pg_wal; timeline 1 has none and no ancestors. `undefined`: not there.
 * Throws PostgresError `InvalidTimelineHistory`.
 */
export async function readTimelineHistory(
  paths: PostgresPaths,
  timeline: number,
): Promise<TimelineFork[] | undefined> {
  if (timeline === 1) return [];
  const text = await ifThere(readFile(join(walDirectory(paths), historyFileName(timeline)), 'utf8'));
  return text === undefined ? undefined : parseTimelineHistory(timeline, text);
}

/**
 * R6: the timeline that a promotion would name as the parent of the new one: the one replayed last, or a child of it
 * that begins exactly where the replay ended. Postgres adopts the newest history that it finds by probing contiguously,
 * unless that is no child or forks off before the replayed position (rescanLatestTimeLine in xlogrecovery.c). Call it
 * when the WAL receiver is gone and all is replayed. Throws PostgresError `HistoryAhead` when the adopted one begins
 * further on: the new timeline's history would then contradict it.
 */
export async function promotionParent(
  paths: PostgresPaths,
  { timeline, replayed }: { timeline: number; replayed: Lsn },
): Promise<number> {
  const sizes = await historySizes(paths);
  let newest = timeline;
  while (sizes.has(newest + 1)) newest++;
  if (newest === timeline) return timeline;
  const forks = (await readTimelineHistory(paths, newest)) ?? [];
  const fork = forks.find((candidate) => candidate.timeline === timeline);
  if (fork === undefined || fork.endLsn < replayed) return timeline;
  if (fork.endLsn === replayed) return newest;
  throw new PostgresError('HistoryAhead', {
    expected: `no timeline that begins after ${formatLsn(replayed)} on timeline ${timeline}, which is all that is here`,
    found: `timeline ${newest}, which begins at ${formatLsn(fork.endLsn)}`,
    advice:
      'a restart as standby forgets a timeline of which there is no WAL here; else promote another instance',
  });
}

/**
 * R6: puts empty history files on disk, durably, for every number between `own` and `allotted`, and removes every other
 * history file of a timeline greater than `own` (a sibling's would be taken for the parent), so that the next promotion
 * chooses `allotted`. `own` is the timeline that will be its parent (`promotionParent`). Call it when the WAL receiver is
 * verified gone and all is replayed, just before `promote`. The files are never archived, because they are not marked
 * ready. Throws RangeError unless allotted > own >= 1, and PostgresError `HistoryAhead` when there is WAL here that may
 * belong to a history that would have to go: it was not replayed.
 */
export async function reserveTimeline(
  paths: PostgresPaths,
  { own, allotted }: { own: number; allotted: number },
): Promise<void> {
  const toFill = timelinesToFill(own, allotted);
  const newest = await newestWalTimeline(paths);
  const needed = [...(await historySizes(paths))].find(
    ([timeline, size]) => size > 0 && timeline > own && timeline <= newest,
  );
  if (needed !== undefined)
    throw new PostgresError('HistoryAhead', {
      expected: `no WAL after timeline ${own}, on which the replay ended`,
      found: `WAL of timeline ${newest} and the history of timeline ${needed[0]}`,
      advice:
        'it may hold commits that nobody else has: promote another instance, or look why it is not replayed',
    });
  await removeHistories(paths, (timeline) => timeline > own);
  for (const timeline of toFill) {
    const handle = await open(join(walDirectory(paths), historyFileName(timeline)), 'w', 0o600);
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  }
  await syncDirectory(walDirectory(paths));
}

/**
 * R6: before a start of a Postgres that did not reach its allotted timeline: removes the empty history files that such
 * a promotion left, and the histories of timelines of which no WAL was ever received (they are fetched again when they
 * are followed). What is at or below a history that has WAL stays: Postgres probes contiguously, and without it recovery
 * would not find the timeline on which acknowledged WAL was received. `own`: timeline of the control file.
 */
export async function removeUnreachedHistories(paths: PostgresPaths, own: number): Promise<void> {
  const sizes = await historySizes(paths);
  const newest = await newestWalTimeline(paths);
  const withWal = [...sizes].filter(([timeline, size]) => size > 0 && timeline <= newest);
  const last = Math.max(own, ...withWal.map(([timeline]) => timeline));
  await removeHistories(paths, (timeline) => timeline > last);
}

/**
 * Removes history files of timelines after `own` that are not the leader's: left by a primary that was followed but has
 * lost. `leader`: its timeline and the ancestors of it. Empty files below the leader's timeline stay.
 */
export async function removeForeignHistories(
  paths: PostgresPaths,
  own: number,
  leader: { timeline: number; ancestors: readonly TimelineFork[] },
): Promise<void> {
  const sizes = await historySizes(paths);
  const kept = new Set([leader.timeline, ...leader.ancestors.map(({ timeline }) => timeline)]);
  await removeHistories(
    paths,
    (timeline) =>
      timeline > own && !kept.has(timeline) && (sizes.get(timeline) !== 0 || timeline > leader.timeline),
  );
}

async function historySizes(paths: PostgresPaths): Promise<Map<number, number>> {
  const sizes = new Map<number, number>();
  for (const name of await readdir(walDirectory(paths))) {
    const timeline = timelineOf(name);
    if (timeline !== undefined) sizes.set(timeline, (await stat(join(walDirectory(paths), name))).size);
  }
  return sizes;
}

/** The newest timeline that a WAL segment here is named after, complete or not; 0: there is none. */
async function newestWalTimeline(paths: PostgresPaths): Promise<number> {
  const timelines = (await readdir(walDirectory(paths))).flatMap((name) => {
    const digits = /^([0-9A-F]{8})[0-9A-F]{16}(\.partial)?$/.exec(name)?.[1];
    return digits === undefined ? [] : [Number.parseInt(digits, 16)];
  });
  return Math.max(0, ...timelines);
}

async function removeHistories(paths: PostgresPaths, which: (timeline: number) => boolean): Promise<void> {
  const directory = walDirectory(paths);
  for (const name of await readdir(directory)) {
    const timeline = timelineOf(name);
    if (timeline === undefined || !which(timeline)) continue;
    await rm(join(directory, name));
    await rm(join(directory, 'archive_status', `${name}.ready`), { force: true });
  }
  await syncDirectory(directory);
}

function timelineOf(fileName: string): number | undefined {
  const digits = /^([0-9A-F]{8})\.history$/.exec(fileName)?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 16);
}

function walDirectory(paths: PostgresPaths): string {
  return join(paths.pgdata, 'pg_wal');
}
