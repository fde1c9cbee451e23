import { setTimeout as sleep } from 'node:timers/promises';
import { type Connector, messageOf, type Session } from './connection.ts';
import type { Attempt, Outcome, Read, Route, Server } from './history.ts';

/** Milliseconds after a failed attempt to connect before the next. */
const reconnectPause = 20;

/** A client with one session, which does one thing after the other. */
export interface ClientOptions {
  /** Distinguishes workloads that share the tables. */
  readonly run: string;
  readonly route: Route;
  /** Milliseconds from the start of one transaction to the start of the next. */
  readonly interval: number;
  readonly connector: Connector;
  readonly now: () => number;
  readonly signal: AbortSignal;
}

/** One transaction on a session that is open. False: the session is to be closed. */
export type Transaction = (session: Session, options: ClientOptions) => Promise<boolean>;

/** The tables. There is no unique index on purpose: a row that is written twice must show. */
export const tables = [
  'CREATE TABLE IF NOT EXISTS ledger (run text, worker int, seq bigint)',
  'CREATE TABLE IF NOT EXISTS ledger_register (run text, worker int, seq bigint, PRIMARY KEY (run, worker))',
];

/** Repeats a transaction until the signal comes, on a new session whenever one is lost. */
export async function forEver(options: ClientOptions, transaction: Transaction): Promise<void> {
  const { interval, connector, signal, now } = options;
  let session: Session | undefined;
  let due = now();
  while (!signal.aborted) {
    if (session === undefined) {
      try {
        session = await connector.open();
      } catch {
        await sleep(reconnectPause);
        continue;
      }
    }
    if (!(await transaction(session, options))) {
      session.close();
      session = undefined;
    }
    due = Math.max(due + interval, now());
    await sleep(Math.max(0, due - now()));
  }
  session?.close();
}

/** Columns that say which Postgres answers. They fail on a standby, which writes no WAL. */
export const serverColumns =
  'pg_walfile_name(pg_current_wal_insert_lsn()) AS wal, host(inet_server_addr()) AS server, ' +
  '(extract(epoch FROM pg_postmaster_start_time()) * 1000)::float8 AS started';
export interface ServerRow {
  readonly wal: string;
  readonly server: string;
  readonly started: number;
}
export const serverOf = ({ wal, server, started }: ServerRow): Server => ({
  // A WAL file's name begins with the timeline, in eight hexadecimal digits.
  timeline: Number.parseInt(wal.slice(0, 8), 16),
  server,
  started,
});

/**
 * COMMIT, and what its answer means.
 * @param refusals SQLSTATEs that the server sends instead of committing: definite failures.
 */
export async function commit(
  session: Session,
  refusals: readonly string[] = [],
): Promise<{ outcome: Outcome; error?: string }> {
  session.warnings = [];
  try {
    const { command } = await session.client.query('COMMIT');
    if (command !== 'COMMIT') return { outcome: 'failed', error: `COMMIT was answered with ${command}` };
  } catch (error) {
    const { code } = error as { code?: unknown };
    const refused = typeof code === 'string' && refusals.includes(code);
    return { outcome: refused ? 'failed' : 'unknown', error: messageOf(error) };
  }
  // Committed here, but perhaps nowhere else: the wait for the synchronous standby was cancelled.
  if (session.warnings.length > 0) return { outcome: 'unknown', error: session.warnings.join('; ') };
  return { outcome: 'acknowledged' };
}

/** Writes rows one after the other, each with a number of its own, and raises the worker's register with each. */
export function write(run: string, worker: number, report: (attempt: Attempt) => void): Transaction {
  let seq = 0;
  return async (session, { route, now }) => {
    seq += 1;
    const invokedAt = now();
    const { client } = session;
    let seen: Partial<Server> & Pick<Attempt, 'registerRead'> = {};
    const end = (ending: { outcome: Outcome; error?: string }) => {
      report({ worker, seq, route, invokedAt, completedAt: now(), ...seen, ...ending });
      return ending.outcome === 'acknowledged';
    };
    try {
      await client.query('BEGIN');
      // Locked first: the value read is then the one that this transaction replaces.
      const { rows } = await client.query<{ seq: string } & ServerRow>(
        `SELECT seq, ${serverColumns} FROM ledger_register WHERE run = $1 AND worker = $2 FOR UPDATE`,
        [run, worker],
      );
      const [row] = rows;
      if (row === undefined) throw new Error('the register of this worker is gone');
      seen = { ...serverOf(row), registerRead: Number(row.seq) };
      await client.query(
        `WITH bumped AS (UPDATE ledger_register SET seq = $3 WHERE run = $1 AND worker = $2)
         INSERT INTO ledger (run, worker, seq) VALUES ($1, $2, $3)`,
        [run, worker, seq],
      );
    } catch (error) {
      // COMMIT was never sent.
      return end({ outcome: 'failed', error: messageOf(error) });
    }
    return end(await commit(session));
  };
}

/** Reads the registers of the workers in turn. Only answers of a primary are reported. */
export function read(
  run: string,
  reader: number,
  workers: readonly number[],
  report: (read: Read) => void,
): Transaction {
  let turn = reader;
  return async (session, { route, now }) => {
    turn += 1;
    const worker = workers[turn % workers.length] ?? 0;
    const invokedAt = now();
    try {
      const { rows } = await session.client.query<{ seq: string } & ServerRow>(
        `SELECT seq, ${serverColumns} FROM ledger_register WHERE run = $1 AND worker = $2`,
        [run, worker],
      );
      const [row] = rows;
      if (row === undefined) return false;
      const value = Number(row.seq);
      report({ reader, worker, value, route, invokedAt, completedAt: now(), ...serverOf(row) });
      return true;
    } catch {
      return false;
    }
  };
}
