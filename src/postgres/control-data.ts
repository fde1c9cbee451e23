import { type PostgresInstallation, programPath } from './binaries.ts';
import { PostgresError } from './errors.ts';
import { type Lsn, parseLsn } from './lsn.ts';
import { type Limits, mustRunProgram } from './program.ts';

/** `Database cluster state` of pg_controldata (src/bin/pg_controldata/pg_controldata.c, dbState). */
export type ClusterState =
  | 'starting up'
  | 'shut down'
  | 'shut down in recovery'
  | 'shutting down'
  | 'in crash recovery'
  | 'in archive recovery'
  | 'in production';

/** The settings that a standby must have at least as large as the primary had when it wrote the WAL. */
export interface ControlledSettings {
  readonly max_connections: number;
  readonly max_worker_processes: number;
  readonly max_wal_senders: number;
  readonly max_prepared_transactions: number;
  readonly max_locks_per_transaction: number;
}

/** What the control file says; the truth about a Postgres that does not run. */
export interface ControlData {
  readonly systemIdentifier: string;
  readonly state: ClusterState;
  readonly checkpointLsn: Lsn;
  readonly checkpointRedoLsn: Lsn;
  readonly checkpointTimeline: number;
  readonly previousTimeline: number;
  /** 0/0 when it was not in archive recovery. */
  readonly minRecoveryEndLsn: Lsn;
  /** 0 when it was not in archive recovery. */
  readonly minRecoveryEndTimeline: number;
  /** Start of a base backup that has not been recovered to its end yet; 0/0 when none. */
  readonly backupStartLsn: Lsn;
  readonly walLevel: string;
  readonly walLogHints: boolean;
  readonly dataChecksums: boolean;
  readonly walSegmentBytes: number;
  readonly settings: ControlledSettings;
}

const states: readonly string[] = [
  'starting up',
  'shut down',
  'shut down in recovery',
  'shutting down',
  'in crash recovery',
  'in archive recovery',
  'in production',
] satisfies ClusterState[];

/** Reads the output of `pg_controldata` (LC_ALL=C) of Postgres 15 to 18. Throws `UnreadableControlData`. */
export function parseControlData(output: string): ControlData {
  const fields = new Map<string, string>();
  for (const line of output.split('\n')) {
    const colon = line.indexOf(':');
    if (colon > 0) fields.set(line.slice(0, colon).trim(), line.slice(colon + 1).trim());
  }
  const text = (name: string): string => {
    const value = fields.get(name);
    if (value === undefined || value === '') throw unreadable(name, value ?? 'no such line');
    return value;
  };
  const number = (name: string): number => {
    const value = text(name);
    if (!/^\d+$/.test(value)) throw unreadable(name, value);
    return Number(value);
  };
  const lsn = (name: string): Lsn => parseLsn(text(name));
  const state = text('Database cluster state');
  if (!isClusterState(state)) throw unreadable('Database cluster state', state);
  return {
    systemIdentifier: text('Database system identifier'),
    state,
    checkpointLsn: lsn('Latest checkpoint location'),
    checkpointRedoLsn: lsn("Latest checkpoint's REDO location"),
    checkpointTimeline: number("Latest checkpoint's TimeLineID"),
    previousTimeline: number("Latest checkpoint's PrevTimeLineID"),
    minRecoveryEndLsn: lsn('Minimum recovery ending location'),
    minRecoveryEndTimeline: number("Min recovery ending loc's timeline"),
    backupStartLsn: lsn('Backup start location'),
    walLevel: text('wal_level setting'),
    walLogHints: text('wal_log_hints setting') === 'on',
    dataChecksums: number('Data page checksum version') > 0,
    walSegmentBytes: number('Bytes per WAL segment'),
    settings: {
      max_connections: number('max_connections setting'),
      max_worker_processes: number('max_worker_processes setting'),
      max_wal_senders: number('max_wal_senders setting'),
      max_prepared_transactions: number('max_prepared_xacts setting'),
      max_locks_per_transaction: number('max_locks_per_xact setting'),
    },
  };
}

function isClusterState(text: string): text is ClusterState {
  return states.includes(text);
}

function unreadable(name: string, found: string): PostgresError {
  return new PostgresError('UnreadableControlData', {
    expected: `a value for "${name}" in the output of pg_controldata`,
    found,
    advice: 'the control file is damaged or of an unknown Postgres version: reclone the instance',
  });
}

/**
 * Runs pg_controldata on a data directory (default: `pgdata`). Postgres may run meanwhile.
 * Throws `ProgramFailed`, `ProgramTimeout` (default 10 s: a stalled disk) and `UnreadableControlData`.
 */
export async function readControlData(
  { paths, binaries }: PostgresInstallation,
  options: Limits & { directory?: string } = {},
): Promise<ControlData> {
  const { stdout } = await mustRunProgram(
    programPath(binaries, 'pg_controldata'),
    ['-D', options.directory ?? paths.pgdata],
    { timeoutMs: 10_000, ...options },
  );
  return parseControlData(stdout);
}

/** Was it stopped in order, so that neither crash recovery nor anything else is needed before pg_rewind? */
export function wasShutDownCleanly(control: ControlData): boolean {
  return control.state === 'shut down' || control.state === 'shut down in recovery';
}
