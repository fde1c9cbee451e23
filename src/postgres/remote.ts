import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { checkServerIdentity } from 'node:tls';
import { z } from 'zod';
import { Connection } from './connection.ts';
import { replicationRole } from './conninfo.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import type { PostgresPaths } from './paths.ts';
import type { Limits } from './program.ts';
import type { Upstream } from './settings.ts';
import { historyFileName, parseTimelineHistory, type TimelineFork } from './timeline-history.ts';

/** What another instance's Postgres says about itself, asked with the replication certificate. */
export interface RemoteState {
  readonly systemIdentifier: string;
  readonly inRecovery: boolean;
  /** Primary: of the WAL being written; standby: of the WAL replayed last. */
  readonly timeline: number;
  /** Primary: written and flushed; standby: flushed. */
  readonly flushLsn: Lsn;
  /** Timeline of its last checkpoint. pg_rewind needs it equal to `timeline` on the source. */
  readonly checkpointTimeline: number;
  /** Ancestors of `timeline`, oldest first. */
  readonly history: readonly TimelineFork[];
}

const identifySchema = z.object({
  systemid: z.string(),
  timeline: z.coerce.number().int(),
  xlogpos: z.string().transform(parseLsn),
});
const stateSchema = z.object({ in_recovery: z.boolean(), checkpoint_timeline: z.number().int() });
const historySchema = z.object({ content: z.union([z.string(), z.instanceof(Uint8Array)]) });

/**
 * Asks another instance over one replication connection. The limits count for the whole of it; default 5 s.
 * Throws PostgresError `SqlTimeout`, `SqlFailed`, `InvalidTimelineHistory`, and the signal's reason.
 */
export async function readRemote(
  paths: PostgresPaths,
  upstream: Upstream,
  limits: Limits = {},
): Promise<RemoteState> {
  const within: Limits = { timeoutMs: 5_000, ...limits };
  const connection = await openRemote(paths, upstream, within);
  try {
    const [identified] = await connection.query('IDENTIFY_SYSTEM', within);
    const [asked] = await connection.query(
      'SELECT pg_is_in_recovery() AS in_recovery, (SELECT timeline_id FROM pg_control_checkpoint()) AS checkpoint_timeline',
      within,
    );
    const { systemid, timeline, xlogpos } = identifySchema.parse(identified);
    const state = stateSchema.parse(asked);
    const history =
      timeline === 1 ? [] : parseTimelineHistory(timeline, await historyText(connection, timeline, within));
    return {
      systemIdentifier: systemid,
      timeline,
      flushLsn: xlogpos,
      inRecovery: state.in_recovery,
      checkpointTimeline: state.checkpoint_timeline,
      history,
    };
  } finally {
    connection.destroy();
  }
}

const sizeSchema = z.object({ bytes: z.coerce.number() });

/**
 * How much a clone of another instance would copy, bytes: its tablespaces, without WAL. Limits and errors as with
 * `readRemote`; default 30 s, because the files are counted.
 */
export async function remoteDataBytes(
  paths: PostgresPaths,
  upstream: Upstream,
  limits: Limits = {},
): Promise<number> {
  const within: Limits = { timeoutMs: 30_000, ...limits };
  const connection = await openRemote(paths, upstream, within);
  try {
    const [row] = await connection.query(
      'SELECT sum(pg_tablespace_size(oid))::text AS bytes FROM pg_tablespace',
      within,
    );
    return sizeSchema.parse(row).bytes;
  } finally {
    connection.destroy();
  }
}

const slotNames = z.array(z.object({ name: z.string() }));

/** Names of the failover slots of another instance, from Postgres 17. Limits and errors as with `readRemote`. */
export async function remoteFailoverSlots(
  paths: PostgresPaths,
  upstream: Upstream,
  limits: Limits = {},
): Promise<string[]> {
  const within: Limits = { timeoutMs: 5_000, ...limits };
  const connection = await openRemote(paths, upstream, within);
  try {
    const rows = await connection.query(
      'SELECT slot_name AS name FROM pg_replication_slots WHERE failover AND NOT pg_is_in_recovery()',
      within,
    );
    return slotNames.parse(rows).map(({ name }) => name);
  } finally {
    connection.destroy();
  }
}

async function openRemote(paths: PostgresPaths, upstream: Upstream, within: Limits): Promise<Connection> {
  const directory = paths.replicationCertificates;
  const [cert, key, ca] = await Promise.all(
    ['tls.crt', 'tls.key', 'ca.crt'].map((name) => readFile(join(directory, name), 'utf8')),
  );
  return await Connection.open(
    {
      host: upstream.address,
      port: upstream.port,
      user: replicationRole,
      database: 'postgres',
      application_name: 'koschei_probe',
      // Statements of SQL and of the replication protocol on one connection.
      replication: 'database',
      ssl: {
        cert,
        key,
        ca,
        servername: upstream.host,
        checkServerIdentity: (_address, certificate) => checkServerIdentity(upstream.host, certificate),
      },
    },
    `Postgres at ${upstream.address}:${upstream.port}`,
    within,
  );
}

async function historyText(connection: Connection, timeline: number, limits: Limits): Promise<string> {
  const [row] = await connection.query(`TIMELINE_HISTORY ${timeline}`, limits);
  const { content } = historySchema.parse(row, {
    error: () => `${historyFileName(timeline)} in the answer to TIMELINE_HISTORY`,
  });
  return typeof content === 'string' ? content : Buffer.from(content).toString('utf8');
}
