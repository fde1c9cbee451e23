import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { remoteFailoverSlots, replicationName, type SettingsSpec } from '../postgres/index.ts';
import { anyBinaries, eventually, query, TestBed, type TestInstance } from '../postgres/test-instances.ts';
import { tendSlots } from './slot-upkeep.ts';

let bed: TestBed;
let a: TestInstance;
let b: TestInstance;
let c: TestInstance;
let written = 0;
/** What the consumer of the slot has seen, in order. */
const consumed: number[] = [];

const parameters = { shared_buffers: '16MB', wal_level: 'logical' };
const slot = (instance: TestInstance) => replicationName(instance.dataId);
/** As a primary for whose commits these standbys count. */
const requires = (...standbys: TestInstance[]): Partial<SettingsSpec> => ({
  parameters,
  synchronousStandbys: standbys.map(slot),
  synchronizedSlots: standbys.map(slot),
});
const from = (upstream: TestInstance, me: TestInstance): Partial<SettingsSpec> => ({
  parameters,
  upstream: upstream.upstream,
  upstreamSlot: slot(me),
});
const run = (instance: TestInstance, statement: string) => query(instance, statement, 'app');

async function reconfigure(instance: TestInstance, more: Partial<SettingsSpec>): Promise<void> {
  expect(await instance.sql.reloadAndVerify((await instance.configure(more)).owned, 10_000)).toEqual([]);
}

async function write(instance: TestInstance, count: number): Promise<void> {
  await run(instance, `INSERT INTO t SELECT generate_series(${written + 1}, ${written + count})`);
  written += count;
}

async function consume(instance: TestInstance): Promise<void> {
  const rows = await run(instance, `SELECT data FROM pg_logical_slot_get_changes('feed', NULL, NULL)`);
  for (const { data } of rows) {
    const id = /INSERT: id\[integer\]:(\d+)/.exec(String(data))?.[1];
    if (id !== undefined) consumed.push(Number(id));
  }
}

/** Every change once at least, and none before one that was made earlier but for what comes twice. */
function expectNoGap(): void {
  expect([...new Set(consumed)]).toEqual(Array.from({ length: written }, (_, i) => i + 1));
}

/** A copy can be used once the slot has moved on the primary, which needs a consumer that goes on. */
async function copied(primary: TestInstance, standbys: TestInstance[], name: string): Promise<void> {
  await eventually(
    `${name} is copied`,
    async () => {
      await run(primary, 'SELECT pg_log_standby_snapshot()');
      if (name === 'feed') await consume(primary);
      else await run(primary, `SELECT pg_logical_slot_get_changes('${name}', NULL, NULL)`);
      for (const standby of standbys) {
        // The postmaster thinks of a worker that has ended when it has something to do; the agent gives it that.
        await run(standby, 'SELECT');
        await standby.sql.wakeSlotSync();
      }
      const seen = await Promise.all(standbys.map((standby) => standby.sql.observe()));
      return seen.every(({ slots }) =>
        slots.some((s) => s.name === name && s.synced && s.failover && !s.temporary),
      );
    },
    30_000,
  );
}

async function promote(instance: TestInstance, standby: TestInstance): Promise<void> {
  await reconfigure(instance, requires(standby));
  await instance.observed('no receiver', ({ walReceiverPid }) => walReceiverPid === null);
  await instance.sql.promote();
  await instance.observed('it leads', ({ inRecovery }) => !inRecovery);
}

const { major } = await anyBinaries();

describe.skipIf(major < 17)('failover slots', { concurrent: false }, () => {
  beforeAll(async () => {
    bed = await TestBed.create();
    [a, b, c] = await Promise.all([bed.instance('a'), bed.instance('b'), bed.instance('c')]);
    await a.initdb();
    await a.startAsPrimary({ parameters });
    await run(a, 'CREATE TABLE t (id int PRIMARY KEY)');
    for (const standby of [b, c]) {
      await standby.clone(a);
      await a.sql.createSlot(slot(standby));
      await standby.startAsStandby(a, from(a, standby));
      for (const other of [a, b, c])
        if (other !== standby && other.identity) await standby.sql.createSlot(slot(other));
    }
    await b.sql.createSlot(slot(c));
    await reconfigure(a, requires(b));
  });
  afterAll(() => bed?.close());

  test('are copied to every standby', async () => {
    await run(a, `SELECT pg_create_logical_replication_slot('feed', 'test_decoding', false, false, true)`);
    await write(a, 10);
    await copied(a, [b, c], 'feed');
  });

  test('show no change to their consumer before the synchronous standby has it', async () => {
    await consume(a);
    expectNoGap();
    await reconfigure(b, { parameters });
    await b.observed('no receiver', ({ walReceiverPid }) => walReceiverPid === null);
    await run(a, `SET synchronous_commit = local; INSERT INTO t VALUES (${++written})`);
    const before = consumed.length;
    await expect(
      run(a, `SET statement_timeout = 500; SELECT * FROM pg_logical_slot_get_changes('feed', NULL, NULL)`),
    ).rejects.toThrow(/statement timeout/);
    // Nobody waits for a standby that has left the synchronous set.
    await reconfigure(a, requires());
    await eventually('the consumer goes on', async () => {
      await consume(a);
      return consumed.length > before;
    });
    expectNoGap();
    await reconfigure(b, from(a, b));
    await reconfigure(a, requires(b));
  });

  test('survive a failover, and no change is lost', async () => {
    await write(a, 50);
    await consume(a);
    await write(a, 50);
    await a.postgres.fence({ graceMs: 0 });
    await promote(b, c);
    await reconfigure(c, from(b, c));
    await consume(b);
    expectNoGap();
    await write(b, 50);
    await consume(b);
    expectNoGap();
  });

  test('survive a switchover', async () => {
    await run(b, `SELECT pg_create_logical_replication_slot('late', 'test_decoding', false, false, true)`);
    await write(b, 10);
    await copied(b, [c], 'feed');
    await copied(b, [c], 'late');
    await write(b, 20);
    await b.stop();
    await promote(c, b);
    await b.startAsStandby(c, from(c, b));
    await consume(c);
    expectNoGap();
    await write(c, 10);
    await consume(c);
    expectNoGap();
  });

  test('of a former primary give way to their copies; other slots stay', async () => {
    await run(b, `SELECT pg_create_physical_replication_slot('theirs', true)`);
    const own = await b.sql.observe();
    expect(own.slots.find(({ name }) => name === 'late')).toMatchObject({ failover: true, synced: false });
    const upkeep = { wanted: [slot(c)], obsolete: () => false, positions: new Map() };
    await tendSlots(upkeep, {
      sql: b.sql,
      slots: own.slots,
      inRecovery: true,
      primaryHas: () => remoteFailoverSlots(b.paths, c.upstream),
    });
    await write(c, 1);
    await copied(c, [b], 'late');
    await copied(c, [b], 'feed');
    expect((await b.sql.observe()).slots.map(({ name }) => name)).toContain('theirs');
  });
});
