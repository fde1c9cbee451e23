import type { Identity, Taint } from './identity.ts';
import type { PostgresPaths } from './paths.ts';

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
export async function prepareVolume(_paths: PostgresPaths): Promise<VolumeState> {
  throw new Error('not written yet');
}

/** Removes the data from before the last reclone (`pgdata.old`); true when there was some. */
export async function removeOldData(_paths: PostgresPaths): Promise<boolean> {
  throw new Error('not written yet');
}

/** Free and total bytes of the data volume and of the volume that holds WAL. */
export async function volumeSpace(
  _paths: PostgresPaths,
): Promise<{
  data: { freeBytes: number; totalBytes: number };
  wal: { freeBytes: number; totalBytes: number };
}> {
  throw new Error('not written yet');
}
