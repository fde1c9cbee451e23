import { type PostgresInstallation, programPath } from './binaries.ts';
import { replicationRole } from './conninfo.ts';
import { readControlData } from './control-data.ts';
import { exists, removeDurably } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import { dataIdSchema, type Identity } from './identity.ts';
import { type Limits, mustRunProgram } from './program.ts';
import { quoteIdentifier, quoteLiteral } from './quote.ts';
import { scramVerifier } from './scram.ts';
import { setStandbySignal } from './settings-files.ts';
import { syncMethod } from './sync-method.ts';
import { newWalDirectory, swapIn } from './volume.ts';

export interface InitdbOptions {
  /** 16 random hexadecimal digits. */
  readonly dataId: string;
  readonly clusterId: string;
  /** The user's first database with its owner; the password is in no argument, log or file in the clear. */
  readonly application: { readonly database: string; readonly user: string; readonly password: string };
  /** 16 random bytes for the password's verifier. */
  readonly salt: Uint8Array;
  /** Default `C.UTF-8`: its order of characters does not change when the C library does. */
  readonly locale?: string;
  /** MiB, a power of two from 1 to 1024; default 16. */
  readonly walSegmentMegabytes?: number;
}

/**
 * Makes a new database: initdb with page checksums into `pgdata.new`, the roles `koschei_replication` (replication,
 * pg_rewind) and the application's, everything on disk, then one swap. A crash before the swap leaves nothing; until
 * somebody decides otherwise it starts as a standby (R10). `timeoutMs` limits each program (default 120 s).
 * Throws PostgresError `VolumeInconsistent` when there is data already, `ProgramFailed`, `ProgramTimeout`.
 */
export async function initdb(
  installation: PostgresInstallation,
  options: InitdbOptions & Limits,
): Promise<Identity> {
  const { paths, binaries } = installation;
  const limits: Limits = { timeoutMs: 120_000, ...limitsOf(options) };
  const dataId = dataIdSchema.parse(options.dataId);
  if (await exists(paths.pgdata)) {
    throw new PostgresError('VolumeInconsistent', {
      expected: 'an empty volume for a new database',
      found: `data in ${paths.pgdata}`,
      advice: 'a volume is initialised once; start the instance on it',
    });
  }
  await removeDurably(paths.pgdataNew);
  const walDirectory = newWalDirectory(paths, dataId);
  const locale = options.locale ?? 'C.UTF-8';
  // The built-in provider (from 17) compares in code point order without asking the C library.
  const provider =
    binaries.major >= 17 && locale === 'C.UTF-8'
      ? ['--locale-provider=builtin', '--builtin-locale=C.UTF-8']
      : [];
  await mustRunProgram(
    programPath(binaries, 'initdb'),
    [
      `--pgdata=${paths.pgdataNew}`,
      '--username=postgres',
      '--data-checksums',
      '--encoding=UTF8',
      `--locale=${locale}`,
      ...provider,
      `--wal-segsize=${options.walSegmentMegabytes ?? 16}`,
      '--auth-local=peer',
      '--auth-host=reject',
      '--no-sync',
      '--no-instructions',
      ...(walDirectory === undefined ? [] : [`--waldir=${walDirectory}`]),
    ],
    limits,
  );
  await runInSingleUserMode(installation, bootstrapStatements(options), limits);
  await setStandbySignal({ ...paths, pgdata: paths.pgdataNew }, true);
  await mustRunProgram(
    programPath(binaries, 'initdb'),
    ['--sync-only', ...syncMethod(binaries.major), `--pgdata=${paths.pgdataNew}`],
    limits,
  );
  const control = await readControlData(installation, { ...limits, directory: paths.pgdataNew });
  const identity: Identity = {
    dataId,
    clusterId: options.clusterId,
    systemIdentifier: control.systemIdentifier,
    major: binaries.major,
    createdBy: 'initdb',
    bootstrap: true,
  };
  await swapIn(paths, identity);
  return identity;
}

function bootstrapStatements({ application, salt }: InitdbOptions): string[] {
  const user = quoteIdentifier(application.user);
  const verifier = quoteLiteral(scramVerifier(application.password, salt));
  // What pg_rewind needs of its source, from its documentation ("Notes").
  const rewindFunctions = [
    'pg_ls_dir(text, boolean, boolean)',
    'pg_stat_file(text, boolean)',
    'pg_read_binary_file(text)',
    'pg_read_binary_file(text, bigint, bigint, boolean)',
  ];
  return [
    `CREATE ROLE ${replicationRole} LOGIN REPLICATION`,
    `GRANT pg_checkpoint, pg_monitor TO ${replicationRole}`,
    ...rewindFunctions.map((name) => `GRANT EXECUTE ON FUNCTION pg_catalog.${name} TO ${replicationRole}`),
    `CREATE ROLE ${user} LOGIN PASSWORD ${verifier}`,
    `CREATE DATABASE ${quoteIdentifier(application.database)} OWNER ${user}`,
    // Only its owner and those it lets in use the application's database.
    `REVOKE ALL ON DATABASE ${quoteIdentifier(application.database)} FROM PUBLIC`,
  ];
}

/** Runs statements, one per line, on `pgdata.new`. Not synced: `initdb --sync-only` follows. */
async function runInSingleUserMode(
  { paths, binaries }: PostgresInstallation,
  statements: readonly string[],
  limits: Limits,
): Promise<void> {
  await mustRunProgram(
    programPath(binaries, 'postgres'),
    [
      '--single',
      '-F',
      '-D',
      paths.pgdataNew,
      ...['exit_on_error=on', 'log_min_error_statement=panic', 'log_checkpoints=off'].flatMap((s) => [
        '-c',
        s,
      ]),
      'postgres',
    ],
    { ...limits, input: `${statements.join('\n')}\n` },
  );
}

function limitsOf({ timeoutMs, signal }: Limits): Limits {
  return { ...(timeoutMs === undefined ? {} : { timeoutMs }), ...(signal === undefined ? {} : { signal }) };
}
