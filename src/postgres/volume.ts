import { chmod, mkdir, readdir, readlink, rm, statfs } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { exists, ifThere, removeDurably, renameDurably } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import {
  type Identity,
  identityFile,
  identitySchema,
  nextIdentityFile,
  readIdentity,
  readRecord,
  readTaint,
  type Taint,
  writeRecord,
} from './identity.ts';
import type { PostgresPaths } from './paths.ts';
import type { Limits } from './program.ts';

/** What a start finds on the volume. */
export type VolumeState =
  | { readonly kind: 'empty' }
  | { readonly kind: 'ready'; readonly identity: Identity }
  | { readonly kind: 'tainted'; readonly identity: Identity; readonly taint: Taint };

/**
 * Brings the volume into order after a crash at any point of initdb, clone or rewind, and says what is on it: finishes
 * a swap that was decided, removes what was half made, sets modes (0700). Idempotent; call it before anything else,
 * when no Postgres runs. Throws PostgresError `VolumeInconsistent` for data without an identity, `UnreadableIdentity`.
 */
export async function prepareVolume(paths: PostgresPaths): Promise<VolumeState> {
  await mkdir(paths.agentDir, { recursive: true, mode: 0o700 });
  await finishSwap(paths);
  await removeDurably(paths.pgdataNew);
  await removeDurably(discarded(paths));
  await removeUnusedWalDirectories(paths);
  const identity = await readIdentity(paths);
  if (!(await exists(paths.pgdata))) {
    await removeDurably(identityFile(paths));
    return { kind: 'empty' };
  }
  if (identity === undefined) {
    throw new PostgresError('VolumeInconsistent', {
      expected: `${identityFile(paths)} for the data in ${paths.pgdata}`,
      found: 'data that Koschei did not make',
      advice: 'use an empty volume, or one that Koschei made',
    });
  }
  await chmod(paths.pgdata, 0o700);
  const taint = await readTaint(paths, identity.dataId);
  return taint === undefined ? { kind: 'ready', identity } : { kind: 'tainted', identity, taint };
}

/** Directory for the WAL of new data, on the WAL volume if there is one. Named by data id, so that no rename is needed. */
export function newWalDirectory(paths: PostgresPaths, dataId: string): string | undefined {
  return paths.walRoot === undefined ? undefined : join(paths.walRoot, `pg_wal.${dataId}`);
}

/**
 * Makes `pgdata.new`, which must be complete and durable, the data of the volume. Crash-safe: writing
 * `identity.next.json` is the decision, and `prepareVolume` finishes what was decided. What was there becomes
 * `pgdata.old`, unless there is one already: then what was there is a copy that has never been proven, and goes.
 */
export async function swapIn(paths: PostgresPaths, identity: Identity): Promise<void> {
  await writeRecord(nextIdentityFile(paths), identitySchema, identity);
  await finishSwap(paths);
  await removeUnusedWalDirectories(paths);
}

async function finishSwap(paths: PostgresPaths): Promise<void> {
  if ((await readRecord(nextIdentityFile(paths), identitySchema)) === undefined) return;
  if (await exists(paths.pgdataNew)) {
    if (await exists(paths.pgdata)) {
      await removeDurably(discarded(paths));
      await renameDurably(paths.pgdata, (await exists(paths.pgdataOld)) ? discarded(paths) : paths.pgdataOld);
    }
    await renameDurably(paths.pgdataNew, paths.pgdata);
  } else if (!(await exists(paths.pgdata))) {
    throw new PostgresError('VolumeInconsistent', {
      expected: `${paths.pgdataNew} or ${paths.pgdata}, because ${nextIdentityFile(paths)} says that it was complete`,
      found: 'neither',
      advice: 'somebody removed it: remove that file too, and the instance is cloned again',
    });
  }
  await renameDurably(nextIdentityFile(paths), identityFile(paths));
  await removeDurably(discarded(paths));
}

/** Throws away the present data at once, and the old, for a reclone without room for two copies. */
export async function discardData(paths: PostgresPaths): Promise<void> {
  await removeDurably(paths.pgdataOld);
  await removeDurably(removing(paths));
  await removeDurably(discarded(paths));
  if (await exists(paths.pgdata)) await renameDurably(paths.pgdata, discarded(paths));
  await removeDurably(identityFile(paths));
  await removeDurably(discarded(paths));
  await removeUnusedWalDirectories(paths);
}

/**
 * Removes the data from before the last reclone (`pgdata.old`); true when there was some. No clone may run meanwhile.
 * Throws the signal's reason when aborted: a part is then left, for the next call.
 */
export async function removeOldData(
  paths: PostgresPaths,
  { signal }: Pick<Limits, 'signal'> = {},
): Promise<boolean> {
  // Under another name: what is only partly there is nobody's data any more.
  if (await exists(paths.pgdataOld)) {
    signal?.throwIfAborted();
    await removeDurably(removing(paths));
    await renameDurably(paths.pgdataOld, removing(paths));
  } else if (!(await exists(removing(paths)))) return false;
  await removeContents(removing(paths), signal);
  await removeDurably(removing(paths));
  await removeUnusedWalDirectories(paths);
  return true;
}

export interface Space {
  readonly freeBytes: number;
  readonly totalBytes: number;
}

/** Free and total bytes of the data volume and of the volume that holds WAL. */
export async function volumeSpace(paths: PostgresPaths): Promise<{ data: Space; wal: Space }> {
  const data = await spaceOf(paths.dataRoot);
  return { data, wal: paths.walRoot === undefined ? data : await spaceOf(paths.walRoot) };
}

async function spaceOf(directory: string): Promise<Space> {
  const { bavail, blocks, bsize } = await statfs(directory);
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
}

/** File by file: removing a big data directory takes long, and somebody may be in a hurry. */
async function removeContents(directory: string, signal: AbortSignal | undefined): Promise<void> {
  for (const entry of await readdir(directory, { withFileTypes: true })) {
    signal?.throwIfAborted();
    const path = join(directory, entry.name);
    if (entry.isDirectory()) await removeContents(path, signal);
    await rm(path, { recursive: true, force: true });
  }
}

/** The old data while they are being removed. */
function removing(paths: PostgresPaths): string {
  return join(paths.dataRoot, 'pgdata.removing');
}

function discarded(paths: PostgresPaths): string {
  return join(paths.dataRoot, 'pgdata.discarded');
}

/** The WAL directories that neither the data, nor the old data, nor the data of a clone under way link to. */
async function removeUnusedWalDirectories(paths: PostgresPaths): Promise<void> {
  const { walRoot } = paths;
  if (walRoot === undefined) return;
  const used = new Set<string>();
  for (const data of [paths.pgdata, paths.pgdataOld, paths.pgdataNew]) {
    const target = await readlink(join(data, 'pg_wal')).catch(() => undefined);
    if (target !== undefined) used.add(basename(target));
  }
  for (const name of (await ifThere(readdir(walRoot))) ?? []) {
    if (/^pg_wal\.[0-9a-f]{16}$/.test(name) && !used.has(name)) await removeDurably(join(walRoot, name));
  }
}
