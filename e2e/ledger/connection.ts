import { lookup, Resolver } from 'node:dns/promises';
import { Socket } from 'node:net';
import pg from 'pg';
import type { Route } from './history.ts';
import { PrimaryWatch } from './primary-watch.ts';

/** Milliseconds until a host that does not answer is given up. */
export const connectTimeout = 300;
/** Milliseconds after which the server itself cancels a statement; but not COMMIT, once it waits for a standby. */
export const statementTimeout = 500;
/** Milliseconds after which this side stops waiting for an answer: the server's own timeout and the way. */
const answerTimeout = 700;

/** Where the database is, and who connects. */
export interface Target {
  /** ClusterIP (or name) of the `-rw` Service. */
  readonly serviceHost: string;
  /** Name with an address record for each pod, or the addresses themselves, separated by commas. */
  readonly podsHost: string;
  readonly port: number;
  /**
   * Name servers that know `podsHost`; none: those of this machine. Names are looked up beside the connecting: a name
   * server may be on the machine that is lost.
   */
  readonly nameServers: readonly string[];
  readonly user: string;
  readonly password: string;
  readonly database: string;
  /** False: no TLS, for a server without (unit tests of the workload itself). */
  readonly tls: boolean;
}

/** One session. After any error it is to be closed: what follows would not be what was asked for. */
export interface Session {
  readonly client: pg.Client;
  /** Messages of severity WARNING since the last look. */
  warnings: string[];
  /** Ends at once, without saying good-bye to a server that may not answer. */
  close(): void;
}

/** Opens sessions with the primary on one route, one at a time. */
export class Connector {
  readonly #target: Target;
  readonly #route: Route;
  readonly #resolver: Resolver;
  readonly #watch: PrimaryWatch | undefined;
  #addresses: string[] = [];
  #lookup: Promise<void> | undefined;
  #current: { readonly address: string; readonly session: Session } | undefined;

  /** @param signal ends the watch of the route `direct` */
  constructor(target: Target, route: Route, signal: AbortSignal) {
    this.#target = target;
    this.#route = route;
    this.#resolver = new Resolver({ timeout: connectTimeout, tries: 1 });
    if (target.nameServers.length > 0) this.#resolver.setServers(shuffled(target.nameServers));
    if (route === 'direct') {
      this.#watch = new PrimaryWatch({
        addresses: () => this.#podAddresses(),
        connect: (address) => probe(target, address),
        changed: (primary) => {
          if (this.#current?.address !== primary) this.#current?.session.close();
        },
        signal,
      });
    }
  }

  /** @throws {Error} if no host lets in and takes writes at the moment. */
  async open(): Promise<Session> {
    if (this.#route === 'service') return connect(this.#target, this.#target.serviceHost);
    if (this.#watch !== undefined) {
      const address = this.#watch.primary;
      if (address === undefined) throw new Error('no host says that it is the primary');
      const session = await connect(this.#target, address);
      this.#current = { address, session };
      return session;
    }
    const problems: string[] = [];
    for (const address of shuffled(await this.#podAddresses())) {
      try {
        const session = await connect(this.#target, address);
        try {
          const { rows } = await session.client.query<{ standby: boolean }>(
            'SELECT pg_is_in_recovery() AS standby',
          );
          if (rows[0]?.standby === false) return session;
          problems.push(`${address}: a standby`);
        } catch (error) {
          problems.push(`${address}: ${messageOf(error)}`);
        }
        session.close();
      } catch (error) {
        problems.push(`${address}: ${messageOf(error)}`);
      }
    }
    throw new Error(`no primary among the hosts: ${problems.join('; ')}`);
  }

  async #podAddresses(): Promise<readonly string[]> {
    const { podsHost } = this.#target;
    if (/^[\d.,]+$/.test(podsHost)) return podsHost.split(',');
    this.#lookup ??= this.#lookUp(podsHost).finally(() => {
      this.#lookup = undefined;
    });
    if (this.#addresses.length === 0) await this.#lookup;
    return this.#addresses;
  }

  async #lookUp(podsHost: string): Promise<void> {
    try {
      this.#addresses =
        this.#target.nameServers.length > 0
          ? await this.#resolver.resolve4(podsHost)
          : (await lookup(podsHost, { all: true, family: 4 })).map(({ address }) => address);
    } catch {
      // The name server may be down with its node: ask another one next time, and go on with what was known.
      this.#resolver.setServers(shuffled(this.#resolver.getServers()));
    }
  }
}

/** A session that only tells whether a host is the primary, and on which timeline. */
async function probe(target: Target, address: string) {
  const { client, close } = await connect(target, address);
  const question = `SELECT CASE WHEN NOT pg_is_in_recovery()
    THEN ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::int END AS timeline`;
  return {
    timeline: async () =>
      (await client.query<{ timeline: number | null }>(question)).rows[0]?.timeline ?? undefined,
    close,
  };
}

async function connect(target: Target, host: string): Promise<Session> {
  const socket = new Socket();
  const client = new pg.Client({
    host,
    port: target.port,
    user: target.user,
    password: target.password,
    database: target.database,
    application_name: 'ledger',
    ssl: target.tls ? { rejectUnauthorized: false } : false,
    stream: () => socket,
    connectionTimeoutMillis: connectTimeout,
    statement_timeout: statementTimeout,
    query_timeout: answerTimeout,
  });
  const session: Session = { client, warnings: [], close: () => socket.destroy() };
  // Errors come back from the query that meets them; one that comes between queries ends the next query.
  client.on('error', () => {});
  client.on('notice', ({ severity, message }) => {
    if (severity === 'WARNING') session.warnings.push(message ?? '');
  });
  try {
    await client.connect();
    return session;
  } catch (error) {
    socket.destroy();
    throw error;
  }
}

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item) => ({ item, rank: Math.random() }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}

/** One line about an error. */
export const messageOf = (error: unknown): string =>
  (error instanceof Error ? error.message : String(error)).replaceAll('\n', ' ');
