import { type ChildProcess, spawn } from 'node:child_process';
import { chmod, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { createLogger } from '../log/logger.ts';
import { findStaleProcesses, identityFile, type PostgresPaths, postgresPaths } from '../postgres/index.ts';
import { Database } from './database.ts';

/** Called whenever something that the code under test may wait for has happened, before that code goes on. */
const point = vi.hoisted(() => ({ reached: (): void => undefined }));

vi.mock('node:fs/promises', async (importOriginal) => {
  const real = await importOriginal<Record<string, unknown>>();
  return Object.fromEntries(
    Object.entries(real).map(([name, value]) => [
      name,
      typeof value !== 'function'
        ? value
        : async (...call: unknown[]) => {
            try {
              return await value(...call);
            } finally {
              point.reached();
            }
          },
    ]),
  );
});

vi.mock('node:child_process', async (importOriginal) => {
  const real = await importOriginal<{ spawn: (...call: unknown[]) => ChildProcess }>();
  return {
    ...real,
    spawn: (...call: unknown[]) => {
      const child = real.spawn(...call);
      // Not yet: whoever spawned it goes on first.
      queueMicrotask(() => point.reached());
      child.once('close', () => point.reached());
      return child;
    },
  };
});

/** Of a Postgres that was stopped in order, on timeline 1. */
const controlData = fileURLToPath(new URL('../postgres/recorded/pg_controldata-15.txt', import.meta.url));
const clusterId = 'a-cluster';
const settings = { synchronousNames: [], clientsAllowed: true };

let root: string;
let paths: PostgresPaths;
let database: Database;
let skewMs = 0;

beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'koschei-'));
  paths = postgresPaths({
    dataRoot: join(root, 'data'),
    socketDir: join(root, 'run'),
    certificates: join(root, 'certificates'),
  });
  for (const directory of [paths.agentDir, paths.socketDir, join(paths.pgdata, 'pg_wal'), join(root, 'bin')])
    await mkdir(directory, { recursive: true });
  await writeFile(
    identityFile(paths),
    JSON.stringify({
      dataId: '00000000000000aa',
      clusterId,
      systemIdentifier: '7',
      major: 17,
      createdBy: 'initdb',
      bootstrap: true,
    }),
  );
  // Fakes of two programs of Postgres: what they print and how long they live is all that counts here.
  await program('pg_controldata', `cat ${controlData}`);
  await program(
    'postgres',
    `[ "$3" = -C ] && exit 0
cd ${paths.pgdata}
printf '%s\\n\\n\\n\\n\\n\\n\\nready\\n' $$ > postmaster.pid
exec sleep 60`,
  );
  database = newDatabase();
  await database.open();
});

function newDatabase(): Database {
  return new Database({
    installation: { paths, binaries: { directory: join(root, 'bin'), major: 17, version: '17.0' } },
    clusterId,
    clusterName: 'x',
    osUser: 'postgres',
    hostOf: (instance) => instance,
    now: () => performance.now() + skewMs,
    guard: { postmaster: () => undefined, deadline: () => undefined },
    log: createLogger({ name: 'test', level: 'silent' }),
    user: () => ({ generation: 1, parameters: {}, hba: [] }),
    leaderHistory: () => ({ timeline: 1, ancestors: [] }),
    onChange: () => undefined,
  });
}

afterEach(async () => {
  point.reached = () => undefined;
  await database.operate({ do: 'fence', why: 'the test is over' });
  await rm(root, { recursive: true, force: true });
});

test.each(['primary', 'standby'] as const)(
  'whenever a fence interrupts a start as %s, nothing of Postgres lives or changes afterwards',
  async (as) => {
    let fenceAt = 0;
    for (let interrupted = true; interrupted; ) {
      fenceAt++;
      // There is something to do at each step of the start.
      await (as === 'primary'
        ? writeFile(join(paths.pgdata, 'standby.signal'), '')
        : rm(join(paths.pgdata, 'standby.signal'), { force: true }));
      await writeFile(join(paths.pgdata, 'pg_wal', '00000002.history'), '');
      const names = { ...settings, synchronousNames: [`k_${fenceAt}`] };
      let reached = 0;
      let after: Promise<unknown> | undefined;
      point.reached = () => {
        if (++reached === fenceAt)
          after = database.operate({ do: 'fence', why: 'a test' }).then(async (outcome) => {
            expect(outcome).toEqual({ ok: true });
            await vi.waitFor(() => expect(database.facts.process).toBe('none'), {
              timeout: 5_000,
              interval: 5,
            });
            expect(findStaleProcesses(paths.dataRoot)).toEqual([]);
            point.reached = () => undefined;
            return contents();
          });
      };
      const start =
        as === 'primary'
          ? ({ do: 'start', as, settings: names, term: fenceAt, timeline: 1 } as const)
          : ({ do: 'start', as, settings: names } as const);
      const outcome = await database.operate(start);
      interrupted = after !== undefined;
      if (!interrupted) {
        expect(outcome).toEqual({ ok: true });
        expect(findStaleProcesses(paths.dataRoot)).toHaveLength(1);
        break;
      }
      const left = await after;
      await sleep(20);
      expect(findStaleProcesses(paths.dataRoot), `fenced at ${fenceAt}`).toEqual([]);
      expect(await contents(), `fenced at ${fenceAt}`).toEqual(left);
      expect(database.facts.process).toBe('none');
      expect(outcome, `fenced at ${fenceAt}`).toMatchObject({ ok: false, reason: 'Interrupted' });
    }
    expect(fenceAt).toBeGreaterThan(30);
  },
  120_000,
);

test('a volume that cannot be read after Postgres ended is looked at again, and said to be unreadable', async () => {
  expect(await database.operate({ do: 'start', as: 'primary', settings, term: 1, timeline: 1 })).toEqual({
    ok: true,
  });
  await program('pg_controldata', 'echo "input/output error" >&2; exit 1');
  for (const pid of findStaleProcesses(paths.dataRoot)) process.kill(pid, 'SIGKILL');
  await vi.waitFor(() => expect(database.problem?.reason).toBe('VolumeUnreadable'));
  expect(database.problem?.message).toContain('input/output error');
  // Nothing may be started from it.
  expect(database.facts.process).toBe('starting');
  await program('pg_controldata', `cat ${controlData}`);
  await vi.waitFor(() => expect(database.facts.process).toBe('none'), { timeout: 5_000, interval: 5 });
  expect(database.problem).toBeUndefined();
});

test('what an earlier agent has left is ended before its volume is touched', async () => {
  await mkdir(paths.pgdataNew);
  const left = spawn('sleep', ['60'], { cwd: paths.pgdata, stdio: 'ignore' });
  await vi.waitFor(() => expect(findStaleProcesses(paths.dataRoot)).toEqual([left.pid]));
  const next = newDatabase();
  await next.open();
  expect(next.facts.process).toBe('leftovers');
  expect(next.volume).toEqual({ state: 'unknown' });
  expect(await readdir(paths.dataRoot)).toContain('pgdata.new');
  expect(await next.operate({ do: 'fence', why: 'a test' })).toEqual({ ok: true });
  await vi.waitFor(() => expect(next.facts.process).toBe('none'));
  expect(next.volume.state).toBe('ready');
  expect(await readdir(paths.dataRoot)).not.toContain('pgdata.new');
});

test('a Postgres that does not answer for long is a problem', async () => {
  await database.operate({ do: 'start', as: 'primary', settings, term: 1, timeline: 1 });
  expect(database.problem).toBeUndefined();
  skewMs += 4_000;
  await database.observe(100);
  expect(database.problem).toBeUndefined();
  skewMs += 1_000;
  expect(database.problem?.reason).toBe('PostgresDoesNotAnswer');
});

test('the data of before the last clone are removed between operations, never during one', async () => {
  const removing = join(paths.dataRoot, 'pgdata.removing');
  const files = Array.from({ length: 2_000 }, (_, i) => join(paths.pgdataOld, `${i}`));
  await mkdir(paths.pgdataOld);
  for (const file of files) await writeFile(file, '');
  const start = database.operate({ do: 'start', as: 'standby', settings });
  await database.forgetOldData();
  expect(await readdir(paths.pgdataOld)).toHaveLength(files.length);
  await start;

  let removed = 0;
  let fence: Promise<{ ok: boolean; left: string[] }> | undefined;
  point.reached = () => {
    if (++removed === 20)
      fence = database.operate({ do: 'fence', why: 'a test' }).then(async ({ ok }) => {
        point.reached = () => undefined;
        return { ok, left: await readdir(removing) };
      });
  };
  await database.forgetOldData();
  const { ok, left } = (await fence) ?? { ok: false, left: [] };
  expect(ok).toBe(true);
  expect(left.length).toBeGreaterThan(1_900);
  await sleep(20);
  expect(await readdir(removing)).toEqual(left);

  await database.forgetOldData();
  expect((await readdir(paths.dataRoot)).sort()).toEqual(['agent', 'pgdata']);
});

test('what came of operations is not kept', async () => {
  setFlagsFromString('--expose-gc');
  const collect: () => void = runInNewContext('gc');
  const outcomes: WeakRef<object>[] = [];
  for (let i = 0; i < 5; i++) outcomes.push(new WeakRef(await database.operate({ do: 'checkpoint' })));
  await sleep(0);
  collect();
  expect(outcomes.slice(0, -1).filter((outcome) => outcome.deref() !== undefined)).toEqual([]);
});

async function program(name: string, script: string): Promise<void> {
  const file = join(root, 'bin', name);
  await writeFile(file, `#!/bin/sh\n${script}\n`);
  await chmod(file, 0o755);
}

/** What is on the volume: the content of each file and when it was changed last. */
async function contents(): Promise<Record<string, string>> {
  const files: Record<string, string> = {};
  for (const entry of await readdir(paths.dataRoot, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name);
    if (entry.isFile()) files[file] = `${(await stat(file)).mtimeMs} ${await readFile(file, 'utf8')}`;
  }
  return files;
}
