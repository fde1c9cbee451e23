import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { z } from 'zod';
import { Connection, KeptConnection } from './connection.ts';
import { replicationRole } from './conninfo.ts';
import { PostgresError } from './errors.ts';
import { formatLsn, type Lsn, parseLsn } from './lsn.ts';
import type { PostgresPaths } from './paths.ts';
import { sendSignal } from './processes.ts';
import { quoteIdentifier, quoteLiteral } from './quote.ts';

const lsn = z.string().transform(parseLsn);
const count = z.number().int().nonnegative();

const replicationRow = z.object({
  pid: count,
  applicationName: z.string(),
  clientAddress: z.string().nullable(),
  /** startup, catchup, streaming, backup, stopping. */
  state: z.string().nullable(),
  /** async, potential, sync, quorum. */
  syncState: z.string().nullable(),
  syncPriority: count.nullable(),
  sentLsn: lsn.nullable(),
  writeLsn: lsn.nullable(),
  flushLsn: lsn.nullable(),
  replayLsn: lsn.nullable(),
  /** Age of its last answer, ms; null when it has not answered. */
  replyAgeMs: z.number().nullable(),
});
/** A walsender. */
export type ReplicationRow = z.infer<typeof replicationRow>;

const walReceiverRow = z.object({
  pid: count,
  status: z.string(),
  senderHost: z.string().nullable(),
  senderPort: z.number().int().nullable(),
  receivedTimeline: z.number().int().nullable(),
  flushedLsn: lsn.nullable(),
  /** Age of the last message from the sender, ms. */
  messageAgeMs: z.number().nullable(),
});
export type WalReceiverRow = z.infer<typeof walReceiverRow>;

const slotRow = z.object({
  name: z.string(),
  type: z.enum(['physical', 'logical']),
  active: z.boolean(),
  restartLsn: lsn.nullable(),
  /** reserved, extended, unreserved, lost; null without restartLsn. */
  walStatus: z.string().nullable(),
  /** Logical, from Postgres 17: it is to survive a failover. */
  failover: z.boolean(),
  /** Logical, from Postgres 17: on a standby, a copy of the primary's. */
  synced: z.boolean(),
  temporary: z.boolean(),
  /** It keeps vacuum from removing rows, as a standby with `hot_standby_feedback` asked. */
  holdsRows: z.boolean(),
});
export type SlotRow = z.infer<typeof slotRow>;

const answer = z.object({
  systemIdentifier: z.string(),
  inRecovery: z.boolean(),
  /** Primary only: of the WAL being written. */
  writeTimeline: z.number().int().nullable(),
  insertLsn: lsn.nullable(),
  flushLsn: lsn.nullable(),
  receiveLsn: lsn.nullable(),
  replayLsn: lsn.nullable(),
  replayPaused: z.boolean(),
  walReceiver: walReceiverRow.nullable(),
  walReceiverPid: count.nullable(),
  startupWaitEvent: z.string().nullable(),
  copiesSlots: z.boolean(),
  replication: z.array(replicationRow),
  slots: z.array(slotRow),
  synchronousStandbyNames: z.string(),
  primaryConninfo: z.string(),
  pendingRestart: z.array(z.string()),
  syncWaiters: z.array(z.object({ pid: count, since: z.string() })),
  checkpointTimeline: z.number().int(),
});

/** One look at the running Postgres. */
export interface Observation {
  readonly systemIdentifier: string;
  readonly inRecovery: boolean;
  /** Primary: of the WAL being written; standby: of the WAL replayed last. */
  readonly timeline: number;
  /** Primary: end of the WAL written into buffers. */
  readonly insertLsn: Lsn | null;
  /** Primary: end of the WAL on disk. */
  readonly flushLsn: Lsn | null;
  /** Standby: received and on disk since its start; null when it has not streamed since. */
  readonly receiveLsn: Lsn | null;
  /** Standby: replayed last. */
  readonly replayLsn: Lsn | null;
  readonly replayPaused: boolean;
  /** Row of pg_stat_wal_receiver; it is missing while the receiver connects or ends. */
  readonly walReceiver: Readonly<WalReceiverRow> | null;
  /** The process of type walreceiver, also one that shows no row. */
  readonly walReceiverPid: number | null;
  /** Standby: what its startup process waits for, for example RecoveryRetrieveRetryInterval or RecoveryWalStream. */
  readonly startupWaitEvent: string | null;
  /** Standby, from Postgres 17: the worker that copies failover slots runs. */
  readonly copiesSlots: boolean;
  readonly replication: readonly Readonly<ReplicationRow>[];
  readonly slots: readonly Readonly<SlotRow>[];
  /** In force in the session that was asked; other processes reload one by one. */
  readonly synchronousStandbyNames: string;
  readonly primaryConninfo: string;
  /** Names of settings that wait for a restart. */
  readonly pendingRestart: readonly string[];
  /** Sessions that wait for a synchronous standby; `longestMs` since one was first seen so, a lower bound. */
  readonly syncWaiters: { readonly count: number; readonly longestMs: number };
  /** Timeline of the last checkpoint or restartpoint. */
  readonly checkpointTimeline: number;
}

/**
 * R5: how far the replay of a standby whose WAL receiver is gone for good has come. `done`: everything that was received
 * and everything that was on its disk before is replayed. `idle`: its startup process found no more WAL when it looked
 * last, which may have been before the receiver ended; still so after `wal_retrieve_retry_interval`, it is done, and what
 * was received beyond is part of a record. `busy`: neither.
 *
 * The startup process waits in RecoveryRetrieveRetryInterval after all sources have failed, local WAL first
 * (https://www.postgresql.org/docs/current/monitoring-stats.html, WaitForWALToBecomeAvailable in xlogrecovery.c). Where
 * nothing was asked for by streaming (`receiveLsn` is null), that is the only proof that no local WAL is left.
 */
export function replayProgress(
  seen: Pick<Observation, 'receiveLsn' | 'replayLsn' | 'startupWaitEvent'>,
): 'done' | 'idle' | 'busy' {
  const { receiveLsn, replayLsn } = seen;
  const idle = seen.startupWaitEvent === 'RecoveryRetrieveRetryInterval';
  if (receiveLsn === null) return idle ? 'done' : 'busy';
  if (replayLsn !== null && replayLsn >= receiveLsn) return 'done';
  return idle ? 'idle' : 'busy';
}

// One row of JSON, in one round trip. CASE keeps functions away that fail in the other role.
const observation = `
SELECT json_build_object(
  'systemIdentifier', (SELECT system_identifier::text FROM pg_control_system()),
  'inRecovery', r.recovering,
  'writeTimeline', CASE WHEN r.recovering THEN NULL
    ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
  'insertLsn', CASE WHEN r.recovering THEN NULL ELSE pg_current_wal_insert_lsn() END,
  'flushLsn', CASE WHEN r.recovering THEN NULL ELSE pg_current_wal_flush_lsn() END,
  'receiveLsn', CASE WHEN r.recovering THEN pg_last_wal_receive_lsn() END,
  'replayLsn', CASE WHEN r.recovering THEN pg_last_wal_replay_lsn() END,
  'replayPaused', CASE WHEN r.recovering THEN pg_is_wal_replay_paused() ELSE false END,
  'walReceiver', (SELECT json_build_object(
      'pid', pid, 'status', status, 'senderHost', sender_host, 'senderPort', sender_port,
      'receivedTimeline', received_tli, 'flushedLsn', flushed_lsn,
      'messageAgeMs', extract(epoch FROM clock_timestamp() - last_msg_receipt_time) * 1000)
    FROM pg_stat_wal_receiver WHERE pid IS NOT NULL LIMIT 1),
  'walReceiverPid', (SELECT pid FROM a WHERE backend_type = 'walreceiver' LIMIT 1),
  'startupWaitEvent', (SELECT wait_event FROM a WHERE backend_type = 'startup' LIMIT 1),
  'copiesSlots', EXISTS (SELECT FROM a WHERE backend_type = 'slotsync worker'),
  'replication', (SELECT coalesce(json_agg(json_build_object(
      'pid', pid, 'applicationName', coalesce(application_name, ''), 'clientAddress', host(client_addr),
      'state', state, 'syncState', sync_state, 'syncPriority', sync_priority, 'sentLsn', sent_lsn,
      'writeLsn', write_lsn, 'flushLsn', flush_lsn, 'replayLsn', replay_lsn,
      'replyAgeMs', extract(epoch FROM clock_timestamp() - reply_time) * 1000)), '[]')
    FROM pg_stat_replication WHERE client_addr IS NOT NULL),
  'slots', (SELECT coalesce(json_agg(json_build_object(
      'name', slot_name, 'type', slot_type, 'active', active, 'restartLsn', restart_lsn,
      'walStatus', wal_status, 'holdsRows', xmin IS NOT NULL OR catalog_xmin IS NOT NULL,
      'temporary', temporary, 'failover', coalesce((to_jsonb(s) ->> 'failover')::bool, false),
      'synced', coalesce((to_jsonb(s) ->> 'synced')::bool, false))), '[]')
    FROM pg_replication_slots s),
  'synchronousStandbyNames', current_setting('synchronous_standby_names'),
  'primaryConninfo', current_setting('primary_conninfo'),
  'pendingRestart', (SELECT coalesce(json_agg(name), '[]') FROM pg_settings WHERE pending_restart),
  'syncWaiters', (SELECT coalesce(json_agg(json_build_object(
      'pid', pid, 'since', coalesce(query_start::text, ''))), '[]') FROM a WHERE wait_event = 'SyncRep'),
  'checkpointTimeline', (SELECT timeline_id FROM pg_control_checkpoint())
) AS answer
FROM (SELECT pg_is_in_recovery() AS recovering) AS r`;
const observationStatement = `WITH a AS MATERIALIZED (
  SELECT pid, backend_type, wait_event, query_start FROM pg_stat_activity
  WHERE backend_type IN ('walreceiver', 'startup', 'slotsync worker') OR wait_event = 'SyncRep'
) ${observation}`;

const identifyRow = z.object({ timeline: z.coerce.number().int() });

/** An owned setting that is not in force as rendered. */
export interface SettingMismatch {
  readonly name: string;
  readonly expected: string;
  /** null when Postgres has no such setting. */
  readonly found: string | null;
  /** File that won, or null when it is no file (command line, role, database, default). */
  readonly sourceFile: string | null;
  /** Only a restart is missing. */
  readonly pendingRestart: boolean;
}

const settingRow = z.object({
  name: z.string(),
  value: z.string().nullable(),
  sourceFile: z.string().nullable(),
  pendingRestart: z.boolean(),
});

const fileErrorRow = z.object({ file: z.string(), line: z.number().nullable(), error: z.string() });
/** A line of the settings files that Postgres refuses. */
export type SettingsFileError = Readonly<z.infer<typeof fileErrorRow>>;

/**
 * Local superuser connections over the Unix socket: one kept for short statements, own ones for long work. Every call
 * takes a timeout in milliseconds (default: the constructor's, 2000); after one the connection is thrown away. All
 * methods throw PostgresError `SqlTimeout` and `SqlFailed`. Superuser-reserved connections keep it working when all
 * others are taken.
 */
export class LocalSql {
  readonly #paths: PostgresPaths;
  readonly #user: string;
  readonly #defaultTimeoutMs: number;
  readonly #now: () => number;
  readonly #kept = new KeptConnection((timeoutMs) => this.#open(timeoutMs));
  readonly #identify = new KeptConnection((timeoutMs) => this.#open(timeoutMs, { replication: 'true' }));
  /** When each waiting session was first seen waiting; the key changes with its statement. */
  #waitingSince = new Map<string, number>();

  /** `now`: a monotonic clock in milliseconds. */
  constructor(
    paths: PostgresPaths,
    options: { user?: string; defaultTimeoutMs?: number; now?: () => number } = {},
  ) {
    this.#paths = paths;
    this.#user = options.user ?? 'postgres';
    this.#defaultTimeoutMs = options.defaultTimeoutMs ?? 2_000;
    this.#now = options.now ?? (() => performance.now());
  }

  /** One round trip on a primary, two on a standby (SQL does not show the timeline of replay). */
  async observe(timeoutMs = this.#defaultTimeoutMs): Promise<Observation> {
    const [row] = await this.#query(observationStatement, timeoutMs);
    const { writeTimeline, syncWaiters, ...rest } = answer.parse(row?.answer);
    return {
      ...rest,
      timeline: writeTimeline ?? (await this.#replayTimeline(timeoutMs)),
      syncWaiters: this.#longestWait(syncWaiters),
    };
  }

  async #replayTimeline(timeoutMs: number): Promise<number> {
    const connection = await this.#identify.get(timeoutMs);
    const [row] = await connection.query('IDENTIFY_SYSTEM', { timeoutMs });
    return identifyRow.parse(row).timeline;
  }

  #longestWait(waiters: readonly { pid: number; since: string }[]): { count: number; longestMs: number } {
    const now = this.#now();
    const before = this.#waitingSince;
    this.#waitingSince = new Map(
      waiters.map(({ pid, since }) => {
        const key = `${pid} ${since}`;
        return [key, before.get(key) ?? now];
      }),
    );
    const longestMs = Math.max(0, ...[...this.#waitingSince.values()].map((since) => now - since));
    return { count: waiters.length, longestMs };
  }

  /** Tells Postgres to read its files; `verifySettings` tells when it has. */
  async reload(timeoutMs?: number): Promise<void> {
    await this.#query('SELECT pg_reload_conf()', timeoutMs);
  }

  /** The owned settings whose value or source file is not ours. Empty: all in force. */
  async verifySettings(
    owned: Readonly<Record<string, string>>,
    timeoutMs?: number,
  ): Promise<SettingMismatch[]> {
    const names = Object.keys(owned);
    const rows = z.array(settingRow).parse(
      await this.#query(
        `SELECT name, current_setting(name) AS value, sourcefile AS "sourceFile", pending_restart AS "pendingRestart"
         FROM pg_settings WHERE name IN (${names.map(quoteLiteral).join(', ')})`,
        timeoutMs,
      ),
    );
    const ourFile = join(this.#paths.pgdata, 'koschei.conf');
    return Object.entries(owned).flatMap(([name, expected]) => {
      const row = rows.find((candidate) => candidate.name === name);
      if (row?.value === expected && row.sourceFile === ourFile && !row.pendingRestart) return [];
      return {
        name,
        expected,
        found: row?.value ?? null,
        sourceFile: row?.sourceFile ?? null,
        pendingRestart: row?.pendingRestart ?? false,
      };
    });
  }

  /**
   * Reloads and waits until each owned setting is in force or waits for a restart only; returns what is left then, or
   * at the deadline. Other processes reload one by one: for walsenders look at their priorities.
   */
  async reloadAndVerify(
    owned: Readonly<Record<string, string>>,
    timeoutMs = this.#defaultTimeoutMs,
  ): Promise<SettingMismatch[]> {
    const deadline = this.#now() + timeoutMs;
    await this.reload(timeoutMs);
    for (;;) {
      const mismatches = await this.verifySettings(owned, Math.max(100, deadline - this.#now()));
      if (mismatches.every(({ pendingRestart }) => pendingRestart) || this.#now() >= deadline)
        return mismatches;
      await sleep(10);
    }
  }

  /**
   * Lines of the written settings and access files that the running Postgres would refuse; call it between writing and
   * `reload`. Values that only wait for a restart are no errors.
   */
  async checkFiles(timeoutMs?: number): Promise<SettingsFileError[]> {
    const rows = await this.#query(
      `SELECT coalesce(f.sourcefile, 'postgresql.conf') AS file, f.sourceline AS line,
         concat_ws(': ', f.name, f.error) AS error
       FROM pg_file_settings f LEFT JOIN pg_settings s ON lower(s.name) = lower(f.name)
       WHERE f.error IS NOT NULL AND NOT (coalesce(s.context, '') IN ('postmaster', 'internal')
         AND f.error = 'setting could not be applied') AND f.error !~ 'cannot be changed without restarting'
       UNION ALL
       SELECT 'pg_hba.conf', line_number, error FROM pg_hba_file_rules WHERE error IS NOT NULL`,
      timeoutMs,
    );
    return z.array(fileErrorRow).parse(rows);
  }

  /** Starts a promotion and returns at once; `observe` tells when it has happened. */
  async promote(timeoutMs?: number): Promise<void> {
    await this.#query('SELECT pg_promote(false)', timeoutMs);
  }

  /** An immediate checkpoint, on a connection of its own. */
  checkpoint(timeoutMs: number): Promise<void> {
    return this.#onOwnConnection(timeoutMs, async (connection) => {
      await connection.query('CHECKPOINT', { timeoutMs });
    });
  }

  /**
   * Ends every session of a client, how many there were: of those that a closed door (`acceptClients`) no longer lets in.
   * The superuser on the socket and the other instances stay.
   */
  async endClientSessions(timeoutMs?: number): Promise<number> {
    const rows = await this.#query(
      `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
       WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
         AND usename IS DISTINCT FROM ${quoteLiteral(replicationRole)}
         AND NOT coalesce(usename = ${quoteLiteral(this.#user)} AND client_addr IS NULL, false)`,
      timeoutMs,
    );
    return rows.length;
  }

  /** R5: asks the walreceiver process to end (SIGTERM); its pid, or null when there is none. */
  async terminateWalReceiver(timeoutMs?: number): Promise<number | null> {
    // pg_terminate_backend knows only sessions.
    const [row] = await this.#query(
      `SELECT pid FROM pg_stat_activity WHERE backend_type = 'walreceiver'`,
      timeoutMs,
    );
    if (row === undefined) return null;
    const { pid } = z.object({ pid: count }).parse(row);
    sendSignal(pid, 'SIGTERM');
    return pid;
  }

  /**
   * Lets the worker that copies failover slots look at the primary now: by itself it may sleep for 30 s, and a new slot is
   * lost with its primary before it is copied. No-op when there is none. SIGUSR1 sets its latch, as Postgres's own
   * processes do with each other.
   */
  async wakeSlotSync(timeoutMs?: number): Promise<void> {
    const rows = await this.#query(
      `SELECT pid FROM pg_stat_activity WHERE backend_type = 'slotsync worker'`,
      timeoutMs,
    );
    for (const { pid } of z.array(z.object({ pid: count })).parse(rows)) sendSignal(pid, 'SIGUSR1');
  }

  /**
   * R3: makes small commits of its own until one is seen waiting for a synchronous standby, or the timeout has passed
   * (false). A commit that is answered faster than it can be seen proves nothing and is repeated. They write a few
   * bytes of WAL and nothing else.
   */
  proveCommitsWait(timeoutMs: number): Promise<boolean> {
    const deadline = this.#now() + timeoutMs;
    return this.#onOwnConnection(timeoutMs, async (committer) => {
      const [row] = await committer.query(
        `SELECT pg_backend_pid() AS pid, set_config('synchronous_commit', 'on', false)`,
        { timeoutMs },
      );
      const { pid } = z.object({ pid: count }).parse(row);
      try {
        while (this.#now() < deadline) {
          let committed = false;
          const commit = committer
            .query(`SELECT pg_logical_emit_message(true, 'koschei', '')`, { timeoutMs: timeoutMs + 1_000 })
            .finally(() => {
              committed = true;
            });
          commit.catch(() => {});
          while (!committed && this.#now() < deadline) {
            const waiting = await this.#query(
              `SELECT 1 FROM pg_stat_activity WHERE pid = ${pid} AND wait_event = 'SyncRep'`,
            );
            if (waiting.length > 0) return true;
          }
        }
        return false;
      } finally {
        // A commit that waits for ever must not keep its connection for ever.
        await this.#query(`SELECT pg_terminate_backend(${pid})`, this.#defaultTimeoutMs).catch(() => {});
      }
    });
  }

  /**
   * Makes a small commit that waits for nobody. Walsenders release waiting commits when their standby confirms something
   * (`SyncRepReleaseWaiters` is called on its replies), not when `synchronous_standby_names` gets shorter: without new
   * WAL a commit could go on waiting for seconds although nobody else is to confirm it.
   */
  async wakeWalsenders(timeoutMs?: number): Promise<void> {
    await this.#query(
      `SELECT set_config('synchronous_commit', 'local', true), pg_logical_emit_message(true, 'koschei', '')`,
      timeoutMs,
    );
  }

  /**
   * Gives a role the password of a SCRAM verifier, on a primary; false when it has it, or there is no such role that may
   * log in. Does not wait for synchronous standbys, and the statement is in no log of Postgres.
   */
  setPassword(role: string, verifier: string, timeoutMs = this.#defaultTimeoutMs): Promise<boolean> {
    return this.#onOwnConnection(timeoutMs, async (connection) => {
      await connection.query(
        `SELECT set_config('synchronous_commit', 'local', false), set_config('log_statement', 'none', false),
           set_config('log_min_duration_statement', '-1', false),
           set_config('log_min_error_statement', 'panic', false),
           set_config('default_transaction_read_only', 'off', false)`,
        { timeoutMs },
      );
      const differs = await connection.query(
        `SELECT 1 FROM pg_authid WHERE rolname = ${quoteLiteral(role)} AND rolcanlogin
           AND rolpassword IS DISTINCT FROM ${quoteLiteral(verifier)}`,
        { timeoutMs },
      );
      if (differs.length === 0) return false;
      await connection.query(`ALTER ROLE ${quoteIdentifier(role)} PASSWORD ${quoteLiteral(verifier)}`, {
        timeoutMs,
      });
      return true;
    });
  }

  /** Makes a physical slot that reserves WAL at once; no-op when it exists. */
  async createSlot(name: string, timeoutMs?: number): Promise<void> {
    const literal = quoteLiteral(name);
    await this.#query(
      `SELECT pg_create_physical_replication_slot(${literal}, true)
       WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = ${literal})`,
      timeoutMs,
    );
  }

  /** No-op when there is none. Throws `SqlFailed` when it is in use. */
  async dropSlot(name: string, timeoutMs?: number): Promise<void> {
    await this.#query(
      `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = ${quoteLiteral(name)}`,
      timeoutMs,
    );
  }

  /**
   * Moves a physical slot forward, never back, and not past what is replayed here nor past the last checkpoint: its
   * instance may have to be rewound to before that one's end, and then needs the WAL since. No-op when there is none.
   */
  async advanceSlot(name: string, to: Lsn, timeoutMs?: number): Promise<void> {
    await this.#query(
      `SELECT pg_replication_slot_advance(slot_name, target)
       FROM pg_replication_slots,
         (SELECT least('${formatLsn(to)}'::pg_lsn, (SELECT redo_lsn FROM pg_control_checkpoint()), CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
           ELSE pg_current_wal_flush_lsn() END) AS target) AS t
       WHERE slot_name = ${quoteLiteral(name)} AND NOT active AND target > restart_lsn`,
      timeoutMs,
    );
  }

  /**
   * Whether a new client gets an answer, be it a refusal such as "too many clients": kept connections go on while a
   * postmaster that is stopped, or out of memory, lets in nobody.
   */
  async answersNewClients(timeoutMs: number): Promise<boolean> {
    try {
      (await this.#open(timeoutMs)).destroy();
      return true;
    } catch (error) {
      return error instanceof PostgresError && error.cause instanceof pg.DatabaseError;
    }
  }

  /** Closes its connections at once; the next call opens new ones. */
  close(): void {
    this.#kept.close();
    this.#identify.close();
  }

  async #query(statement: string, timeoutMs = this.#defaultTimeoutMs): Promise<Record<string, unknown>[]> {
    const connection = await this.#kept.get(timeoutMs);
    return connection.query(statement, { timeoutMs });
  }

  async #onOwnConnection<T>(timeoutMs: number, work: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = await this.#open(timeoutMs);
    try {
      return await work(connection);
    } finally {
      connection.destroy();
    }
  }

  #open(timeoutMs: number, more: { replication?: string } = {}): Promise<Connection> {
    return Connection.open(
      {
        host: this.#paths.socketDir,
        port: this.#paths.port,
        user: this.#user,
        database: 'postgres',
        application_name: 'koschei_agent',
        ssl: false,
        ...more,
      },
      'the local Postgres',
      { timeoutMs },
    );
  }
}
