import { readdir, readlink, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readControlData } from './control-data.ts';
import { readTaint, writeTaint } from './identity.ts';
import { readRemote } from './remote.ts';
import { placeholderName, replicationName } from './replication-names.ts';
import { rewind } from './rewind.ts';
import { setStandbySignal } from './settings-files.ts';
import { replayProgress } from './sql.ts';
import { eventually, query, TestBed, type TestInstance } from './test-instances.ts';
import {
  promotionParent,
  readTimelineHistory,
  removeUnreachedHistories,
  reserveTimeline,
} from './timeline-history.ts';
import { prepareVolume, removeOldData } from './volume.ts';

let bed: TestBed;
let a: TestInstance;
let b: TestInstance;
let c: TestInstance;

beforeAll(async () => {
  bed = await TestBed.create();
  [a, b, c] = await Promise.all([
    bed.instance('a'),
    bed.instance('b', { walVolume: true }),
    bed.instance('c'),
  ]);
  await a.initdb();
  await a.startAsPrimary();
  await run(a, 'CREATE TABLE t (id int PRIMARY KEY)');
});
afterAll(() => bed.close());

const run = (instance: TestInstance, statement: string) => query(instance, statement, 'app');

function rowFor(instance: TestInstance) {
  return (row: { applicationName: string }) => row.applicationName === replicationName(instance.dataId);
}

async function setSynchronous(primary: TestInstance, names: string[]): Promise<void> {
  const rendered = await primary.configure({ synchronousStandbys: names });
  expect(await primary.sql.reloadAndVerify(rendered.owned)).toEqual([]);
}

describe('replication', { concurrent: false }, () => {
  test('clones stream from the primary through slots', async () => {
    await Promise.all([b.clone(a), c.clone(a)]);
    for (const standby of [b, c]) {
      expect(standby.identity?.systemIdentifier).toBe(a.identity?.systemIdentifier);
      expect(standby.dataId).not.toBe(a.dataId);
      await a.sql.createSlot(replicationName(standby.dataId));
      await a.sql.createSlot(replicationName(standby.dataId));
      await standby.startAsStandby(a, { upstreamSlot: replicationName(standby.dataId) });
    }
    expect(await readlink(join(b.paths.pgdata, 'pg_wal'))).toBe(
      join(b.paths.walRoot ?? '', `pg_wal.${b.dataId}`),
    );
    const seen = await a.observed('both stream', ({ replication }) =>
      [b, c].every((standby) => replication.find(rowFor(standby))?.state === 'streaming'),
    );
    expect(seen).toMatchObject({ inRecovery: false, timeline: 1, walReceiver: null, walReceiverPid: null });
    expect(seen.slots.map(({ name, active }) => [name, active]).sort()).toEqual(
      [b, c].map((standby) => [replicationName(standby.dataId), true]).sort(),
    );
    const standby = await b.observed('it receives', ({ walReceiver }) => walReceiver?.status === 'streaming');
    expect(standby).toMatchObject({
      inRecovery: true,
      timeline: 1,
      insertLsn: null,
      systemIdentifier: a.identity?.systemIdentifier,
      walReceiver: { senderHost: a.upstream.host, senderPort: a.paths.port, receivedTimeline: 1 },
    });
    expect(standby.walReceiverPid).toBe(standby.walReceiver?.pid);
    expect(standby.receiveLsn).not.toBeNull();
    expect(await b.sql.verifySettings(b.rendered?.owned ?? {})).toEqual([]);
  });

  test('a standby takes the larger of the spec and its control file', async () => {
    await b.stop();
    await b.startAsStandby(a, {
      parameters: { max_connections: 20 },
      atLeast: (await readControlData(b.installation)).settings,
    });
    expect(b.rendered?.owned.max_connections).toBe('100');
    await b.stop();
    await b.startAsStandby(a, { upstreamSlot: replicationName(b.dataId) });
  });

  test('commits wait for all named standbys, and that is seen', async () => {
    await a.observed(
      'both stream',
      ({ replication }) => replication.filter((r) => r.state === 'streaming').length === 2,
    );
    expect(await a.sql.proveCommitsWait(500)).toBe(false);
    await setSynchronous(a, [replicationName(b.dataId), replicationName(c.dataId)]);
    const seen = await a.observed('priorities', ({ replication }) =>
      replication.every((row) => row.syncState === 'sync'),
    );
    expect(seen.replication.find(rowFor(b))?.syncPriority).toBe(1);
    expect(seen.replication.find(rowFor(c))?.syncPriority).toBe(2);
    expect(await a.sql.proveCommitsWait(10_000)).toBe(true);

    await setSynchronous(a, [replicationName(b.dataId), placeholderName]);
    const commit = run(a, 'INSERT INTO t VALUES (1)');
    await a.observed(
      'a waiter',
      ({ syncWaiters }) => syncWaiters.count === 1 && syncWaiters.longestMs >= 100,
    );
    expect(await a.sql.proveCommitsWait(5_000)).toBe(true);
    await setSynchronous(a, [replicationName(b.dataId)]);
    await commit;
    await a.observed(
      'no waiter',
      ({ syncWaiters }) => syncWaiters.count === 0 && syncWaiters.longestMs === 0,
    );
  });

  test('a commit that waits for nobody any more is released at once', async () => {
    // A standby reports every second in any case: one commit alone might have been lucky.
    for (let round = 0; round < 4; round++) {
      await setSynchronous(a, [replicationName(b.dataId), placeholderName]);
      const commit = run(a, "SELECT pg_logical_emit_message(true, 'test', '')");
      await a.observed('a waiter', ({ syncWaiters }) => syncWaiters.longestMs >= 100);
      await setSynchronous(a, [replicationName(b.dataId)]);
      const began = performance.now();
      await a.sql.wakeWalsenders();
      await commit;
      expect(performance.now() - began).toBeLessThan(250);
    }
  });

  test('a standby that is cut off receives nothing more, and resumes', async () => {
    const rendered = await b.configure({ upstream: undefined });
    await b.sql.reloadAndVerify(rendered.owned);
    await b.observed(
      'no receiver',
      ({ walReceiver, walReceiverPid }) => walReceiver === null && walReceiverPid === null,
    );
    await b.sql.reloadAndVerify(
      (await b.configure({ upstream: a.upstream, upstreamSlot: replicationName(b.dataId) })).owned,
    );
    const { walReceiverPid } = await b.observed(
      'it receives',
      ({ walReceiver }) => walReceiver?.status === 'streaming',
    );
    expect(await b.sql.terminateWalReceiver()).toBe(walReceiverPid);
    await b.observed(
      'another receiver',
      (seen) => seen.walReceiver?.status === 'streaming' && seen.walReceiverPid !== walReceiverPid,
    );
  });

  test('a standby is asked from afar', async () => {
    const state = await readRemote(a.paths, b.upstream);
    expect(state).toMatchObject({
      inRecovery: true,
      timeline: 1,
      history: [],
      systemIdentifier: a.identity?.systemIdentifier,
    });
    await expect(readRemote(a.paths, { ...b.upstream, host: 'other.test' })).rejects.toMatchObject({
      code: 'SqlFailed',
    });
  });

  test('a promotion takes exactly the allotted timeline, and the other standby follows', async () => {
    await setSynchronous(a, [replicationName(b.dataId)]);
    // A reload alone is not enough: processes take it up one by one.
    expect(await a.sql.proveCommitsWait(10_000)).toBe(true);
    await run(a, 'INSERT INTO t VALUES (2)');
    await a.postgres.fence();

    const cutOff = await b.configure({ upstream: undefined });
    await b.sql.reloadAndVerify(cutOff.owned);
    await b.observed(
      'all is replayed and no receiver is left',
      (seen) => seen.walReceiverPid === null && (seen.receiveLsn ?? 0n) <= (seen.replayLsn ?? 0n),
    );
    await reserveTimeline(b.paths, { own: 1, allotted: 4 });
    await b.sql.promote();
    const promoted = await b.observed('it is primary', ({ inRecovery }) => !inRecovery);
    expect(promoted.timeline).toBe(4);
    expect((await readTimelineHistory(b.paths, 4))?.map(({ timeline }) => timeline)).toEqual([1]);
    expect(await readTimelineHistory(b.paths, 3)).toEqual([]);
    expect(await run(b, 'SELECT id FROM t ORDER BY id')).toEqual([{ id: 1 }, { id: 2 }]);

    await b.sql.createSlot(replicationName(c.dataId));
    await c.sql.reloadAndVerify(
      (await c.configure({ upstream: b.upstream, upstreamSlot: replicationName(c.dataId) })).owned,
    );
    await run(b, 'INSERT INTO t VALUES (3)');
    const followed = await c.observed(
      'it follows',
      ({ walReceiver, timeline }) => walReceiver?.receivedTimeline === 4 && timeline === 4,
    );
    expect(followed.inRecovery).toBe(true);
    await eventually(
      'the row arrives',
      async () => (await run(c, 'SELECT 1 FROM t WHERE id = 3')).length === 1,
    );
  });

  test('after a crash the follower still finds the timeline it received', async () => {
    await c.postgres.fence({ graceMs: 0 });
    const control = await readControlData(c.installation);
    expect(control.checkpointTimeline).toBe(1);
    await removeUnreachedHistories(c.paths, control.checkpointTimeline);
    // Local WAL is left while the replay waits for something else: nothing was received, and yet it is not done.
    await c.startAsStandby(undefined, {
      parameters: { shared_buffers: '16MB', recovery_min_apply_delay: '1h' },
    });
    const waiting = await c.observed(
      'the replay waits',
      ({ startupWaitEvent }) => startupWaitEvent === 'RecoveryApplyDelay',
    );
    expect(waiting.receiveLsn).toBeNull();
    expect(replayProgress(waiting)).toBe('busy');
    await c.configure();
    await c.sql.reload();
    const seen = await c.observed('local WAL has run out', (now) => replayProgress(now) === 'done');
    expect(seen).toMatchObject({ timeline: 4, receiveLsn: null });
    expect(await promotionParent(c.paths, { timeline: 4, replayed: seen.replayLsn ?? 0n })).toBe(4);
    await expect(reserveTimeline(c.paths, { own: 1, allotted: 9 })).rejects.toMatchObject({
      code: 'HistoryAhead',
    });
    expect(await run(c, 'SELECT 1 FROM t WHERE id = 3')).toHaveLength(1);
    await c.stop();
    await c.startAsStandby(b, { upstreamSlot: replicationName(c.dataId) });
  });

  test('the crashed old primary is rewound and streams', async () => {
    // It goes on alone for a while: a history that nobody else has.
    await setStandbySignal(a.paths, false);
    await a.startAsPrimary();
    await run(a, 'INSERT INTO t SELECT generate_series(100, 20000)');
    await run(a, 'UPDATE t SET id = -1 WHERE id = 1');
    await a.postgres.fence({ graceMs: 0 });

    await b.sql.checkpoint(20_000);
    expect(await readRemote(a.paths, b.upstream)).toMatchObject({
      inRecovery: false,
      timeline: 4,
      checkpointTimeline: 4,
    });
    const outcome = await rewind(a.installation, { source: b.upstream, dataId: a.dataId, timeoutMs: 60_000 });
    expect(outcome).toEqual({ kind: 'done', rewound: true });
    expect(await prepareVolume(a.paths)).toMatchObject({ kind: 'ready', identity: { dataId: a.dataId } });
    await b.sql.createSlot(replicationName(a.dataId));
    await a.startAsStandby(b, { upstreamSlot: replicationName(a.dataId) });
    await a.observed(
      'it streams',
      ({ walReceiver, timeline }) => walReceiver?.status === 'streaming' && timeline === 4,
    );
    expect(await run(a, 'SELECT id FROM t ORDER BY id')).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }]);
    expect(a.rendered?.owned.primary_conninfo).toContain(`application_name=k_${a.dataId}`);
    expect(await a.sql.verifySettings(a.rendered?.owned ?? {})).toEqual([]);
  });

  test('a standby that did not diverge needs no rewind', async () => {
    await a.stop();
    expect(await rewind(a.installation, { source: b.upstream, dataId: a.dataId, timeoutMs: 60_000 })).toEqual(
      {
        kind: 'done',
        rewound: false,
      },
    );
  });

  test('a rewind without its source changes nothing; from a standby neither', async () => {
    await a.startAsStandby(undefined);
    const { timeline: own } = await a.sql.observe();
    await reserveTimeline(a.paths, { own, allotted: 9 });
    await a.sql.promote();
    await a.observed('promoted', ({ timeline, inRecovery }) => !inRecovery && timeline === 9);
    await run(a, 'INSERT INTO t VALUES (900)');
    await a.stop();
    for (const source of [{ ...b.upstream, port: 1 }, c.upstream]) {
      const outcome = await rewind(a.installation, { source, dataId: a.dataId, timeoutMs: 60_000 });
      expect(outcome.kind).toBe('retry');
    }
    expect(await readTaint(a.paths, a.dataId)).toBeUndefined();
    expect((await rewind(a.installation, { source: b.upstream, dataId: a.dataId })).kind).toBe('done');
  });

  test('an interrupted rewind leaves the data tainted; a reclone ends that', async () => {
    await writeTaint(a.paths, { dataId: a.dataId, reason: 'test' });
    expect(await prepareVolume(a.paths)).toMatchObject({ kind: 'tainted', taint: { reason: 'test' } });
    const before = a.dataId;
    await a.clone(b);
    expect(await prepareVolume(a.paths)).toMatchObject({
      kind: 'ready',
      identity: { dataId: a.dataId, createdBy: 'clone' },
    });
    expect(a.dataId).not.toBe(before);
    expect((await stat(a.paths.pgdataOld)).isDirectory()).toBe(true);
    expect(await removeOldData(a.paths)).toBe(true);
    await a.startAsStandby(b);
    await a.observed('it streams', ({ walReceiver }) => walReceiver?.status === 'streaming');
  });

  test('a clone without room for it is not begun', async () => {
    await c.stop();
    // Counted as a relation's file; there are no blocks behind it.
    const large = join(b.paths.pgdata, 'base', '1', '999999999');
    await writeFile(large, '');
    await truncate(large, 8 * 2 ** 40);
    await expect(c.clone(b)).rejects.toMatchObject({
      code: 'NotEnoughSpace',
      message: expect.stringMatching(/expected \d{13} bytes free .* found \d+ bytes; enlarge the volume/),
    });
    await rm(large);
    expect(await prepareVolume(c.paths)).toMatchObject({ kind: 'ready', identity: { dataId: c.dataId } });
    expect(await readdir(c.paths.dataRoot)).not.toContain('pgdata.new');
    await c.startAsStandby(b);
  });

  test('a clone that is killed leaves the old data alone', async () => {
    await c.stop();
    for (const delay of [1, 20, 100, 300]) {
      await expect(
        (async () => {
          const { clone } = await import('./clone.ts');
          await clone(c.installation, {
            source: b.upstream,
            dataId: 'ffffffffffffffff',
            clusterId: 'test-cluster',
            signal: AbortSignal.timeout(delay),
          });
        })(),
      ).rejects.toThrow();
      expect(await prepareVolume(c.paths)).toMatchObject({ kind: 'ready', identity: { dataId: c.dataId } });
      expect(await readdir(c.paths.dataRoot)).not.toContain('pgdata.new');
    }
    await c.startAsStandby(b);
    await c.observed('it streams', ({ walReceiver }) => walReceiver?.status === 'streaming');
  });
});
