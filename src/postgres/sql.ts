import type { Lsn } from './lsn.ts';
import type { PostgresPaths } from './paths.ts';

/** A walsender, seen on its own side. */
export interface ReplicationRow {
  readonly pid: number;
  readonly applicationName: string;
  readonly clientAddress: string | null;
  readonly state: string;
  readonly syncState: string;
  readonly syncPriority: number;
  readonly sentLsn: Lsn | null;
  readonly writeLsn: Lsn | null;
  readonly flushLsn: Lsn | null;
  readonly replayLsn: Lsn | null;
  /** Age of its last answer, ms; null when it has not answered. */
  readonly replyAgeMs: number | null;
}

export interface WalReceiverRow {
  readonly pid: number;
  readonly status: string;
  readonly senderHost: string | null;
  readonly senderPort: number | null;
  readonly receivedTimeline: number | null;
  readonly flushedLsn: Lsn | null;
  /** Age of the last message from the sender, ms. */
  readonly messageAgeMs: number | null;
}

export interface SlotRow {
  readonly name: string;
  readonly type: 'physical' | 'logical';
  readonly active: boolean;
  readonly restartLsn: Lsn | null;
  /** reserved, extended, unreserved, lost; null without restartLsn. */
  readonly walStatus: string | null;
}

/** One look at the running Postgres. */
export interface Observation {
  readonly systemIdentifier: string;
  readonly inRecovery: boolean;
  /** Primary: of the WAL being written; standby: of the WAL replayed last. */
  readonly timeline: number;
  /** Primary only. */
  readonly insertLsn: Lsn | null;
  /** Primary: flushed; standby: null. */
  readonly flushLsn: Lsn | null;
  /** Standby: received and flushed since its start; null when it has not streamed. */
  readonly receiveLsn: Lsn | null;
  /** Standby: replayed last. */
  readonly replayLsn: Lsn | null;
  readonly replayPaused: boolean;
  /** Row of pg_stat_wal_receiver. */
  readonly walReceiver: WalReceiverRow | null;
  /** A process of type walreceiver, also one that shows no row. */
  readonly walReceiverPid: number | null;
  readonly replication: readonly ReplicationRow[];
  readonly slots: readonly SlotRow[];
  /** In force in this session. */
  readonly synchronousStandbyNames: string;
  readonly primaryConninfo: string;
  /** Names of settings that wait for a restart. */
  readonly pendingRestart: readonly string[];
  readonly syncWaiters: {
    readonly count: number;
    /** Since it was first seen waiting (a lower bound), ms. */
    readonly longestMs: number;
  };
  readonly checkpointTimeline: number;
}

/** An owned setting that is not in force as rendered. */
export interface SettingMismatch {
  readonly name: string;
  readonly expected: string;
  readonly found: string | null;
  /** File that won, or null when it is no file (command line, role, database, default). */
  readonly sourceFile: string | null;
  readonly pendingRestart: boolean;
}

/**
 * Local superuser connections over the Unix socket: one kept for short statements, own ones for long work. Every call
 * takes a deadline; after one the connection is thrown away. All methods throw PostgresError `SqlTimeout`, `SqlFailed`.
 */
export class LocalSql {
  constructor(
    _paths: PostgresPaths,
    _options?: { user?: string; defaultTimeoutMs?: number; now?: () => number },
  ) {}

  async observe(_timeoutMs?: number): Promise<Observation> {
    throw new Error('not written yet');
  }

  /** Tells Postgres to read its files; `verifySettings` tells when it has. */
  async reload(_timeoutMs?: number): Promise<void> {
    throw new Error('not written yet');
  }

  /** The owned settings whose value or source file is not ours. Empty: all in force. */
  async verifySettings(
    _owned: Readonly<Record<string, string>>,
    _timeoutMs?: number,
  ): Promise<SettingMismatch[]> {
    throw new Error('not written yet');
  }

  /**
   * Reloads and waits until each owned setting is in force or waits for a restart only; the mismatches left at the
   * deadline. Other processes reload one by one: for walsenders look at their priorities.
   */
  async reloadAndVerify(
    _owned: Readonly<Record<string, string>>,
    _timeoutMs?: number,
  ): Promise<SettingMismatch[]> {
    throw new Error('not written yet');
  }

  /** Starts a promotion and returns at once; `observe` tells when it has happened. */
  async promote(_timeoutMs?: number): Promise<void> {
    throw new Error('not written yet');
  }

  /** An immediate checkpoint, on a connection of its own. */
  async checkpoint(_timeoutMs: number): Promise<void> {
    throw new Error('not written yet');
  }

  /** R5: asks the walreceiver process to end (SIGTERM); its pid, or null when there is none. */
  async terminateWalReceiver(_timeoutMs?: number): Promise<number | null> {
    throw new Error('not written yet');
  }

  /**
   * R3: makes commits of its own until one is seen to wait for a synchronous standby, or the deadline passes (false).
   * The commits write a few bytes of WAL and nothing else.
   */
  async proveCommitsWait(_timeoutMs: number): Promise<boolean> {
    throw new Error('not written yet');
  }

  /** Makes a physical slot that reserves WAL at once; no-op when it exists. */
  async createSlot(_name: string, _timeoutMs?: number): Promise<void> {
    throw new Error('not written yet');
  }

  /** No-op when there is none. Throws `SqlFailed` when it is in use. */
  async dropSlot(_name: string, _timeoutMs?: number): Promise<void> {
    throw new Error('not written yet');
  }

  /** Moves a physical slot forward, never back; returns where it is now. */
  async advanceSlot(_name: string, _to: Lsn, _timeoutMs?: number): Promise<Lsn> {
    throw new Error('not written yet');
  }

  async close(): Promise<void> {
    throw new Error('not written yet');
  }
}
