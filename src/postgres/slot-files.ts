import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ifThere } from './durable-files.ts';
import type { PostgresPaths } from './paths.ts';

/** A replication slot as it is on disk, whether or not Postgres runs. */
export interface SlotFile {
  readonly name: string;
  /** undefined: it is being made or removed just now. */
  readonly logical: boolean | undefined;
}

/** Of a slot's state file: magic number, checksum, version and length, then the name (ReplicationSlotOnDisk in slot.c). */
const databaseAt = 4 * 4 + 64;

/** The slots in the data directory, in no order; empty when there is none. Throws errors of the file system. */
export async function readSlotFiles(paths: PostgresPaths): Promise<SlotFile[]> {
  const directory = join(paths.pgdata, 'pg_replslot');
  const names = ((await ifThere(readdir(directory))) ?? []).filter((name) => !name.endsWith('.tmp'));
  return await Promise.all(
    names.map(async (name) => ({ name, logical: await isLogical(join(directory, name, 'state')) })),
  );
}

/** A logical slot belongs to a database, a physical one to none. */
async function isLogical(path: string): Promise<boolean | undefined> {
  const file = await ifThere(open(path, 'r'));
  if (file === undefined) return undefined;
  try {
    const { bytesRead, buffer } = await file.read(Buffer.alloc(databaseAt + 4), 0, databaseAt + 4, 0);
    return bytesRead < buffer.length ? undefined : buffer.readUInt32LE(databaseAt) !== 0;
  } finally {
    await file.close();
  }
}
