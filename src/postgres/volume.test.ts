import {
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import {
  type Identity,
  readIdentity,
  readPromotion,
  readTaint,
  writePromotion,
  writeTaint,
} from './identity.ts';
import { type PostgresPaths, postgresPaths } from './paths.ts';
import { discardData, newWalDirectory, prepareVolume, removeOldData, swapIn } from './volume.ts';

let paths: PostgresPaths;
beforeEach(async () => {
  const root = await mkdtemp(join(tmpdir(), 'koschei-'));
  paths = postgresPaths({ dataRoot: join(root, 'data'), walRoot: join(root, 'wal') });
  await mkdir(paths.dataRoot);
  await mkdir(join(root, 'wal'));
});
afterEach(() => rm(join(paths.dataRoot, '..'), { recursive: true }));

const identity = (dataId: string): Identity => ({
  dataId,
  clusterId: 'c1',
  systemIdentifier: '7710596494171529607',
  major: 17,
  createdBy: 'clone',
  bootstrap: false,
});
const oldId = '00000000000000aa';
const newId = '00000000000000bb';

/** New data as initdb or pg_basebackup leaves it. */
async function makeData(dataId: string): Promise<void> {
  const wal = newWalDirectory(paths, dataId) ?? '';
  await mkdir(wal, { recursive: true });
  await mkdir(paths.pgdataNew);
  await writeFile(join(paths.pgdataNew, 'content'), dataId);
  await symlink(wal, join(paths.pgdataNew, 'pg_wal'));
}

const content = (directory: string): Promise<string> => readFile(join(directory, 'content'), 'utf8');

test('an empty volume', async () => {
  expect(await prepareVolume(paths)).toEqual({ kind: 'empty' });
  expect((await stat(paths.agentDir)).mode & 0o777).toBe(0o700);
});

test('half-made data is removed', async () => {
  await makeData(newId);
  expect(await prepareVolume(paths)).toEqual({ kind: 'empty' });
  expect(await readdir(paths.dataRoot)).toEqual(['agent']);
  expect(await readdir(paths.walRoot ?? '')).toEqual([]);
});

test('data that Koschei did not make is left alone', async () => {
  await mkdir(paths.pgdata);
  await expect(prepareVolume(paths)).rejects.toMatchObject({ code: 'VolumeInconsistent' });
  expect(await readdir(paths.dataRoot)).toContain('pgdata');
});

test('a swap keeps the old data and its WAL until they are removed', async () => {
  await prepareVolume(paths);
  await makeData(oldId);
  await swapIn(paths, identity(oldId));
  await makeData(newId);
  await swapIn(paths, identity(newId));
  expect(await content(paths.pgdata)).toBe(newId);
  expect(await content(paths.pgdataOld)).toBe(oldId);
  expect(await readlink(join(paths.pgdata, 'pg_wal'))).toBe(newWalDirectory(paths, newId));
  expect((await readdir(paths.walRoot ?? '')).sort()).toEqual([`pg_wal.${oldId}`, `pg_wal.${newId}`]);
  expect(await prepareVolume(paths)).toEqual({ kind: 'ready', identity: identity(newId) });
  expect(await removeOldData(paths)).toBe(true);
  expect(await removeOldData(paths)).toBe(false);
  expect(await readdir(paths.walRoot ?? '')).toEqual([`pg_wal.${newId}`]);
});

test('further swaps keep the data of before the first one: the copies since have not been proven', async () => {
  await prepareVolume(paths);
  for (const dataId of [oldId, newId, '00000000000000cc']) {
    await makeData(dataId);
    await swapIn(paths, identity(dataId));
  }
  expect(await content(paths.pgdata)).toBe('00000000000000cc');
  expect(await content(paths.pgdataOld)).toBe(oldId);
  expect((await readdir(paths.dataRoot)).sort()).toEqual(['agent', 'pgdata', 'pgdata.old']);
  expect(await removeOldData(paths)).toBe(true);
  expect(await readdir(paths.walRoot ?? '')).toEqual(['pg_wal.00000000000000cc']);
});

test('old data of which a part was removed already are no data', async () => {
  await prepareVolume(paths);
  for (const dataId of [oldId, newId]) {
    await makeData(dataId);
    await swapIn(paths, identity(dataId));
  }
  const interrupted = new AbortController();
  await mkdir(join(paths.pgdataOld, 'base'));
  const removal = removeOldData(paths, { signal: interrupted.signal });
  while ((await readdir(paths.dataRoot)).includes('pgdata.old'));
  interrupted.abort();
  await removal.catch(() => undefined);
  await makeData('00000000000000cc');
  await swapIn(paths, identity('00000000000000cc'));
  expect(await content(paths.pgdataOld)).toBe(newId);
});

test('removing the old data leaves the WAL of a clone under way alone', async () => {
  await prepareVolume(paths);
  for (const dataId of [oldId, newId]) {
    await makeData(dataId);
    await swapIn(paths, identity(dataId));
  }
  const cloned = '00000000000000cc';
  await makeData(cloned);
  expect(await removeOldData(paths)).toBe(true);
  expect(await readdir(newWalDirectory(paths, cloned) ?? '')).toEqual([]);
});

test('removing the old data can be interrupted, and goes on later', async () => {
  await prepareVolume(paths);
  for (const dataId of [oldId, newId]) {
    await makeData(dataId);
    await swapIn(paths, identity(dataId));
  }
  await mkdir(join(paths.pgdataOld, 'base', '1'), { recursive: true });
  await writeFile(join(paths.pgdataOld, 'base', '1', '2'), '');
  await expect(removeOldData(paths, { signal: AbortSignal.abort(new Error('later')) })).rejects.toThrow(
    'later',
  );
  expect(await content(paths.pgdataOld)).toBe(oldId);
  expect(await removeOldData(paths)).toBe(true);
  expect((await readdir(paths.dataRoot)).sort()).toEqual(['agent', 'pgdata']);
  expect(await readdir(paths.walRoot ?? '')).toEqual([`pg_wal.${newId}`]);
});

describe('a crash in the swap', () => {
  beforeEach(async () => {
    await prepareVolume(paths);
    await makeData(oldId);
    await swapIn(paths, identity(oldId));
    await makeData(newId);
  });
  const decide = () => writeFile(join(paths.agentDir, 'identity.next.json'), JSON.stringify(identity(newId)));
  const steps: [string, () => Promise<void>][] = [
    ['after the decision', async () => {}],
    ['after the old data was put aside', () => rename(paths.pgdata, paths.pgdataOld)],
    ['after the new data was put in place', () => rename(paths.pgdataNew, paths.pgdata)],
  ];
  for (let crashed = 1; crashed <= steps.length; crashed++) {
    test(`${steps[crashed - 1]?.[0]} leads to the new data, however often it is repeated`, async () => {
      await decide();
      for (const [, step] of steps.slice(0, crashed)) await step();
      for (let i = 0; i < 3; i++) {
        expect(await prepareVolume(paths)).toEqual({ kind: 'ready', identity: identity(newId) });
        expect(await content(paths.pgdata)).toBe(newId);
        expect(await content(paths.pgdataOld)).toBe(oldId);
      }
    });
  }
  test('before the decision leads to the old data', async () => {
    expect(await prepareVolume(paths)).toEqual({ kind: 'ready', identity: identity(oldId) });
    expect(await content(paths.pgdata)).toBe(oldId);
  });
  test('and a lost directory are told', async () => {
    await decide();
    await rm(paths.pgdata, { recursive: true });
    await rm(paths.pgdataNew, { recursive: true });
    await expect(prepareVolume(paths)).rejects.toMatchObject({ code: 'VolumeInconsistent' });
  });
});

test('discarded data is gone at once, also when removing it is interrupted', async () => {
  await prepareVolume(paths);
  await makeData(oldId);
  await swapIn(paths, identity(oldId));
  await rename(paths.pgdata, join(paths.dataRoot, 'pgdata.discarded'));
  expect(await prepareVolume(paths)).toEqual({ kind: 'empty' });
  expect(await readIdentity(paths)).toBeUndefined();
  expect(await readdir(paths.walRoot ?? '')).toEqual([]);
  await makeData(newId);
  await swapIn(paths, identity(newId));
  await discardData(paths);
  expect(await readdir(paths.dataRoot)).toEqual(['agent']);
  expect(await prepareVolume(paths)).toEqual({ kind: 'empty' });
});

test('a taint counts for the data it was written for', async () => {
  await prepareVolume(paths);
  await makeData(oldId);
  await swapIn(paths, identity(oldId));
  await writeTaint(paths, { dataId: oldId, reason: 'why' });
  expect(await prepareVolume(paths)).toMatchObject({ kind: 'tainted', taint: { reason: 'why' } });
  await makeData(newId);
  await swapIn(paths, identity(newId));
  expect((await prepareVolume(paths)).kind).toBe('ready');
  expect(await readTaint(paths, newId)).toBeUndefined();
});

test('the promoted term only grows', async () => {
  await prepareVolume(paths);
  expect(await readPromotion(paths)).toEqual({ term: 0, timeline: 0 });
  await writePromotion(paths, { term: 3, timeline: 5 });
  await expect(writePromotion(paths, { term: 3, timeline: 6 })).rejects.toThrow(RangeError);
  expect(await readPromotion(paths)).toEqual({ term: 3, timeline: 5 });
});

test('a damaged identity is told, not guessed', async () => {
  await prepareVolume(paths);
  await makeData(oldId);
  await swapIn(paths, identity(oldId));
  await writeFile(join(paths.agentDir, 'identity.json'), '{"dataId":"x"}');
  await expect(prepareVolume(paths)).rejects.toMatchObject({ code: 'UnreadableIdentity' });
});
