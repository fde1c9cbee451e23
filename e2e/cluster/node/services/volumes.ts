import type { KubeObject } from './mirror.ts';

/** Name of the provisioner, as in the StorageClass. */
export const provisioner = 'koschei.dev/local-volumes';

const provisionerKey = 'volume.beta.kubernetes.io/storage-provisioner';
const selectedNodeKey = 'volume.kubernetes.io/selected-node';
const provisionedByKey = 'pv.kubernetes.io/provisioned-by';

export interface Claim extends KubeObject {
  readonly spec: {
    readonly storageClassName?: string;
    readonly accessModes?: readonly string[];
    readonly resources: { readonly requests?: { readonly storage?: string } };
    readonly volumeName?: string;
  };
  readonly status?: { readonly phase?: string; readonly capacity?: { readonly storage?: string } };
}

export interface Volume extends KubeObject {
  readonly spec: {
    readonly capacity: { readonly storage: string };
    readonly claimRef?: { readonly uid?: string };
    readonly persistentVolumeReclaimPolicy?: string;
    readonly nodeAffinity?: {
      readonly required: {
        readonly nodeSelectorTerms: readonly {
          readonly matchExpressions?: readonly { readonly values?: readonly string[] }[];
        }[];
      };
    };
  };
  readonly status?: { readonly phase?: string };
}

export type Action =
  | { readonly kind: 'provision'; readonly claim: Claim; readonly volume: string; readonly size: string }
  | { readonly kind: 'grow volume'; readonly volume: Volume; readonly size: string }
  | { readonly kind: 'grow claim'; readonly claim: Claim; readonly size: string }
  | { readonly kind: 'remove'; readonly volume: Volume };

/** What this node has to do for the claims and volumes that are its own. */
export function plan(node: string, claims: readonly Claim[], volumes: readonly Volume[]): Action[] {
  const actions: Action[] = [];
  const mine = volumes.filter(
    ({ metadata, spec }) =>
      metadata.annotations?.[provisionedByKey] === provisioner &&
      spec.nodeAffinity?.required.nodeSelectorTerms[0]?.matchExpressions?.[0]?.values?.[0] === node,
  );
  for (const claim of claims) {
    const size = claim.spec.resources.requests?.storage ?? '1Gi';
    const annotations = claim.metadata.annotations ?? {};
    const volume = mine.find(({ spec }) => spec.claimRef?.uid === claim.metadata.uid);
    if (volume === undefined) {
      const wanted =
        claim.status?.phase === 'Pending' &&
        claim.spec.volumeName === undefined &&
        annotations[provisionerKey] === provisioner &&
        annotations[selectedNodeKey] === node;
      if (wanted) actions.push({ kind: 'provision', claim, volume: `pvc-${claim.metadata.uid}`, size });
    } else if (claim.status?.phase === 'Bound') {
      if (bytes(size) > bytes(volume.spec.capacity.storage))
        actions.push({ kind: 'grow volume', volume, size });
      if (bytes(size) > bytes(claim.status.capacity?.storage ?? '0')) {
        actions.push({ kind: 'grow claim', claim, size });
      }
    }
  }
  for (const volume of mine) {
    const unwanted = volume.status?.phase === 'Released';
    if (unwanted && volume.spec.persistentVolumeReclaimPolicy === 'Delete')
      actions.push({ kind: 'remove', volume });
  }
  return actions;
}

/** The PersistentVolume for a claim: a folder of this node, bound to that claim from the start. */
export function volumeFor(
  node: string,
  action: Extract<Action, { kind: 'provision' }>,
  path: string,
  reclaimPolicy: string,
): unknown {
  const { claim, volume, size } = action;
  const { name, namespace, uid } = claim.metadata;
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: volume, annotations: { [provisionedByKey]: provisioner } },
    spec: {
      capacity: { storage: size },
      accessModes: claim.spec.accessModes ?? ['ReadWriteOnce'],
      persistentVolumeReclaimPolicy: reclaimPolicy,
      storageClassName: claim.spec.storageClassName,
      claimRef: { apiVersion: 'v1', kind: 'PersistentVolumeClaim', name, namespace, uid },
      local: { path },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [node] }] },
          ],
        },
      },
    },
  };
}

const units: Readonly<Record<string, number>> = {
  '': 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/**
 * Bytes of a Kubernetes quantity such as `10Gi`, `1.5G`, `1e9`.
 * @throws {Error} if it is none.
 */
export function bytes(quantity: string): number {
  const [, number, unit] = /^(\d+(?:\.\d+)?(?:e\d+)?)([kMGTP]|[KMGTP]i)?$/.exec(quantity) ?? [];
  const factor = units[unit ?? ''];
  if (number === undefined || factor === undefined) {
    throw new Error(`Expected a quantity of bytes such as 10Gi, found "${quantity}".`);
  }
  return Number(number) * factor;
}
