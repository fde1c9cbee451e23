import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { replicationName } from './replication-names.ts';
import { eventually, query, TestBed, type TestInstance } from './test-instances.ts';

let bed: TestBed;
let a: TestInstance;
let b: TestInstance;
let c: TestInstance;
const slot = (instance: TestInstance) => replicationName(instance.dataId);

/** Lets a running standby stream from another instance, or from none, by a reload. */
async function follow(me: TestInstance, of: TestInstance | undefined, names: string[] = []): Promise<void> {
  const { owned } = await me.configure({
    upstream: of?.upstream,
    upstreamSlot: of === undefined ? undefined : slot(me),
    synchronousStandbys: names,
  });
  expect(await me.sql.reloadAndVerify(owned, 10_000)).toEqual([]);
}

const streamsTo = (from: TestInstance, to: TestInstance) =>
  from.observed('it streams', ({ replication }) =>
    replication.some((r) => r.applicationName === slot(to) && r.state === 'streaming'),
  );

/** The old primary ends, `next` is promoted; ms until `me` confirms a commit on it. */
async function failOver(
  old: TestInstance,
  next: TestInstance,
  me: TestInstance,
  told: boolean,
): Promise<number> {
  await old.postgres.fence({ graceMs: 0 });
  await follow(next, undefined, [slot(me)]);
  await next.observed('no receiver', ({ walReceiverPid }) => walReceiverPid === null);
  const began = performance.now();
  const reconfigured = told ? follow(me, next) : undefined;
  await next.sql.promote();
  await eventually('a commit is confirmed', async () => {
    await query(next, 'INSERT INTO t DEFAULT VALUES', 'app');
    return true;
  });
  await reconfigured;
  return Math.round(performance.now() - began);
}

beforeAll(async () => {
  bed = await TestBed.create();
  [a, b, c] = await Promise.all([bed.instance('a'), bed.instance('b'), bed.instance('c')]);
  await a.initdb();
  await a.startAsPrimary();
  await query(a, 'CREATE TABLE t (id serial PRIMARY KEY)', 'app');
  for (const standby of [b, c]) {
    await standby.clone(a);
    await a.sql.createSlot(slot(standby));
    await standby.startAsStandby(a, { upstreamSlot: slot(standby) });
  }
  await b.sql.createSlot(slot(c));
});
afterAll(() => bed.close());

describe('a standby of a standby', { concurrent: false }, () => {
  test('changes from one to the other by a reload', async () => {
    await streamsTo(a, c);
    await follow(c, b);
    await streamsTo(b, c);
    await follow(c, a);
    await streamsTo(a, c);
    await follow(c, b);
    await streamsTo(b, c);
  });

  test('never counts as synchronous for the primary, nor for its upstream', async () => {
    await follow(b, a, [slot(c)]);
    const { replication } = await streamsTo(b, c);
    expect(replication).toMatchObject([{ syncPriority: 0, syncState: 'async' }]);
    expect((await a.sql.observe()).replication.map((r) => r.applicationName)).toEqual([slot(b)]);
    await follow(b, a);
  });

  test('follows it when that is promoted, in the same connection, and confirms commits at once', async () => {
    const { walReceiverPid } = await c.sql.observe();
    const cascaded = await failOver(a, b, c, false);
    const after = await c.observed('the new timeline', (o) => o.walReceiver?.receivedTimeline === 2);
    expect(after.walReceiverPid).toBe(walReceiverPid);

    await b.sql.createSlot(slot(a));
    await a.startAsStandby(b, { upstreamSlot: slot(a) });
    await c.sql.createSlot(slot(a));
    await streamsTo(b, a);
    await streamsTo(b, c);
    const told = await failOver(b, c, a, true);
    await a.observed('the new timeline', (o) => o.walReceiver?.receivedTimeline === 3);
    console.info(`promotion to confirmed commit: cascaded ${cascaded} ms, told at the promotion ${told} ms`);
    expect(cascaded).toBeLessThan(5_000);
  });
});
