import type { Lsn } from './lsn.ts';
import type { PostgresPaths } from './paths.ts';
import type { Limits } from './program.ts';
import type { Upstream } from './settings.ts';
import type { TimelineFork } from './timeline-history.ts';

/** What another instance's Postgres says about itself, asked with the replication certificate. */
export interface RemoteState {
  readonly systemIdentifier: string;
  readonly inRecovery: boolean;
  readonly timeline: number;
  readonly flushLsn: Lsn;
  /** Timeline of its last checkpoint. pg_rewind needs it equal to `timeline` on the source. */
  readonly checkpointTimeline: number;
  /** Ancestors of `timeline`, oldest first. */
  readonly history: readonly TimelineFork[];
}

/** Asks another instance. Throws PostgresError `SqlTimeout`, `SqlFailed`. */
export async function readRemote(
  _paths: PostgresPaths,
  _upstream: Upstream,
  _limits: Limits,
): Promise<RemoteState> {
  throw new Error('not written yet');
}
