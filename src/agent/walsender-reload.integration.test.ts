import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { MemberRef } from '../dcs/index.ts';
import { placeholderName, replicationName } from '../postgres/replication-names.ts';
import { eventually, query, TestBed, type TestInstance } from '../postgres/test-instances.ts';
import { readTimelineHistory, reserveTimeline } from '../postgres/timeline-history.ts';
import { planSyncSet, type SyncSituation } from './ha/sync-set.ts';

/**
 * What the models of docs/model.md take for granted about Postgres: each walsender releases commits by the list of names
 * that *it* has loaded. One walsender is stopped during a reload; the decisions see what Postgres shows meanwhile.
 */
let bed: TestBed;
let primary: TestInstance;
let b: TestInstance;
let c: TestInstance;
let d: TestInstance;
const stopped = new Set<number>();

beforeAll(async () => {
  bed = await TestBed.create();
  [primary, b, c, d] = (await Promise.all(
    (['p', 'b', 'c', 'd'] as const).map((name) => bed.instance(name)),
  )) as [TestInstance, TestInstance, TestInstance, TestInstance];
  await primary.initdb();
  await primary.startAsPrimary();
  await query(primary, 'CREATE TABLE t (id int PRIMARY KEY)', 'app');
  for (const standby of [b, c, d]) {
    await standby.clone(primary);
    await standby.startAsStandby(primary);
  }
  await streaming(b, c, d);
});
afterAll(async () => {
  for (const pid of stopped) process.kill(pid, 'SIGCONT');
  await bed.close();
});

const nameOf = (standby: TestInstance) => replicationName(standby.dataId);
const members = (...standbys: TestInstance[]): MemberRef[] =>
  standbys.map((s) => ({ instance: s.upstream.host, dataId: s.dataId }));

function streaming(...standbys: TestInstance[]) {
  return primary.observed('they stream', ({ replication }) =>
    standbys.every((s) =>
      replication.some((r) => r.applicationName === nameOf(s) && r.state === 'streaming'),
    ),
  );
}

async function setNames(names: readonly string[]): Promise<void> {
  const rendered = await primary.configure({ synchronousStandbys: [...names] });
  expect(await primary.sql.reloadAndVerify(rendered.owned)).toEqual([]);
}

/** Waits until each of these walsenders shows the place of its name in the list. */
function loaded(names: readonly string[], ...standbys: TestInstance[]) {
  return primary.observed('the walsenders have the list', ({ replication }) =>
    standbys.every(
      (s) =>
        replication.find((r) => r.applicationName === nameOf(s))?.syncPriority ===
        names.indexOf(nameOf(s)) + 1,
    ),
  );
}

async function walsenderOf(standby: TestInstance): Promise<number> {
  const [row] = await query(
    primary,
    `SELECT pid FROM pg_stat_replication WHERE application_name = '${nameOf(standby)}'`,
  );
  return Number(row?.pid);
}

async function stopWalsender(standby: TestInstance): Promise<() => void> {
  const pid = await walsenderOf(standby);
  process.kill(pid, 'SIGSTOP');
  stopped.add(pid);
  return () => {
    process.kill(pid, 'SIGCONT');
    stopped.delete(pid);
  };
}

function insert(id: number): { readonly done: () => boolean; readonly end: Promise<void> } {
  let done = false;
  const end = query(primary, `INSERT INTO t VALUES (${id})`, 'app').then(() => {
    done = true;
  });
  return { done: () => done, end };
}

const has = async (standby: TestInstance, id: number) =>
  (await query(standby, `SELECT 1 FROM t WHERE id = ${id}`, 'app')).length === 1;

/** The situation of the leader's decisions with what Postgres shows now. */
async function situation(
  stored: readonly MemberRef[],
  names: readonly string[],
  candidates: readonly TestInstance[],
): Promise<SyncSituation> {
  const { replication, flushLsn } = await primary.sql.observe();
  return {
    config: { synchronous: stored.length, durability: 'required' },
    stored: { term: 1, mode: 'sync', names: [...stored] },
    names,
    namesApplied: true,
    observation: {
      at: 1,
      inRecovery: false,
      timeline: 1,
      ...(flushLsn === null ? {} : { flushLsn }),
      walsenders: replication.map((r) => ({
        applicationName: r.applicationName,
        state: r.state ?? '',
        syncPriority: r.syncPriority ?? 0,
        ...(r.flushLsn === null ? {} : { flushLsn: r.flushLsn }),
      })),
      commitWaitMs: 0,
      pendingRestart: [],
      overridden: [],
    },
    candidates: members(...candidates).map((m) => ({ ...m, apart: true })),
    joining: undefined,
    waitProved: true,
  };
}

describe('while one walsender has not loaded the names', { concurrent: false }, () => {
  test('nothing that it has not confirmed is released, and nobody joins', async () => {
    await setNames([nameOf(b)]);
    await loaded([nameOf(b)], b, c, d);
    expect(await primary.sql.proveCommitsWait(10_000)).toBe(true);

    const goOn = await stopWalsender(b);
    const names = [nameOf(c), nameOf(b)];
    await setNames(names);
    await loaded(names, c);
    const commit = insert(1);
    await eventually('c has it', () => has(c, 1));
    await sleep(500);
    expect(commit.done()).toBe(false);
    // b's walsender still shows the first place, as it had it before: the list is not in force.
    const joining = { names };
    const s = { ...(await situation(members(b), names, [c])), joining };
    expect(planSyncSet(s).step).toBe('nothing');

    goOn();
    await commit.end;
    expect(await has(c, 1)).toBe(true);
    await loaded(names, b, c);
    expect(planSyncSet({ ...(await situation(members(b), names, [c])), joining })).toMatchObject({
      step: 'remember',
      joining: { settledAt: 1 },
    });
  });

  test('of several names one with an older list would be counted in place of another: commits wait until it has loaded', async () => {
    // b and d are what etcd names; c has just been replaced by d.
    const before = [nameOf(d), nameOf(b), nameOf(c)];
    await setNames(before);
    await loaded(before, b, c, d);
    await b.stop();
    await primary.observed('b is away', ({ replication }) =>
      replication.every((r) => r.applicationName !== nameOf(b)),
    );
    const commit = insert(2);
    await eventually('c and d have it', async () => (await has(c, 2)) && (await has(d, 2)));
    await primary.observed('they have said so', ({ replication, flushLsn }) =>
      replication.every((r) => r.flushLsn !== null && flushLsn !== null && r.flushLsn >= flushLsn),
    );
    const goOn = await stopWalsender(c);

    const between = [placeholderName, placeholderName, nameOf(d), nameOf(b)];
    await setNames(between);
    await loaded(between, d);
    expect(planSyncSet(await situation(members(d, b), between, [d, b])).step).toBe('nothing');
    expect(commit.done()).toBe(false);

    // What the decisions do not do: d's walsender counts c, which has a place in the list that it still has.
    await setNames([nameOf(d), nameOf(b)]);
    await loaded([nameOf(d), nameOf(b)], d);
    await query(primary, `SET synchronous_commit = local; INSERT INTO t VALUES (3)`, 'app');
    await commit.end;
    goOn();
    expect(await primary.sql.observe()).toMatchObject({
      replication: expect.not.arrayContaining([expect.objectContaining({ applicationName: nameOf(b) })]),
    });
  });
});

describe('the timeline of a promotion', { concurrent: false }, () => {
  test('is another one than allotted where it was not reserved, and that is seen', async () => {
    await c.postgres.fence({ graceMs: 0 });
    await c.startAsStandby(undefined);
    await c.sql.promote();
    const chosen = await c.observed('it is primary', ({ inRecovery }) => !inRecovery);
    // Postgres takes the next free number; the one allotted was 5.
    expect(chosen.timeline).toBe(2);
    await d.postgres.fence({ graceMs: 0 });
    await d.startAsStandby(undefined);
    await reserveTimeline(d.paths, { own: 1, allotted: 5 });
    await d.sql.promote();
    expect((await d.observed('it is primary', ({ inRecovery }) => !inRecovery)).timeline).toBe(5);
    expect((await readTimelineHistory(d.paths, 5))?.map(({ timeline }) => timeline)).toEqual([1]);
  });
});
