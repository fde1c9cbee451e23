import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type PostgresPaths, postgresPaths } from './paths.ts';
import {
  historyFileName,
  parseTimelineHistory,
  promotionParent,
  readTimelineHistory,
  removeForeignHistories,
  removeUnreachedHistories,
  reserveTimeline,
  timelinesToFill,
} from './timeline-history.ts';

let paths: PostgresPaths;
let wal: string;
beforeEach(async () => {
  paths = postgresPaths({ dataRoot: await mkdtemp(join(tmpdir(), 'koschei-')) });
  wal = join(paths.pgdata, 'pg_wal');
  await mkdir(join(wal, 'archive_status'), { recursive: true });
});
afterEach(() => rm(paths.dataRoot, { recursive: true }));

const put = (timeline: number, text: string) => writeFile(join(wal, historyFileName(timeline)), text);
/** A WAL segment; also the one that a receiver has only begun. */
const putWal = (timeline: number) =>
  writeFile(join(wal, `${timeline.toString(16).toUpperCase().padStart(8, '0')}000000000000000A`), '');
const there = async () =>
  (await readdir(wal))
    .filter((name) => name.endsWith('.history'))
    .map((name) => Number.parseInt(name, 16))
    .sort();

test('a history as Postgres writes it', () => {
  const text =
    '1\t0/5000158\tno recovery target specified\n\n# a remark\n3\t0/70001F0\tno recovery target specified\n';
  expect(parseTimelineHistory(7, text)).toEqual([
    { timeline: 1, endLsn: 0x5000158n, reason: 'no recovery target specified' },
    { timeline: 3, endLsn: 0x70001f0n, reason: 'no recovery target specified' },
  ]);
  expect(parseTimelineHistory(7, '')).toEqual([]);
});

test('ancestors must rise and be older than the timeline', () => {
  for (const text of ['3\t0/1\tx\n2\t0/2\tx', '7\t0/1\tx', 'x\t0/1\tx', '1']) {
    expect(() => parseTimelineHistory(7, text)).toThrow(
      expect.objectContaining({ code: 'InvalidTimelineHistory' }),
    );
  }
});

test('numbers between the own and the allotted timeline', () => {
  expect(timelinesToFill(1, 2)).toEqual([]);
  expect(timelinesToFill(1, 4)).toEqual([2, 3]);
  expect(() => timelinesToFill(4, 4)).toThrow(RangeError);
  expect(() => timelinesToFill(0, 4)).toThrow(RangeError);
});

test('names are hexadecimal', () => {
  expect(historyFileName(26)).toBe('0000001A.history');
});

test('reserving removes siblings and fills the gap', async () => {
  await put(2, '');
  await put(3, '1\t0/1\tx\n');
  await put(6, '3\t0/2\tx\n');
  await put(12, '3\t0/2\tx\n');
  await writeFile(join(wal, 'archive_status', `${historyFileName(6)}.ready`), '');
  await reserveTimeline(paths, { own: 3, allotted: 7 });
  expect(await there()).toEqual([2, 3, 4, 5, 6]);
  expect(await readFile(join(wal, historyFileName(6)), 'utf8')).toBe('');
  expect(await readdir(join(wal, 'archive_status'))).toEqual([]);
  expect(await readTimelineHistory(paths, 3)).toHaveLength(1);
  expect(await readTimelineHistory(paths, 1)).toEqual([]);
  expect(await readTimelineHistory(paths, 9)).toBeUndefined();
});

test('numbers of a promotion that did not happen are freed, those below a real history stay', async () => {
  for (const empty of [2, 3, 5, 6]) await put(empty, '');
  await put(4, '1\t0/1\tx\n');
  await putWal(4);
  await removeUnreachedHistories(paths, 1);
  expect(await there()).toEqual([2, 3, 4]);
  await rm(join(wal, historyFileName(4)));
  await removeUnreachedHistories(paths, 1);
  expect(await there()).toEqual([]);
});

test('a history of which no WAL was ever received goes before a start, and all above it', async () => {
  await putWal(1);
  await put(2, '1\t0/1\tx\n');
  await put(3, '');
  await removeUnreachedHistories(paths, 1);
  expect(await there()).toEqual([]);
});

test('a history that local WAL may belong to is never removed for a promotion', async () => {
  await putWal(4);
  await put(4, '1\t0/1\tx\n');
  await put(9, '1\t0/1\tx\n');
  await expect(reserveTimeline(paths, { own: 1, allotted: 7 })).rejects.toMatchObject({
    code: 'HistoryAhead',
  });
  expect(await there()).toEqual([4, 9]);
  await reserveTimeline(paths, { own: 4, allotted: 7 });
  expect(await there()).toEqual([4, 5, 6]);
});

test('the parent of a promotion is the newest timeline that begins where the replay ended', async () => {
  const parent = (replayed: bigint) => promotionParent(paths, { timeline: 1, replayed });
  expect(await parent(5n)).toBe(1);
  await put(2, '');
  expect(await parent(5n)).toBe(1);
  await put(3, '1\t0/5\tx\n');
  expect(await parent(5n)).toBe(3);
  // It forks off before what is here: not adopted.
  expect(await parent(6n)).toBe(1);
  await expect(parent(4n)).rejects.toMatchObject({ code: 'HistoryAhead' });
  // Probing is contiguous.
  await put(5, '1\t0/9\tx\n');
  expect(await parent(5n)).toBe(3);
});

test('histories that are not of the leader go', async () => {
  await put(2, '');
  await put(3, '1\t0/1\tx\n');
  await put(4, '1\t0/1\tx\n');
  await put(5, '');
  await put(6, '');
  await removeForeignHistories(paths, 1, {
    timeline: 5,
    ancestors: [{ timeline: 1, endLsn: 1n, reason: '' }],
  });
  expect(await there()).toEqual([2, 5]);
});
