// For tests only: real Postgres instances in temporary directories, which trust each other by certificate.
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { createAuthority, issueCertificate, type KeyPair } from '../tls/certificates.ts';
import { findBinaries, type PostgresBinaries, type PostgresInstallation } from './binaries.ts';
import { clone } from './clone.ts';
import { replicationRole } from './conninfo.ts';
import { readControlData } from './control-data.ts';
import type { Identity } from './identity.ts';
import { initdb } from './initdb.ts';
import { PostgresLogParser, type PostgresLogRecord } from './log-parser.ts';
import { type PostgresPaths, postgresPaths } from './paths.ts';
import { PostgresProcess, type PostmasterExit } from './process.ts';
import { type RenderedSettings, renderSettings, type SettingsSpec, type Upstream } from './settings.ts';
import { setStandbySignal, writeSettings } from './settings-files.ts';
import { LocalSql, type Observation } from './sql.ts';

/** Postgres refuses to run as root: a test that is root becomes the user `postgres` for the rest of its process. */
export function dropPrivileges(user = 'postgres'): void {
  if (process.getuid?.() !== 0) return;
  process.setgroups?.([]);
  process.setgid?.(user);
  process.setuid?.(user);
  process.env.HOME = tmpdir();
}

/** The newest Postgres of this machine, or the one that KOSCHEI_TEST_POSTGRES names. */
export async function anyBinaries(): Promise<PostgresBinaries> {
  const wanted = process.env.KOSCHEI_TEST_POSTGRES;
  for (const major of wanted === undefined ? [18, 17, 16, 15] : [Number(wanted)]) {
    const found = await findBinaries(major).catch(() => undefined);
    if (found !== undefined) return found;
  }
  throw new Error('no Postgres on this machine: apt-get install postgresql');
}

/** Waits until `check` answers something other than undefined or false; fails after `timeoutMs`. */
export async function eventually<T>(
  what: string,
  check: () => Promise<T | undefined | false> | T | undefined | false,
  timeoutMs = 15_000,
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let lastError: unknown;
  while (performance.now() < deadline) {
    try {
      const result = await check();
      if (result !== undefined && result !== false) return result;
      lastError = undefined;
    } catch (error) {
      lastError = error;
    }
    await sleep(20);
  }
  throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause: lastError });
}

/** One statement as superuser over the socket, on a connection of its own. */
export async function query(
  { paths }: TestInstance,
  statement: string,
  database = 'postgres',
): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ host: paths.socketDir, port: paths.port, user: 'postgres', database });
  client.on('error', () => {});
  await client.connect();
  try {
    return (await client.query(statement)).rows;
  } finally {
    await client.end().catch(() => {});
  }
}

/** A directory with certificates and the instances in it. */
export class TestBed {
  readonly directory: string;
  readonly binaries: PostgresBinaries;
  readonly clusterId = 'test-cluster';
  readonly #authority: KeyPair;
  readonly #instances: TestInstance[] = [];

  private constructor(directory: string, binaries: PostgresBinaries, authority: KeyPair) {
    this.directory = directory;
    this.binaries = binaries;
    this.#authority = authority;
  }

  static async create(): Promise<TestBed> {
    dropPrivileges();
    const binaries = await anyBinaries();
    const directory = await mkdtemp(join(tmpdir(), 'koschei-'));
    const authority = await createAuthority({ commonName: 'test', validDays: 1, now: new Date() });
    return new TestBed(directory, binaries, authority);
  }

  /** An instance with certificates and no data. */
  async instance(name: string, options: { walVolume?: boolean } = {}): Promise<TestInstance> {
    const root = join(this.directory, name);
    const certificates = join(root, 'certificates');
    const paths = postgresPaths({
      dataRoot: join(root, 'data'),
      walRoot: options.walVolume ? join(root, 'wal') : undefined,
      socketDir: join(root, 'run'),
      certificates,
      port: await freePort(),
    });
    for (const directory of [paths.dataRoot, paths.agentDir, paths.socketDir, join(root, 'wal')]) {
      await mkdir(directory, { recursive: true, mode: 0o700 });
    }
    const host = `${name}.test`;
    await this.#issue(paths.serverCertificates, host, { dnsNames: [host], usages: ['server'] });
    await this.#issue(paths.replicationCertificates, replicationRole, { usages: ['client'] });
    const instance = new TestInstance(this, { paths, binaries: this.binaries }, host);
    this.#instances.push(instance);
    return instance;
  }

  async #issue(
    directory: string,
    commonName: string,
    more: { dnsNames?: string[]; usages: ('server' | 'client')[] },
  ): Promise<void> {
    await mkdir(directory, { recursive: true });
    const { cert, key } = await issueCertificate({
      authority: this.#authority,
      commonName,
      validDays: 1,
      now: new Date(),
      ...more,
    });
    for (const [name, text] of [
      ['tls.crt', cert],
      ['tls.key', key],
      ['ca.crt', this.#authority.cert],
    ] as const) {
      await writeFile(join(directory, name), text, { mode: 0o600 });
    }
  }

  /** Ends every Postgres and removes everything. */
  async close(): Promise<void> {
    for (const { sql, postgres } of this.#instances) {
      sql.close();
      await postgres.fence({ graceMs: 0, deadlineMs: 10_000 });
    }
    await rm(this.directory, { recursive: true, force: true });
  }
}

export class TestInstance {
  readonly installation: PostgresInstallation;
  readonly paths: PostgresPaths;
  readonly upstream: Upstream;
  readonly postgres: PostgresProcess;
  readonly sql: LocalSql;
  readonly log: PostgresLogRecord[] = [];
  readonly exits: PostmasterExit[] = [];
  readonly #bed: TestBed;
  identity: Identity | undefined;
  rendered: RenderedSettings | undefined;

  constructor(bed: TestBed, installation: PostgresInstallation, host: string) {
    this.#bed = bed;
    this.installation = installation;
    this.paths = installation.paths;
    this.upstream = { host, address: '127.0.0.1', port: installation.paths.port };
    const parser = new PostgresLogParser((record) => this.log.push(record));
    this.postgres = new PostgresProcess(installation, {
      onLog: (line) => parser.line(line),
      onExit: (exit) => this.exits.push(exit),
    });
    this.sql = new LocalSql(installation.paths);
  }

  get dataId(): string {
    if (this.identity === undefined) throw new Error('this instance has no data yet');
    return this.identity.dataId;
  }

  async initdb(): Promise<void> {
    this.identity = await initdb(this.installation, {
      dataId: randomBytes(8).toString('hex'),
      clusterId: this.#bed.clusterId,
      application: { database: 'app', user: 'app', password: 'the password' },
      salt: randomBytes(16),
    });
  }

  async clone(source: TestInstance): Promise<void> {
    this.identity = await clone(this.installation, {
      source: source.upstream,
      dataId: randomBytes(8).toString('hex'),
      clusterId: this.#bed.clusterId,
      timeoutMs: 60_000,
    });
  }

  /** Renders and writes the settings. */
  async configure(more: Partial<SettingsSpec> = {}): Promise<RenderedSettings> {
    this.rendered = renderSettings({
      paths: this.paths,
      major: this.#bed.binaries.major,
      clusterName: 'test',
      dataId: this.dataId,
      osUser: userInfo().username,
      parameters: { shared_buffers: '16MB' },
      hba: [],
      synchronousStandbys: [],
      upstream: undefined,
      upstreamSlot: undefined,
      acceptClients: true,
      atLeast: (await readControlData(this.installation)).settings,
      ...more,
    });
    await writeSettings(this.paths, this.rendered);
    return this.rendered;
  }

  async startAsPrimary(more: Partial<SettingsSpec> = {}): Promise<void> {
    await setStandbySignal(this.paths, false);
    await this.#start(more);
  }

  async startAsStandby(of: TestInstance | undefined, more: Partial<SettingsSpec> = {}): Promise<void> {
    await setStandbySignal(this.paths, true);
    await this.#start({ upstream: of?.upstream, ...more });
  }

  async #start(more: Partial<SettingsSpec>): Promise<void> {
    await this.configure(more);
    await this.postgres.start();
    if (!(await this.postgres.waitUntilReady({ timeoutMs: 30_000 }))) {
      throw new Error(`not ready in 30 s: ${JSON.stringify(this.log.slice(-8), null, 1)}`);
    }
  }

  async stop(): Promise<void> {
    await this.postgres.stop('fast', { timeoutMs: 30_000 });
  }

  /** Waits until the instance is observed as `wanted` says. */
  observed(what: string, wanted: (observation: Observation) => boolean): Promise<Observation> {
    return eventually(what, async () => {
      const observation = await this.sql.observe();
      return wanted(observation) && observation;
    });
  }
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() => {
        if (address !== null && typeof address === 'object') resolve(address.port);
        else reject(new Error('no port'));
      });
    });
  });
}
