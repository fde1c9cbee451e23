import type { ObjectMeta } from '../api/parts.ts';
import type { OwnerReference } from '../kube/index.ts';

/** A resource of ours that other objects vanish with. */
export interface Owner {
  readonly apiVersion: string;
  readonly kind: string;
  readonly metadata: Pick<ObjectMeta, 'name' | 'namespace' | 'uid'>;
}

/** The owner reference that makes an object vanish with its owner. */
export const ownedBy = ({ apiVersion, kind, metadata }: Owner): OwnerReference[] => [
  { apiVersion, kind, name: metadata.name, uid: metadata.uid, controller: true, blockOwnerDeletion: true },
];
