import { type PostgresInstallation, programPath } from './binaries.ts';
import { replicationConninfo } from './conninfo.ts';
import { readControlData } from './control-data.ts';
import { removeDurably } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import { dataIdSchema, type Identity } from './identity.ts';
import type { PostgresPaths } from './paths.ts';
import { type Limits, mustRunProgram } from './program.ts';
import { remoteDataBytes } from './remote.ts';
import type { Upstream } from './settings.ts';
import { setStandbySignal } from './settings-files.ts';
import { syncMethod } from './sync-method.ts';
import { discardData, newWalDirectory, removeOldData, swapIn, volumeSpace } from './volume.ts';

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
 * in, durably; the old data stays as `pgdata.old` until `removeOldData`, also through further clones if there is room for
 * three copies meanwhile. Postgres must not run. A taint of the old data
 * ends with it. A crash at any point leaves either the old data or the new (`prepareVolume`). No timeout by default:
 * pass a signal.
 * Throws PostgresError `NotEnoughSpace` (nothing is copied then), `ProgramFailed`, `ProgramTimeout`,
 * `VolumeInconsistent` (another system identifier), and what `remoteDataBytes` throws.
 */
export async function clone(
  installation: PostgresInstallation,
  options: CloneOptions & Limits,
): Promise<Identity> {
  const { paths, binaries } = installation;
  const dataId = dataIdSchema.parse(options.dataId);
  await removeDurably(paths.pgdataNew);
  if (options.inPlace === true) await discardData(paths);
  await checkSpace(paths, options);
  const walDirectory = newWalDirectory(paths, dataId);
  await mustRunProgram(
    programPath(binaries, 'pg_basebackup'),
    [
      `--dbname=${replicationConninfo(paths, options.source, { application_name: `clone_${dataId}` })}`,
      `--pgdata=${paths.pgdataNew}`,
      '--wal-method=stream',
      '--checkpoint=fast',
      '--no-manifest',
      '--no-password',
      ...syncMethod(binaries.major),
      ...(walDirectory === undefined ? [] : [`--waldir=${walDirectory}`]),
    ],
    options,
  );
  const control = await readControlData(installation, { directory: paths.pgdataNew });
  if (options.systemIdentifier !== undefined && control.systemIdentifier !== options.systemIdentifier) {
    await removeDurably(paths.pgdataNew);
    throw new PostgresError('VolumeInconsistent', {
      expected: `a source with system identifier ${options.systemIdentifier}`,
      found: `${control.systemIdentifier} at ${options.source.address}`,
      advice: 'the address belongs to another cluster: check the members in etcd',
    });
  }
  await setStandbySignal({ ...paths, pgdata: paths.pgdataNew }, true);
  const identity: Identity = {
    dataId,
    clusterId: options.clusterId,
    systemIdentifier: control.systemIdentifier,
    major: binaries.major,
    createdBy: 'clone',
    bootstrap: false,
  };
  await swapIn(paths, identity);
  return identity;
}

/** The source grows while it is copied, and its WAL comes on top. */
const spaceFactor = 1.1;

/** A copy that must fail would load the source for hours, and fill the volume. */
async function checkSpace(paths: PostgresPaths, options: CloneOptions & Limits): Promise<void> {
  const { timeoutMs: _, ...limits } = options;
  const needed = Math.ceil((await remoteDataBytes(paths, options.source, limits)) * spaceFactor);
  const free = async () => (await volumeSpace(paths)).data.freeBytes;
  let freeBytes = await free();
  if (freeBytes < needed && (await removeOldData(paths, limits))) freeBytes = await free();
  if (freeBytes >= needed) return;
  throw new PostgresError('NotEnoughSpace', {
    expected: `${needed} bytes free on the volume: the data at ${options.source.address} and 10 % more`,
    found: `${freeBytes} bytes`,
    advice: 'enlarge the volume, or make room on it',
  });
}
