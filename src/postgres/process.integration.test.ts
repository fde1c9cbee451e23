import { spawn } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { programPath } from './binaries.ts';
import { formatLsn } from './lsn.ts';
import { findStaleProcesses } from './process.ts';
import { scramVerifier } from './scram.ts';
import { setStandbySignal } from './settings-files.ts';
import { replayProgress } from './sql.ts';
import { eventually, TestBed, type TestInstance } from './test-instances.ts';
import {
  historyFileName,
  promotionParent,
  readTimelineHistory,
  reserveTimeline,
} from './timeline-history.ts';
import { prepareVolume } from './volume.ts';

let bed: TestBed;
let instance: TestInstance;

beforeAll(async () => {
  bed = await TestBed.create();
  instance = await bed.instance('solo');
  await instance.initdb();
});
afterEach(async () => {
  instance.sql.close();
  await instance.postgres.fence({ graceMs: 0, deadlineMs: 10_000 });
});
afterAll(() => bed.close());

function session(): pg.Client {
  const client = new pg.Client({
    host: instance.paths.socketDir,
    port: instance.paths.port,
    user: 'postgres',
    database: 'app',
  });
  client.on('error', () => {});
  return client;
}

/** Sessions that keep a backend busy. */
async function busySessions(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const client = session();
    await client.connect();
    client.query('SELECT pg_sleep(60)').catch(() => {});
  }
}

test('an instance without another decision starts as standby', async () => {
  expect((await prepareVolume(instance.paths)).kind).toBe('ready');
  await instance.configure();
  await instance.postgres.start();
  expect(await instance.postgres.waitUntilReady({ timeoutMs: 20_000 })).toBe(true);
  expect((await instance.sql.observe()).inRecovery).toBe(true);
  await instance.stop();
});

test('start, status, a second start refused, stop', async () => {
  await instance.startAsPrimary();
  const { postgres } = instance;
  expect(await postgres.status()).toBe('ready');
  const { pid } = postgres;
  await expect(postgres.start()).rejects.toMatchObject({ code: 'AlreadyRunning' });
  const exit = await postgres.stop('fast', { timeoutMs: 20_000 });
  expect(exit).toEqual({ pid, code: 0, signal: null });
  expect(instance.exits.at(-1)).toEqual(exit);
  expect(postgres.pid).toBeUndefined();
  expect(findStaleProcesses(instance.paths.dataRoot)).toEqual([]);
  expect(await postgres.stop('fast', { timeoutMs: 1 })).toBeUndefined();
});

test('all owned settings are in force', async () => {
  await instance.startAsPrimary({ memoryBytes: 2 ** 30, walVolumeBytes: 7 * 2 ** 30 });
  expect(await instance.sql.verifySettings(instance.rendered?.owned ?? {})).toEqual([]);
  expect(await instance.sql.checkFiles()).toEqual([]);
  await instance.stop();
});

test('the application logs in with its password over TLS only, the superuser not at all', async () => {
  await instance.startAsPrimary();
  const ca = await readFile(join(instance.paths.serverCertificates, 'ca.crt'), 'utf8');
  const remote = (user: string, password: string, ssl: boolean) => {
    const client = new pg.Client({
      host: '127.0.0.1',
      port: instance.paths.port,
      user,
      password,
      database: 'app',
      ssl: ssl && { ca, servername: instance.upstream.host, checkServerIdentity: () => undefined },
    });
    return client
      .connect()
      .then(() => client.query('CREATE TABLE IF NOT EXISTS t (a int)'))
      .finally(() => client.end().catch(() => {}));
  };
  await remote('app', 'the password', true);
  await expect(remote('app', 'wrong', true)).rejects.toThrow(/password authentication failed/);
  await expect(remote('app', 'the password', false)).rejects.toThrow(/pg_hba/);
  await expect(remote('postgres', 'the password', true)).rejects.toThrow(/pg_hba/);
  await expect(remote('koschei_replication', 'x', true)).rejects.toThrow();

  // Another password is taken over without waiting for standbys, once, and only by a role that is there.
  const verifier = scramVerifier('another', Buffer.alloc(16, 1));
  expect(await instance.sql.setPassword('app', verifier)).toBe(true);
  expect(await instance.sql.setPassword('app', verifier)).toBe(false);
  expect(await instance.sql.setPassword('nobody', verifier)).toBe(false);
  await remote('app', 'another', true);
  await expect(remote('app', 'the password', true)).rejects.toThrow(/password authentication failed/);
  await instance.sql.setPassword('app', scramVerifier('the password', Buffer.alloc(16, 2)));

  const closed = await instance.configure({ acceptClients: false });
  await instance.sql.reloadAndVerify(closed.owned);
  await eventually('the doors are closed', () =>
    remote('app', 'the password', true).then(
      () => false,
      (error: Error) => /pg_hba/.test(error.message),
    ),
  );
  await instance.stop();
});

test('sessions of clients from before the doors were closed are ended, on a standby as well', async () => {
  await setStandbySignal(instance.paths, true);
  await instance.configure();
  await instance.postgres.start();
  await instance.postgres.waitUntilReady({ timeoutMs: 20_000 });
  const client = new pg.Client({
    host: instance.paths.socketDir,
    port: instance.paths.port,
    user: 'app',
    password: 'the password',
    database: 'app',
  });
  let ended = false;
  client.on('error', () => {});
  client.on('end', () => {
    ended = true;
  });
  await client.connect();
  const own = session();
  await own.connect();

  const closed = await instance.configure({ acceptClients: false });
  await instance.sql.reloadAndVerify(closed.owned);
  await client.query('SELECT 1');
  await expect(client.query('CREATE TABLE before_promotion (a int)')).rejects.toThrow(/read-only/);
  expect(await instance.sql.endClientSessions()).toBe(1);
  await eventually('the client is gone', () => ended);
  await own.query('SELECT 1').finally(() => own.end());
  expect(await instance.sql.endClientSessions()).toBe(0);
  await instance.stop();
});

test('a fence leaves no process, though backends are busy', async () => {
  await instance.startAsPrimary();
  await busySessions(5);
  expect(findStaleProcesses(instance.paths.dataRoot).length).toBeGreaterThan(8);
  const report = await instance.postgres.fence();
  expect(report.elapsedMs).toBeLessThan(1500);
  expect(report.uninterruptible).toEqual([]);
  expect(findStaleProcesses(instance.paths.dataRoot)).toEqual([]);
  expect(instance.postgres.pid).toBeUndefined();
});

test('a fence ends a Postgres that does not react, within its budget', async () => {
  await instance.startAsPrimary();
  await busySessions(3);
  for (const pid of findStaleProcesses(instance.paths.dataRoot)) process.kill(pid, 'SIGSTOP');
  const report = await instance.postgres.fence();
  expect(report.killed).toBeGreaterThan(5);
  expect(report.elapsedMs).toBeGreaterThanOrEqual(700);
  expect(report.elapsedMs).toBeLessThan(1500);
  expect(findStaleProcesses(instance.paths.dataRoot)).toEqual([]);
});

test('a postmaster that is stopped lets nobody in, though kept connections go on', async () => {
  await instance.startAsPrimary();
  await instance.sql.observe(5_000);
  expect(await instance.sql.answersNewClients(5_000)).toBe(true);
  process.kill(instance.postgres.pid ?? 0, 'SIGSTOP');
  await instance.sql.observe(5_000);
  expect(await instance.sql.answersNewClients(500)).toBe(false);
  process.kill(instance.postgres.pid ?? 0, 'SIGCONT');
  expect(await instance.sql.answersNewClients(5_000)).toBe(true);
});

test('a refusal is an answer to a new client', async () => {
  await instance.startAsPrimary();
  const client = session();
  await client.connect();
  await client.query('ALTER DATABASE postgres ALLOW_CONNECTIONS false');
  try {
    expect(await instance.sql.answersNewClients(5_000)).toBe(true);
  } finally {
    await client.query('ALTER DATABASE postgres ALLOW_CONNECTIONS true');
    await client.end();
  }
});

test('orphans of a killed postmaster forbid a start until they are fenced', async () => {
  await instance.startAsPrimary();
  await busySessions(1);
  const orphan = findStaleProcesses(instance.paths.dataRoot).find((pid) => pid !== instance.postgres.pid);
  if (orphan === undefined || instance.postgres.pid === undefined) throw new Error('no backend');
  // Stopped, it cannot notice that the postmaster died.
  process.kill(orphan, 'SIGSTOP');
  process.kill(instance.postgres.pid, 'SIGKILL');
  await eventually('the agent sees its postmaster die', () => instance.postgres.pid === undefined);
  expect(instance.exits.at(-1)?.signal).toBe('SIGKILL');
  await eventually('only the orphan is left', () => findStaleProcesses(instance.paths.dataRoot).length === 1);
  await expect(instance.postgres.start()).rejects.toMatchObject({ code: 'StaleProcesses' });
  const report = await instance.postgres.fence();
  expect(report.killed).toBe(1);
  await instance.postgres.start();
  expect(await instance.postgres.waitUntilReady({ timeoutMs: 30_000 })).toBe(true);
  await instance.stop();
});

test('a backend that crashes takes Postgres down, and it stays down', async () => {
  await instance.startAsPrimary();
  const client = session();
  await client.connect();
  const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
  const pid = rows[0]?.pid;
  if (pid === undefined) throw new Error('no backend');
  process.kill(pid, 'SIGKILL');
  await eventually('Postgres ends', () => instance.postgres.pid === undefined);
  expect(instance.exits.at(-1)?.code).toBe(1);
});

test('a lock file with the pid of a living process does not keep it from starting', async () => {
  await instance.startAsPrimary();
  const { pid } = instance.postgres;
  if (pid === undefined) throw new Error('not running');
  const lock = await readFile(join(instance.paths.pgdata, 'postmaster.pid'), 'utf8');
  await instance.postgres.fence({ graceMs: 0 });
  const other = spawn('sleep', ['60']);
  try {
    await writeFile(
      join(instance.paths.pgdata, 'postmaster.pid'),
      lock.replace(String(pid), String(other.pid)),
    );
    await writeFile(join(instance.paths.socketDir, `.s.PGSQL.${instance.paths.port}.lock`), `${other.pid}\n`);
    await instance.startAsPrimary();
    await instance.stop();
  } finally {
    other.kill();
  }
});

test('a start that fails says why', async () => {
  await instance.configure({ parameters: { shared_buffers: 'plenty' } });
  await instance.postgres.start();
  await expect(instance.postgres.waitUntilReady({ timeoutMs: 20_000 })).rejects.toMatchObject({
    code: 'StartFailed',
    message: expect.stringContaining('shared_buffers'),
  });
});

test('settings that Postgres would refuse are found before a reload', async () => {
  await instance.startAsPrimary();
  const rendered = await instance.configure({
    parameters: { work_mem: 'nonsense', nonsense: '1', shared_buffers: '32MB', max_connections: 200 },
    hba: ['host nonsense'],
  });
  const errors = await instance.sql.checkFiles();
  expect(errors).toEqual([
    {
      file: join(instance.paths.pgdata, 'user.conf'),
      line: expect.any(Number),
      error: expect.stringMatching(/^nonsense: unrec/),
    },
    { file: 'pg_hba.conf', line: expect.any(Number), error: expect.any(String) },
  ]);
  expect(rendered.owned.max_connections).toBe('200');
  // Values are looked at once all names are known.
  await instance.configure({ parameters: { work_mem: 'plenty', max_connections: 200 } });
  expect((await instance.sql.checkFiles()).map(({ error }) => error)).toEqual([
    'work_mem: setting could not be applied',
  ]);

  const corrected = await instance.configure({
    parameters: { shared_buffers: '32MB', max_connections: 200 },
  });
  const left = await instance.sql.reloadAndVerify(corrected.owned);
  expect(left).toEqual([
    expect.objectContaining({ name: 'max_connections', found: '100', expected: '200', pendingRestart: true }),
  ]);
  expect((await instance.sql.observe()).pendingRestart).toEqual(
    expect.arrayContaining(['max_connections', 'shared_buffers']),
  );
  await instance.stop();
});

test('a setting that somebody else owns is reported', async () => {
  await instance.startAsPrimary();
  const client = session();
  await client.connect();
  await client.query(`ALTER ROLE postgres SET wal_sender_timeout = '1h'`).finally(() => client.end());
  instance.sql.close();
  expect(await instance.sql.verifySettings(instance.rendered?.owned ?? {})).toEqual([
    expect.objectContaining({ name: 'wal_sender_timeout', found: '1h', sourceFile: null }),
  ]);
  const again = session();
  await again.connect();
  await again.query('ALTER ROLE postgres RESET wal_sender_timeout').finally(() => again.end());
  instance.sql.close();
  await instance.stop();
});

test('the log becomes records', async () => {
  await instance.startAsPrimary();
  const client = session();
  await client.connect();
  await client.query('SELECT 1/0').catch(() => {});
  await client.query(`ALTER ROLE nobody PASSWORD 'geheim'`).catch(() => {});
  await client.end();
  await instance.stop();
  expect(instance.log).toContainEqual(
    expect.objectContaining({
      level: 'error',
      message: 'division by zero',
      sqlState: '22012',
      database: 'app',
      user: 'postgres',
      statement: 'SELECT 1/0',
    }),
  );
  expect(JSON.stringify(instance.log)).not.toContain('geheim');
});

test('an agent that died with its Postgres leaves what the next one can fence', async () => {
  await instance.configure();
  const foreign = spawn(programPath(bed.binaries, 'postgres'), ['-D', instance.paths.pgdata], {
    stdio: 'ignore',
  });
  await eventually('it runs', () => findStaleProcesses(instance.paths.dataRoot).length > 3);
  await instance.postgres.fence();
  expect(findStaleProcesses(instance.paths.dataRoot)).toEqual([]);
  foreign.unref();
});

test('a promotion is a child of the timeline that begins where the replay ended, though nothing of it is here', async () => {
  const { paths, sql } = instance;
  await setStandbySignal(paths, true);
  await instance.configure();
  await instance.postgres.start();
  await instance.postgres.waitUntilReady({ timeoutMs: 20_000 });
  const { timeline, replayLsn } = await instance.observed(
    'all is replayed',
    (now) => replayProgress(now) === 'done',
  );
  const replayed = replayLsn ?? 0n;
  // As a receiver fetches it from a primary that was promoted and lost before it wrote anything.
  const own = (await readTimelineHistory(paths, timeline)) ?? [];
  const forks = [...own, { timeline, endLsn: replayed }];
  await writeFile(
    join(paths.pgdata, 'pg_wal', historyFileName(timeline + 1)),
    forks.map((fork) => `${fork.timeline}\t${formatLsn(fork.endLsn)}\tx\n`).join(''),
  );
  const parent = await promotionParent(paths, { timeline, replayed });
  expect(parent).toBe(timeline + 1);
  // Postgres looks for it in each round.
  await eventually('it is adopted', () => instance.log.some((r) => /new target timeline/.test(r.message)));
  await reserveTimeline(paths, { own: parent, allotted: timeline + 4 });
  await sql.promote();
  const promoted = await instance.observed('it is primary', ({ inRecovery }) => !inRecovery);
  expect(promoted.timeline).toBe(timeline + 4);
  expect((await readTimelineHistory(paths, timeline + 4))?.at(-1)?.timeline).toBe(parent);
  await instance.stop();
});
