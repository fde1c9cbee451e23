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
});
