import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { createLogger } from '../log/logger.ts';
import { query, TestBed, type TestInstance } from '../postgres/test-instances.ts';
import { LoopVolume, loopVolumesAreAvailable } from '../postgres/testing/loop-volume.ts';
import { Database } from './database.ts';

const settings = { synchronousNames: [], clientsAllowed: true };
const available = loopVolumesAreAvailable();

let volume: LoopVolume;
let bed: TestBed;
let instance: TestInstance;
let database: Database;

beforeAll(async () => {
  if (!available) return;
  volume = await LoopVolume.create(400);
  // The whole instance is on that volume.
  vi.stubEnv('TMPDIR', volume.directory);
  bed = await TestBed.create();
  instance = await bed.instance('a');
  await instance.initdb();
  database = new Database({
    installation: instance.installation,
    clusterId: bed.clusterId,
    clusterName: 'a',
    osUser: 'postgres',
    hostOf: (name) => name,
    now: () => performance.now(),
    guard: { postmaster: () => undefined, deadline: () => undefined },
    log: createLogger({ name: 'test', level: 'silent' }),
    user: () => ({ generation: 1, parameters: {}, hba: [] }),
    leaderHistory: () => undefined,
    onChange: () => undefined,
  });
  await database.open();
});
afterAll(async () => {
  if (!available) return;
  await database?.operate({ do: 'fence', why: 'the test is over' });
  await volume.remove();
});

const start = (term: number) => database.operate({ do: 'start', as: 'primary', settings, term, timeline: 1 });

describe.skipIf(!available)('a Postgres', () => {
  test('whose disk is stalled is fenced while its backends wait for it, and has every acknowledged commit', async () => {
    expect(await start(1)).toMatchObject({ ok: true });
    await query(instance, 'create table s (n int)');
    await query(instance, 'insert into s values (1)');
    await volume.freeze();
    let acknowledged = false;
    const waiting = query(instance, 'insert into s values (2)').then(
      () => {
        acknowledged = true;
      },
      () => undefined,
    );
    // What the agent asks is answered from memory all the while.
    await sleep(1_500);
    const before = database.facts.observation?.at ?? 0;
    await database.observe(1_000);
    expect(database.facts.observation?.at).toBeGreaterThan(before);
    expect(acknowledged).toBe(false);

    const began = performance.now();
    expect(await database.operate({ do: 'fence', why: 'a test' })).toEqual({ ok: true });
    expect(performance.now() - began).toBeLessThan(3_000);
    expect(database.facts.process).toBe('ended');
    await volume.thaw();
    await waiting;
    expect(acknowledged).toBe(false);
    await vi.waitFor(() => expect(database.facts.process).toBe('none'), { timeout: 10_000 });
    expect(await start(2)).toMatchObject({ ok: true });
    const [row] = await query(instance, 'select min(n) as n from s');
    expect(row?.n).toBe(1);
    expect(await database.operate({ do: 'stop' })).toMatchObject({ ok: true });
  });

  test('whose disk is full ends, is not started again before there is room, and then has every acknowledged commit', async () => {
    expect(await start(3)).toMatchObject({ ok: true });
    await query(instance, 'create table t (n int)');
    const filler = join(volume.directory, 'filler');
    const fill = async () => {
      for (let megabytes = 64; megabytes >= 1; megabytes /= 2)
        for (let i = 0; i < 400; i++)
          if (
            await writeFile(`${filler}-${megabytes}-${i}`, Buffer.alloc(megabytes << 20)).then(
              () => false,
              () => true,
            )
          )
            break;
    };
    await fill();
    // WAL alone: for data there would be an error, and Postgres would go on.
    let acknowledged = 0;
    for (let n = 1; n < 200 && database.facts.process === 'running'; n++) {
      await query(instance, "select pg_logical_emit_message(false, 'x', repeat('x', 4000000))").catch(
        () => undefined,
      );
      await query(instance, `insert into t values (${n})`).then(
        () => {
          acknowledged += 1;
        },
        () => undefined,
      );
    }
    expect(acknowledged).toBeGreaterThan(0);
    await vi.waitFor(() => expect(database.facts.process).toBe('none'), { timeout: 20_000 });

    for (let i = 0; i < 3; i++) {
      const outcome = await start(4);
      expect(outcome).toMatchObject({ ok: false, reason: 'DiskFull' });
      await vi.waitFor(() => expect(database.facts.process).toBe('none'), { timeout: 20_000 });
    }

    for (let megabytes = 64; megabytes >= 1; megabytes /= 2)
      for (let i = 0; i < 400; i++) await rm(`${filler}-${megabytes}-${i}`, { force: true });
    expect(await start(4)).toMatchObject({ ok: true });
    const [row] = await query(instance, 'select count(*)::int as count from t');
    expect(row?.count).toBeGreaterThanOrEqual(acknowledged);
  });
});
