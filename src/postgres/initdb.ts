import type { PostgresInstallation } from './binaries.ts';
import type { Identity } from './identity.ts';
import type { Limits } from './program.ts';

export interface InitdbOptions {
  /** 16 random hexadecimal digits. */
  readonly dataId: string;
  readonly clusterId: string;
  /** The user's first database with its owner; the password is in no argument, log or file in the clear. */
  readonly application: { readonly database: string; readonly user: string; readonly password: string };
  /** 16 random bytes for the password's verifier. */
  readonly salt: Uint8Array;
  /** Default `C.UTF-8`: it does not change when the C library does. */
  readonly locale?: string;
  /** MiB, a power of two from 1 to 1024; default 16. */
  readonly walSegmentMegabytes?: number;
}

/**
 * Makes a new database: initdb with page checksums into `pgdata.new`, the roles `koschei_replication` (replication,
 * pg_rewind) and the application's, everything on disk, then one swap. A crash before the swap leaves nothing.
 * Throws PostgresError `VolumeInconsistent` when there is data already, `ProgramFailed`, `ProgramTimeout`.
 */
export async function initdb(
  _installation: PostgresInstallation,
  _options: InitdbOptions & Limits,
): Promise<Identity> {
  throw new Error('not written yet');
}
