import { setTimeout as sleep } from 'node:timers/promises';
import { type Connector, messageOf, type Session } from './connection.ts';
import type { Attempt, Outcome, Route } from './history.ts';

/** Milliseconds after a failed attempt to connect before the next. */
const reconnectPause = 20;

export interface WorkerOptions {
  /** Distinguishes workloads that share the tables. */
  readonly run: string;
  readonly worker: number;
  readonly route: Route;
  /** Milliseconds from the start of one transaction to the start of the next. */
  readonly interval: number;
  readonly connector: Connector;
  readonly now: () => number;
  readonly report: (attempt: Attempt) => void;
  readonly signal: AbortSignal;
}

/** The tables. There is no unique index on purpose: a row that is written twice must show. */
export const tables = [
  'CREATE TABLE IF NOT EXISTS ledger (run text, worker int, seq bigint)',
  'CREATE TABLE IF NOT EXISTS ledger_register (run text, worker int, seq bigint, PRIMARY KEY (run, worker))',
];

/** Writes rows one after the other until the signal comes; one transaction at a time, each with a number of its own. */
export async function work(options: WorkerOptions): Promise<void> {
  const { interval, connector, signal, report, now } = options;
  let session: Session | undefined;
  let seq = 0;
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
    seq += 1;
    const attempt = await transact(session, options, seq);
    report(attempt);
    if (attempt.outcome !== 'acknowledged') {
      session.close();
      session = undefined;
    }
    due = Math.max(due + interval, now());
    await sleep(Math.max(0, due - now()));
  }
  session?.close();
}

async function transact(session: Session, options: WorkerOptions, seq: number): Promise<Attempt> {
  const { run, worker, route, now } = options;
  const invokedAt = now();
  const { client } = session;
  let seen: Pick<Attempt, 'timeline' | 'server' | 'registerRead'> = {};
  const end = (outcome: Outcome, error?: string): Attempt => ({
    worker,
    seq,
    route,
    invokedAt,
    completedAt: now(),
    outcome,
    ...seen,
    ...(error === undefined ? {} : { error }),
  });
  try {
    await client.query('BEGIN');
    // Locked first: the value read is then the one that this transaction replaces.
    const { rows } = await client.query<{ seq: string; wal: string; server: string }>(
      `SELECT seq, pg_walfile_name(pg_current_wal_insert_lsn()) AS wal, host(inet_server_addr()) AS server
       FROM ledger_register WHERE run = $1 AND worker = $2 FOR UPDATE`,
      [run, worker],
    );
    const [row] = rows;
    if (row === undefined) throw new Error('the register of this worker is gone');
    // A WAL file's name begins with the timeline, in eight hexadecimal digits.
    const timeline = Number.parseInt(row.wal.slice(0, 8), 16);
    seen = { timeline, server: row.server, registerRead: Number(row.seq) };
    await client.query(
      `WITH bumped AS (UPDATE ledger_register SET seq = $3 WHERE run = $1 AND worker = $2)
       INSERT INTO ledger (run, worker, seq) VALUES ($1, $2, $3)`,
      [run, worker, seq],
    );
  } catch (error) {
    // COMMIT was never sent.
    return end('failed', messageOf(error));
  }
  session.warnings = [];
  try {
    const { command } = await client.query('COMMIT');
    if (command !== 'COMMIT') return end('failed', `COMMIT was answered with ${command}`);
  } catch (error) {
    return end('unknown', messageOf(error));
  }
  // Committed here, but perhaps nowhere else: the wait for the synchronous standby was cancelled.
  return session.warnings.length > 0 ? end('unknown', session.warnings.join('; ')) : end('acknowledged');
}
