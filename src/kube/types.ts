import type {
  V1ConfigMap,
  V1EndpointSlice,
  V1Job,
  V1Lease,
  V1Node,
  V1PersistentVolume,
  V1PersistentVolumeClaim,
  V1Pod,
  V1PodDisruptionBudget,
  V1Role,
  V1RoleBinding,
  V1Secret,
  V1Service,
  V1ServiceAccount,
  V1StatefulSet,
  V1StorageClass,
} from '@kubernetes/client-node';

/**
 * Kubernetes objects as the JSON that the API sends. The types of client-node say `Date` where the JSON has text and
 * know nothing of fields younger than they are, so objects are never passed through that package's serializer.
 */

export interface OwnerReference {
  apiVersion: string;
  kind: string;
  name: string;
  uid: string;
  controller?: boolean | undefined;
  blockOwnerDeletion?: boolean | undefined;
}

/**
 * Fields that the server sets are optional: objects to be written do not have them. `undefined` is as good as missing,
 * so that types inferred by zod fit.
 */
export interface ObjectMeta {
  name: string;
  namespace?: string | undefined;
  uid?: string | undefined;
  resourceVersion?: string | undefined;
  generation?: number | undefined;
  creationTimestamp?: string | undefined;
  deletionTimestamp?: string | undefined;
  deletionGracePeriodSeconds?: number | undefined;
  labels?: Record<string, string> | undefined;
  annotations?: Record<string, string> | undefined;
  ownerReferences?: OwnerReference[] | undefined;
  finalizers?: string[] | undefined;
}

/** What every object has. */
export interface KubeObject {
  apiVersion: string;
  kind: string;
  metadata: ObjectMeta;
}

/** Names one object of a known resource; `namespace` is left out for objects that have none. */
export interface ObjectRef {
  readonly namespace?: string | undefined;
  readonly name: string;
}

/** The JSON of a client-node type: times are text. */
export type Json<T> = T extends Date
  ? string
  : T extends readonly (infer Item)[]
    ? Json<Item>[]
    : T extends object
      ? { [K in keyof T]: Json<T[K]> }
      : T;
type Raw<T> = KubeObject & Omit<Json<T>, keyof KubeObject>;

export type Pod = Raw<V1Pod>;
export type Service = Raw<V1Service>;
export type Secret = Raw<V1Secret>;
export type ConfigMap = Raw<V1ConfigMap>;
export type PersistentVolumeClaim = Raw<V1PersistentVolumeClaim>;
export type PersistentVolume = Raw<V1PersistentVolume>;
export type Node = Raw<V1Node>;
export type ServiceAccount = Raw<V1ServiceAccount>;
export type StatefulSet = Raw<V1StatefulSet>;
export type Job = Raw<V1Job>;
export type Role = Raw<V1Role>;
export type RoleBinding = Raw<V1RoleBinding>;
export type EndpointSlice = Raw<V1EndpointSlice>;
export type PodDisruptionBudget = Raw<V1PodDisruptionBudget>;
export type Lease = Raw<V1Lease>;
export type StorageClass = Raw<V1StorageClass>;

/** An Event of the core group, the form that every server version and every tool knows. */
export interface CoreEvent extends KubeObject {
  involvedObject: {
    apiVersion: string;
    kind: string;
    namespace?: string;
    name: string;
    uid?: string;
    resourceVersion?: string;
  };
  type: string;
  reason: string;
  message: string;
  count: number;
  firstTimestamp: string;
  lastTimestamp: string;
  source: { component: string; host?: string };
  reportingComponent?: string;
  reportingInstance?: string;
}

/** What `list` returns: all pages together. Watching from `resourceVersion` on misses nothing. */
export interface ObjectList<T> {
  readonly items: readonly T[];
  readonly resourceVersion: string;
}

export type WatchEvent<T> =
  | { readonly type: 'ADDED' | 'MODIFIED' | 'DELETED'; readonly object: T }
  | { readonly type: 'BOOKMARK'; readonly resourceVersion: string };

/** `namespace/name`, or `name` for objects without a namespace: the key of caches and work queues. */
export const keyOf = (ref: ObjectRef): string =>
  ref.namespace === undefined || ref.namespace === '' ? ref.name : `${ref.namespace}/${ref.name}`;

/** `keyOf` of an object. */
export const objectKey = (object: KubeObject): string => keyOf(object.metadata);

/** The inverse of `keyOf`; `namespace` is empty for objects without one. */
export function splitKey(key: string): { namespace: string; name: string } {
  const slash = key.indexOf('/');
  return slash < 0
    ? { namespace: '', name: key }
    : { namespace: key.slice(0, slash), name: key.slice(slash + 1) };
}

/** An owner reference that makes the object vanish with its owner, and marks the owner as its controller. */
export function ownerReference(owner: KubeObject): OwnerReference {
  const { name, uid } = owner.metadata;
  if (uid === undefined) {
    throw new TypeError(`${owner.kind} ${name} has no uid: only an object read from the API can be an owner`);
  }
  return {
    apiVersion: owner.apiVersion,
    kind: owner.kind,
    name,
    uid,
    controller: true,
    blockOwnerDeletion: true,
  };
}
