import { Socket } from 'node:net';
import pg from 'pg';
import { withLimits } from './deadline.ts';
import { PostgresError } from './errors.ts';
import type { Limits } from './program.ts';

/**
 * One connection that is given up for good, by closing its socket, when a call takes too long. Calls run one after the
 * other. Throws PostgresError `SqlTimeout` and `SqlFailed`.
 */
export class Connection {
  readonly #client: pg.Client;
  readonly #socket: Socket;
  readonly #name: string;
  #last: Promise<unknown> = Promise.resolve();
  #broken = false;

  private constructor(client: pg.Client, socket: Socket, name: string) {
    this.#client = client;
    this.#socket = socket;
    this.#name = name;
    // Without a listener an error between two calls would end the process.
    client.on('error', () => this.destroy());
    client.on('end', () => {
      this.#broken = true;
    });
  }

  static async open(
    config: pg.ClientConfig & { replication?: string },
    name: string,
    limits: Limits,
  ): Promise<Connection> {
    const socket = new Socket();
    const client = new pg.Client({ ...config, stream: () => socket });
    const connection = new Connection(client, socket, name);
    try {
      await withLimits(client.connect(), limits, () => connection.#timeout(limits));
      return connection;
    } catch (error) {
      connection.destroy();
      throw connection.#failure(error);
    }
  }

  get broken(): boolean {
    return this.#broken;
  }

  /** Runs one statement and returns its rows. */
  query(statement: string, limits: Limits): Promise<Record<string, unknown>[]> {
    const turn = this.#last.then(() => this.#client.query(statement));
    this.#last = turn.catch(() => {});
    return withLimits(turn, limits, () => this.#timeout(limits)).then(
      ({ rows }) => rows,
      (error: unknown) => {
        // A database error leaves the connection usable; anything else does not.
        if (!(error instanceof pg.DatabaseError) || error.severity === 'FATAL') this.destroy();
        throw this.#failure(error);
      },
    );
  }

  destroy(): void {
    this.#broken = true;
    this.#socket.destroy();
  }

  #timeout({ timeoutMs }: Limits): PostgresError {
    return new PostgresError('SqlTimeout', {
      expected: `an answer of ${this.#name} within ${timeoutMs} ms`,
      found: 'none',
      advice: 'look for a stalled disk, an overloaded machine or a broken network',
    });
  }

  #failure(cause: unknown): unknown {
    if (cause instanceof PostgresError || !(cause instanceof Error) || cause.name === 'AbortError')
      return cause;
    const code = 'code' in cause && typeof cause.code === 'string' ? ` (${cause.code})` : '';
    return new PostgresError('SqlFailed', {
      expected: `${this.#name} to answer`,
      found: `${cause.message}${code}`,
      advice: 'see the log of that Postgres',
      cause,
    });
  }
}

/** A connection that is opened when it is first needed, and again after it broke. */
export class KeptConnection {
  readonly #open: (timeoutMs: number) => Promise<Connection>;
  #current: Promise<Connection> | undefined;

  constructor(open: (timeoutMs: number) => Promise<Connection>) {
    this.#open = open;
  }

  async get(timeoutMs: number): Promise<Connection> {
    for (;;) {
      this.#current ??= this.#open(timeoutMs);
      const current = this.#current;
      const forget = (): void => {
        if (this.#current === current) this.#current = undefined;
      };
      const connection = await current.catch((error: unknown) => {
        forget();
        throw error;
      });
      if (!connection.broken) return connection;
      forget();
    }
  }

  close(): void {
    this.#current?.then(
      (connection) => connection.destroy(),
      () => {},
    );
    this.#current = undefined;
  }
}
