import { afterAll, beforeAll, expect, test } from 'vitest';
import { replicationName } from './replication-names.ts';
import { query, TestBed, type TestInstance } from './test-instances.ts';

let bed: TestBed;
let a: TestInstance;
let b: TestInstance;

beforeAll(async () => {
  bed = await TestBed.create();
  [a, b] = await Promise.all([bed.instance('a'), bed.instance('b')]);
  await a.initdb();
  await a.startAsPrimary();
  await query(a, 'CREATE TABLE t (id int)', 'app');
  await b.clone(a);
  await a.sql.createSlot(replicationName(b.dataId));
  await b.startAsStandby(a, { upstreamSlot: replicationName(b.dataId) });
});
afterAll(() => bed.close());

test('a standby replays late from a reload on, receives all the same, and replays at once after another', async () => {
  const delayed = async (applyDelaySeconds?: number) => {
    const upstreamSlot = replicationName(b.dataId);
    const { owned } = await b.configure({ upstream: a.upstream, upstreamSlot, applyDelaySeconds });
    expect(await b.sql.reloadAndVerify(owned, 10_000)).toEqual([]);
  };
  const count = async () => (await query(b, 'SELECT count(*)::int AS n FROM t', 'app'))[0]?.n;
  await delayed(5_400);
  await query(a, 'INSERT INTO t VALUES (1)', 'app');
  const { flushLsn } = await a.sql.observe();
  const seen = await b.observed(
    'it has received what it waits with',
    (o) => (o.receiveLsn ?? 0n) >= (flushLsn ?? 0n) && o.startupWaitEvent === 'RecoveryApplyDelay',
  );
  expect(seen.walReceiver?.status).toBe('streaming');
  expect(await count()).toBe(0);

  // After a start it asks for nothing before it has applied what it has.
  await b.stop();
  await b.postgres.start();
  await b.postgres.waitUntilReady({ timeoutMs: 30_000 });
  const restarted = await b.observed('it waits', (o) => o.startupWaitEvent === 'RecoveryApplyDelay');
  expect(restarted.walReceiverPid).toBeNull();
  expect(await count()).toBe(0);

  await delayed();
  await b.observed('it has applied it', (o) => (o.replayLsn ?? 0n) >= (flushLsn ?? 0n));
  await b.observed('and streams', (o) => o.walReceiver?.status === 'streaming');
  expect(await count()).toBe(1);
});
