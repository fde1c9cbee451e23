import { lookup } from 'node:dns/promises';
import { chmod, mkdir, mkdtemp, open, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { createLogger } from '../log/logger.ts';
import {
  doomedProcesses,
  identityFile,
  type PostgresPaths,
  PostgresProcess,
  postgresPaths,
} from '../postgres/index.ts';
import { LoopVolume, loopVolumesAreAvailable } from '../postgres/testing/loop-volume.ts';
import { Database } from './database.ts';

/** Of a Postgres that was stopped in order, on timeline 1. */
const controlData = fileURLToPath(new URL('../postgres/recorded/pg_controldata-15.txt', import.meta.url));
const settings = { synchronousNames: [], clientsAllowed: true };

let root: string;
let volume: LoopVolume;
let paths: PostgresPaths;
const guarded: number[] = [];

function newDatabase(): Database {
  return new Database({
    installation: { paths, binaries: { directory: join(root, 'bin'), major: 17, version: '17.0' } },
    clusterId: 'a-cluster',
    clusterName: 'x',
    osUser: 'postgres',
    hostOf: (instance) => instance,
    now: () => performance.now(),
    guard: { postmaster: (pid) => guarded.push(pid), deadline: () => undefined },
    log: createLogger({ name: 'test', level: 'silent' }),
    user: () => ({ generation: 1, parameters: {}, hba: [] }),
    leaderHistory: () => ({ timeline: 1, ancestors: [] }),
    onChange: () => undefined,
  });
}

async function program(name: string, script: string): Promise<void> {
  const file = join(root, 'bin', name);
  await writeFile(file, `#!/bin/sh\n${script}\n`);
  await chmod(file, 0o755);
}

/** How long a fence takes to say that nothing is acknowledged any more, ms. */
async function fenced(database: Database, atOnce?: true): Promise<number> {
  const began = performance.now();
  const how = atOnce === undefined ? {} : { atOnce };
  expect(await database.operate({ do: 'fence', why: 'a test', ...how })).toEqual({ ok: true });
  return performance.now() - began;
}

const becomes = (database: Database, process: string) =>
  vi.waitFor(() => expect(database.facts.process).toBe(process), { timeout: 10_000 });

describe.skipIf(!loopVolumesAreAvailable())('a volume whose disk is stalled', () => {
  beforeEach(async () => {
    root = await mkdtemp(join(tmpdir(), 'koschei-'));
    volume = await LoopVolume.create(64);
    paths = postgresPaths({
      dataRoot: join(volume.directory, 'data'),
      socketDir: join(root, 'run'),
      certificates: join(root, 'certificates'),
    });
    const made = [paths.agentDir, paths.socketDir, join(paths.pgdata, 'pg_wal'), join(root, 'bin')];
    for (const directory of made) await mkdir(directory, { recursive: true });
    const identity = { dataId: '00000000000000aa', clusterId: 'a-cluster', systemIdentifier: '7', major: 17 };
    await writeFile(
      identityFile(paths),
      JSON.stringify({ ...identity, createdBy: 'initdb', bootstrap: true }),
    );
    await program('pg_controldata', `cat ${controlData}`);
    // A fake of Postgres that writes to its disk all the time.
    await program(
      'postgres',
      `[ "$3" = -C ] && exit 0
cd ${paths.pgdata}
printf '%s\\n\\n\\n\\n\\n\\n\\nready\\n' $$ > postmaster.pid
while :; do echo > written; sleep 0.02; done`,
    );
  });
  afterEach(async () => {
    await volume.remove();
    await rm(root, { recursive: true, force: true });
  });

  test('does not keep a fence from being done: who waits for the disk with SIGKILL pending acknowledges nothing', async () => {
    const database = newDatabase();
    await database.open();
    expect(await database.operate({ do: 'start', as: 'primary', settings, term: 1, timeline: 1 })).toEqual({
      ok: true,
    });
    await volume.freeze();
    await sleep(200);
    // Postgres is given no time to end by itself.
    expect(await fenced(database, true)).toBeLessThan(700);
    expect(database.facts.process).toBe('ended');
    expect(doomedProcesses(paths.dataRoot)).not.toEqual([]);
    expect(guarded.at(-1)).toBe(0);
    // Nothing changes before the disk is back.
    await sleep(1_500);
    expect(database.facts.process).toBe('ended');
    await volume.thaw();
    await becomes(database, 'none');
    expect(doomedProcesses(paths.dataRoot)).toEqual([]);
    expect(await database.operate({ do: 'start', as: 'standby', settings })).toEqual({ ok: true });
    await fenced(database);
  });

  test('leaves what was being done behind, and starts nothing on it before that has ended', async () => {
    const database = newDatabase();
    await database.open();
    await volume.freeze();
    const start = database.operate({ do: 'start', as: 'primary', settings, term: 1, timeline: 1 });
    await sleep(200);
    expect(await fenced(database)).toBeLessThan(2_500);
    expect(database.facts.process).toBe('ended');
    await volume.thaw();
    expect(await start).toMatchObject({ ok: false, reason: 'Interrupted' });
    await becomes(database, 'none');
  });

  test('is waited for by an agent that starts, which knows nothing of the data meanwhile', async () => {
    await volume.freeze();
    const database = newDatabase();
    const opened = database.open();
    await sleep(1_000);
    expect(database.facts.process).toBe('ended');
    expect(database.volume).toEqual({ state: 'unknown' });
    await volume.thaw();
    await opened;
    expect(database.facts.process).toBe('none');
    expect(database.volume).toMatchObject({ state: 'ready', dataId: '00000000000000aa' });
  });

  test('takes no thread from the reading of names and certificates, however long it lasts', async () => {
    const database = newDatabase();
    await database.open();
    await volume.freeze();
    for (let i = 0; i < 8; i++) {
      void database.operate({ do: 'start', as: 'standby', settings });
      await sleep(50);
      await fenced(database);
    }
    const began = performance.now();
    await lookup('localhost');
    expect(performance.now() - began).toBeLessThan(1_000);
    await volume.thaw();
    await becomes(database, 'none');
  });

  test('is asked once whether Postgres is ready, not again and again: each look may hang for ever', async () => {
    // Whoever reads this file waits, as for a disk.
    await program('postgres', `cd ${paths.pgdata}; mkfifo postmaster.pid; exec sleep 60`);
    const postgres = new PostgresProcess(
      { paths, binaries: { directory: join(root, 'bin'), major: 17, version: '17.0' } },
      { onLog: () => undefined, onExit: () => undefined },
    );
    await postgres.start();
    const pidFile = join(paths.pgdata, 'postmaster.pid');
    await vi.waitFor(() => stat(pidFile));
    for (let i = 0; i < 8; i++) expect(await postgres.waitUntilReady({ timeoutMs: 50 })).toBe(false);
    await lookup('localhost');
    await postgres.fence();
    const fifo = await open(pidFile, 'w');
    await fifo.close();
  }, 10_000);
});
