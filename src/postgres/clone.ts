import type { PostgresInstallation } from './binaries.ts';
import type { Identity } from './identity.ts';
import type { Limits } from './program.ts';
import type { Upstream } from './settings.ts';

export interface CloneOptions {
  readonly source: Upstream;
  readonly dataId: string;
  readonly clusterId: string;
  /** What the source must be; `undefined` accepts any. */
  readonly systemIdentifier?: string | undefined;
  /** Remove the old data first. Only when the caller knows that it is not needed and there is no room for both. */
  readonly inPlace?: boolean;
}

/**
 * Copies another instance's data with pg_basebackup into `pgdata.new`, checks it, gives it a new data id and swaps it
 * in, durably; the old data stays as `pgdata.old` until `removeOldData`. Postgres must not run. Clears a taint.
 * A crash at any point leaves either the old data or the new (`prepareVolume`).
 * Throws PostgresError `ProgramFailed`, `ProgramTimeout`, `VolumeInconsistent` (another system identifier).
 */
export async function clone(
  _installation: PostgresInstallation,
  _options: CloneOptions & Limits,
): Promise<Identity> {
  throw new Error('not written yet');
}
