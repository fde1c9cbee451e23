import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parseLsn, replicationName } from '../postgres/index.ts';
import { query, TestBed, type TestInstance } from '../postgres/test-instances.ts';
import { tendSlots } from './slot-upkeep.ts';

let bed: TestBed;
let a: TestInstance;
let b: TestInstance;
let c: TestInstance;
/** WAL that no slot holds goes with the next checkpoint. */
const parameters = { shared_buffers: '16MB', wal_keep_size: '0', max_wal_size: '32MB', min_wal_size: '32MB' };
const slot = (instance: TestInstance) => replicationName(instance.dataId);
const follow = (of: TestInstance, me: TestInstance) =>
  me.startAsStandby(of, { upstreamSlot: slot(me), parameters });

async function tend(me: TestInstance, wanted: TestInstance[], positions = new Map<string, bigint>()) {
  const { slots, inRecovery } = await me.sql.observe();
  await tendSlots(
    { wanted: wanted.map(slot), obsolete: (name) => !wanted.map(slot).includes(name), positions },
    { sql: me.sql, slots, inRecovery, primaryHas: async () => [] },
  );
  return (await me.sql.observe()).slots;
}

async function writeSegments(count: number): Promise<void> {
  for (let i = 0; i < count; i++)
    await query(a, `SELECT pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()`);
  await a.sql.checkpoint(10_000);
}

beforeAll(async () => {
  bed = await TestBed.create();
  [a, b, c] = await Promise.all([bed.instance('a'), bed.instance('b'), bed.instance('c')]);
  await a.initdb();
  await a.startAsPrimary();
  await Promise.all([b.clone(a), c.clone(a)]);
  await a.sql.reloadAndVerify((await a.configure({ parameters })).owned);
  await tend(a, [b, c]);
  await Promise.all([follow(a, b), follow(a, c)]);
});
afterAll(() => bed.close());

test('a standby moves its slots with their instances, and never past its own last checkpoint', async () => {
  const [before] = await tend(b, [c]);
  expect(before).toMatchObject({ name: slot(c), active: false });
  await writeSegments(2);
  const replayed = async () => {
    const { insertLsn } = await a.sql.observe();
    await b.observed('b has replayed it', (o) => (o.replayLsn ?? 0n) >= (insertLsn ?? 0n));
    return insertLsn ?? 0n;
  };
  const redo = async () =>
    parseLsn(String((await query(b, 'SELECT redo_lsn AS at FROM pg_control_checkpoint()'))[0]?.at));
  const far = new Map([[slot(c), (await replayed()) + (1n << 40n)]]);
  await b.sql.checkpoint(10_000);
  const [moved] = await tend(b, [c], far);
  expect(moved?.restartLsn).toBeGreaterThan(before?.restartLsn ?? 0n);
  expect(moved?.restartLsn).toBe(await redo());
  // An instance that has to be rewound goes back to before this.
  await query(a, `SELECT pg_logical_emit_message(false, 'test', 'x')`);
  const now = await replayed();
  const [stays] = await tend(b, [c], far);
  expect(stays?.restartLsn).toBeLessThanOrEqual(await redo());
  expect(stays?.restartLsn).toBeLessThan(now);
});

test('who was away and behind finds its WAL on the new primary', async () => {
  await c.stop();
  await writeSegments(4);
  const { flushLsn } = await a.sql.observe();
  await b.observed('b has replayed it', (o) => (o.replayLsn ?? 0n) >= (flushLsn ?? 0n));
  await tend(b, [c]);
  // A restartpoint removes what no slot holds.
  await b.sql.checkpoint(10_000);
  await a.postgres.fence({ graceMs: 0 });
  await b.configure({ parameters });
  await b.sql.reload();
  await b.sql.promote();
  await b.observed('b leads', ({ inRecovery }) => !inRecovery);
  await follow(b, c);
  await c.observed('c streams', (o) => o.walReceiver?.status === 'streaming' && o.timeline === 2);
});

test('slots that keep rows from being removed are made anew on a standby; those of others stay', async () => {
  await query(b, `SELECT pg_create_physical_replication_slot('theirs', true)`);
  await c.stop();
  await appendFile(join(c.paths.pgdata, 'user.conf'), 'hot_standby_feedback = on\n');
  await c.postgres.start();
  await c.postgres.waitUntilReady({ timeoutMs: 30_000 });
  await b.observed('rows are held', ({ slots }) => slots.some((s) => s.name === slot(c) && s.holdsRows));
  await c.stop();
  const held = await b.observed('c is away', ({ slots }) => slots.every(({ active }) => !active));
  // The primary keeps them for it.
  expect(await tend(b, [c])).toEqual(held.slots);
  await b.stop();
  await b.startAsStandby(undefined, { parameters });
  const slots = await tend(b, [c]);
  expect(slots.map(({ name, holdsRows }) => [name, holdsRows]).sort()).toEqual([
    [slot(c), false],
    ['theirs', false],
  ]);
});
