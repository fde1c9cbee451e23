import type { PostgresInstallation } from './binaries.ts';
import type { Limits } from './program.ts';
import type { Upstream } from './settings.ts';

export type RewindOutcome =
  /** The data is an ancestor of the source, rewound or as it was. Render settings again before the start. */
  | { readonly kind: 'done'; readonly rewound: boolean }
  /** Nothing was changed; the source could not be asked. Try again. */
  | { readonly kind: 'retry'; readonly reason: string }
  /** The data cannot be used; when copying had begun it is tainted. */
  | { readonly kind: 'needsReclone'; readonly reason: string };

/**
 * Makes a stopped Postgres of another history a possible standby of `source`: crash recovery in single-user mode if it
 * was not shut down cleanly, a rehearsal of pg_rewind, then pg_rewind under a taint marker that is removed only after
 * success. The source must be out of recovery and have made a checkpoint on its timeline (`readRemote`), otherwise
 * pg_rewind finds nothing to do. Limits apply to each of the three programs; an abort is thrown, and when it came
 * during copying the data stays tainted.
 */
export async function rewind(
  _installation: PostgresInstallation,
  _options: { source: Upstream; dataId: string } & Limits,
): Promise<RewindOutcome> {
  throw new Error('not written yet');
}

/**
 * Finishes crash recovery in single-user mode, without promoting to a new timeline: afterwards the state is `shut down`.
 * Throws PostgresError `ProgramFailed` (also when the data holds an unrecovered base backup), `ProgramTimeout`.
 */
export async function recoverInSingleUserMode(
  _installation: PostgresInstallation,
  _limits: Limits,
): Promise<void> {
  throw new Error('not written yet');
}
