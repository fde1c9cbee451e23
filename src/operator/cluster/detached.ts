import { label, walClaimName } from '../../api/names.ts';
import type { DetachedVolume } from '../../api/pgcluster.ts';
import { type PersistentVolumeClaim, resources } from '../../kube/index.ts';
import type { Action } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { type Member, volumesOf } from './members.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/* Volumes of instances that were given up together with their nodes. */

/** Marks the volumes of a lost instance: they are kept, and nothing starts on them when their node comes back. */
export function detach(snapshot: ClusterSnapshot, { name, instance }: Member): Action[] {
  const at = snapshot.now.toISOString();
  const { node } = instance.status ?? {};
  const because = `its instance is given up with the node ${node ?? '?'}`;
  return claimsOf(snapshot, name).flatMap((each): Action[] => [
    {
      do: 'annotate',
      resource: resources.persistentVolumeClaims,
      ref: each.metadata,
      annotations: {
        // An operator that does not know the other mark does not adopt it by itself either.
        [operatorAnnotation.released]: at,
        [operatorAnnotation.detached]: JSON.stringify({ at, ...(node === undefined ? {} : { node }) }),
      },
      labels: { [label.detached]: 'true' },
      because,
      event: {
        type: 'Warning',
        reason: 'VolumeDetached',
        message: `The volume ${each.metadata.name} is kept, but not used any more: ${because}. Delete its PersistentVolumeClaim if it is not needed`,
      },
    },
  ]);
}

/** Takes the marks of a volume back: an instance works on it again. */
export function attach(snapshot: ClusterSnapshot, instance: string, because: string): Action[] {
  return claimsOf(snapshot, instance)
    .filter(({ metadata }) => metadata.annotations?.[operatorAnnotation.released] !== undefined)
    .map((each) => ({
      do: 'annotate',
      resource: resources.persistentVolumeClaims,
      ref: each.metadata,
      annotations: { [operatorAnnotation.released]: null, [operatorAnnotation.detached]: null },
      labels: { [label.detached]: null },
      because,
    }));
}

/** The volume for data last: what is decided goes by its marks. */
const claimsOf = ({ claims }: ClusterSnapshot, instance: string): PersistentVolumeClaim[] =>
  [walClaimName(instance), instance].flatMap(
    (name) => claims.find(({ metadata }) => metadata.name === name) ?? [],
  );

/** What is written on a volume whose instance was given up with its node. */
export interface Detached {
  readonly at: string;
  readonly node?: string | undefined;
}

/** Reads the note; undefined: the volume is not detached. One that cannot be read is a note all the same. */
export function readDetached(text: string | undefined): Detached | undefined {
  if (text === undefined) return undefined;
  try {
    const { at, node } = JSON.parse(text) as Partial<Record<'at' | 'node', unknown>>;
    return {
      at: typeof at === 'string' ? at : '?',
      ...(typeof node === 'string' ? { node } : {}),
    };
  } catch {
    return { at: '?' };
  }
}

/** The volumes that were given up with their nodes, for the status. */
export function detachedVolumes(snapshot: ClusterSnapshot): DetachedVolume[] {
  return volumesOf(snapshot)
    .flatMap(({ claim }) => {
      const note = readDetached(claim.metadata.annotations?.[operatorAnnotation.detached]);
      return note === undefined
        ? []
        : [
            {
              claim: claim.metadata.name,
              since: note.at,
              ...(note.node === undefined ? {} : { node: note.node }),
            },
          ];
    })
    .sort((a, b) => (a.claim < b.claim ? -1 : 1));
}
