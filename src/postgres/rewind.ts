import { join } from 'node:path';
import { type PostgresInstallation, programPath } from './binaries.ts';
import { replicationConninfo } from './conninfo.ts';
import { readControlData, wasShutDownCleanly } from './control-data.ts';
import { exists } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import { clearTaint, writeTaint } from './identity.ts';
import { type Limits, lastLines, mustRunProgram, runProgram } from './program.ts';
import type { Upstream } from './settings.ts';
import { setStandbySignal } from './settings-files.ts';
import { syncMethod } from './sync-method.ts';

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
 * success. Afterwards it starts as a standby (R10). The source must be out of recovery and have made a checkpoint on its
 * timeline (`readRemote`), otherwise pg_rewind finds nothing to do. Limits apply to each of the three programs; a
 * timeout or abort is thrown, and when it came during copying the data stays tainted.
 */
export async function rewind(
  installation: PostgresInstallation,
  options: { source: Upstream; dataId: string } & Limits,
): Promise<RewindOutcome> {
  const { paths, binaries } = installation;
  const control = await readControlData(installation, options);
  if (!wasShutDownCleanly(control)) {
    try {
      await recoverInSingleUserMode(installation, options);
    } catch (error) {
      if (!(error instanceof PostgresError) || error.code !== 'ProgramFailed') throw error;
      return { kind: 'needsReclone', reason: `crash recovery before pg_rewind failed: ${error.found}` };
    }
  }
  const source = replicationConninfo(paths, options.source, {
    dbname: 'postgres',
    application_name: `rewind_${options.dataId}`,
    target_session_attrs: 'read-write',
    options: '-c statement_timeout=0',
  });
  const pgRewind = (...more: string[]) =>
    runProgram(
      programPath(binaries, 'pg_rewind'),
      [
        `--target-pgdata=${paths.pgdata}`,
        `--source-server=${source}`,
        '--no-ensure-shutdown',
        ...syncMethod(binaries.major),
        ...more,
      ],
      options,
    );

  const rehearsal = await pgRewind('--dry-run');
  if (rehearsal.code !== 0) {
    const reason = `pg_rewind cannot be done: ${lastLines(rehearsal.stderr)}`;
    return { kind: isConnectionFailure(rehearsal.stderr) ? 'retry' : 'needsReclone', reason };
  }
  if (/no rewind required/.test(rehearsal.stdout + rehearsal.stderr)) {
    await setStandbySignal(paths, true);
    return { kind: 'done', rewound: false };
  }
  await writeTaint(paths, { dataId: options.dataId, reason: 'pg_rewind was interrupted or failed' });
  const result = await pgRewind();
  if (result.code !== 0) {
    const reason = `pg_rewind failed: ${lastLines(result.stderr)}`;
    await writeTaint(paths, { dataId: options.dataId, reason });
    return { kind: 'needsReclone', reason };
  }
  await setStandbySignal(paths, true);
  await clearTaint(paths);
  return { kind: 'done', rewound: true };
}

/** As libpq says it, and as pg_rewind says it when the connection breaks or the source is no primary (yet). */
function isConnectionFailure(stderr: string): boolean {
  return /connection to server|could not connect|server closed the connection|terminating connection|the database system is|is in recovery mode|session is read-only|server is in hot standby|timeout expired/i.test(
    stderr,
  );
}

/**
 * Finishes crash recovery in single-user mode, without promoting to a new timeline: afterwards the state is `shut down`
 * and the next start is one as standby. Throws PostgresError `ProgramFailed` (also when the data holds a base backup
 * that was never recovered), `ProgramTimeout`.
 */
export async function recoverInSingleUserMode(
  { paths, binaries }: PostgresInstallation,
  limits: Limits,
): Promise<void> {
  if (await exists(join(paths.pgdata, 'backup_label'))) {
    throw new PostgresError('ProgramFailed', {
      expected: 'data that needs crash recovery only',
      found: 'a base backup that was never recovered (backup_label)',
      advice: 'start it as a standby, or reclone it',
    });
  }
  // Single-user mode refuses to be a standby. Nobody can connect to it and it starts no walsender, so nothing that it
  // does can be acknowledged.
  await setStandbySignal(paths, false);
  try {
    await mustRunProgram(
      programPath(binaries, 'postgres'),
      [
        '--single',
        '-D',
        paths.pgdata,
        ...[
          'archive_mode=off',
          'synchronous_standby_names=',
          'log_line_prefix=',
          'shared_preload_libraries=',
        ].flatMap((setting) => ['-c', setting]),
        'template1',
      ],
      limits,
    );
  } finally {
    await setStandbySignal(paths, true);
  }
}
