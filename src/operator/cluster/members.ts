import { label, ordinalOf, podName, walClaimName } from '../../api/names.ts';
import type { PgInstance } from '../../api/pginstance.ts';
import type { ClusterView, MemberValue } from '../../dcs/index.ts';
import type { PersistentVolumeClaim, Pod, StatefulSet } from '../../kube/index.ts';
import { operatorAnnotation } from '../annotations.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/** All that is known about one instance. */
export interface Member {
  readonly name: string;
  readonly ordinal: number;
  readonly instance: PgInstance;
  readonly pod: Pod | undefined;
  readonly claim: PersistentVolumeClaim | undefined;
  /** What its agent says; undefined when it says nothing or etcd cannot be asked. */
  readonly says: MemberValue | undefined;
  readonly isLeader: boolean;
  readonly isSync: boolean;
  /** The pod answers its readiness probe and is not on its way out. */
  readonly ready: boolean;
  /** Ready, and in its role: the primary, or a standby that streams or is to be late. */
  readonly healthy: boolean;
  /** The pod was made from an older template than the StatefulSet has now. */
  readonly outdated: boolean;
  /** What its PgInstance asks for has reached its StatefulSet. */
  readonly settled: boolean;
  /** Its container cannot run: image, crash loop or no node. */
  readonly stuck: boolean;
}

/** The instances of a snapshot in the order of their ordinals; those being deleted are left out. */
export function membersOf(snapshot: ClusterSnapshot): Member[] {
  const view = snapshot.etcd.known ? snapshot.etcd.value.view : undefined;
  return snapshot.instances
    .filter((instance) => instance.metadata.deletionTimestamp === undefined)
    .map((instance) => toMember(snapshot, instance, view))
    .sort((a, b) => a.ordinal - b.ordinal);
}

function toMember(snapshot: ClusterSnapshot, instance: PgInstance, view: ClusterView | undefined): Member {
  const { name } = instance.metadata;
  const pod = snapshot.pods.find((each) => each.metadata.name === podName(name));
  const set = snapshot.statefulSets.find((each) => each.metadata.name === name);
  const says = view?.members.get(name)?.value;
  const isLeader = view?.leader?.value.instance === name && view.leader.value.phase === 'leading';
  const ready = pod !== undefined && isPodReady(pod);
  const isDelayed = view?.config?.value.instances?.[name]?.applyDelaySeconds !== undefined;
  // One that replays late asks for WAL only when it has applied what it has, so after a restart it does not stream.
  const follows = says?.state === 'streaming' || (isDelayed && says?.state === 'catching-up');
  const inRole = isLeader ? says?.role !== 'standby' : says?.role === 'standby' && follows;
  return {
    name,
    ordinal: instance.spec.ordinal,
    instance,
    pod,
    claim: snapshot.claims.find((each) => each.metadata.name === name),
    says,
    isLeader,
    isSync: view?.sync?.value.names.some((each) => each.instance === name) ?? false,
    ready,
    healthy: ready && says !== undefined && inRole,
    outdated: pod !== undefined && isOutdated(pod, set),
    settled:
      instance.status?.observedGeneration === instance.metadata.generation &&
      set?.status?.observedGeneration === set?.metadata.generation,
    stuck: pod !== undefined && isStuck(pod),
  };
}

export const isPodReady = (pod: Pod): boolean =>
  pod.metadata.deletionTimestamp === undefined &&
  pod.status?.conditions?.some((each) => each.type === 'Ready' && each.status === 'True') === true;

/** The StatefulSet controller marks each pod with the revision of the template that it was made from. */
export function isOutdated(pod: Pod, set: StatefulSet | undefined): boolean {
  const revision = set?.status?.updateRevision;
  return (
    pod.metadata.deletionTimestamp === undefined &&
    revision !== undefined &&
    set?.status?.observedGeneration === set?.metadata.generation &&
    pod.metadata.labels?.['controller-revision-hash'] !== revision
  );
}

function isStuck(pod: Pod): boolean {
  if (pod.metadata.deletionTimestamp !== undefined) return false;
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  const waiting = statuses.some(
    (each) => each.state?.waiting !== undefined && stuckReasons.has(each.state.waiting.reason ?? ''),
  );
  const unschedulable = pod.status?.conditions?.some(
    (each) => each.type === 'PodScheduled' && each.status === 'False',
  );
  return waiting || unschedulable === true;
}

/** Reasons of the kubelet for which a container does not start by itself soon. */
const stuckReasons = new Set([
  'CrashLoopBackOff',
  'CreateContainerConfigError',
  'CreateContainerError',
  'ErrImageNeverPull',
  'ErrImagePull',
  'ImagePullBackOff',
  'InvalidImageName',
  'RunContainerError',
]);

/** A data volume of the cluster, seen as such. */
export interface Volume {
  readonly instance: string;
  readonly ordinal: number;
  readonly claim: PersistentVolumeClaim;
  readonly initialized: boolean;
  /** Its instance was removed on purpose. */
  readonly released: boolean;
  /** Its instance was given up because its node was lost: nothing starts on it unless a person says so. */
  readonly detached: boolean;
}

/** The data volumes that carry the cluster's name, with the id they belong to. */
export function volumesOf(snapshot: ClusterSnapshot): (Volume & { clusterId: string | undefined })[] {
  return snapshot.claims.flatMap((claim) => {
    const { labels, annotations, deletionTimestamp } = claim.metadata;
    const instance = labels?.[label.instance];
    const ordinal = instance === undefined ? undefined : ordinalOf(snapshot.cluster.metadata.name, instance);
    if (instance === undefined || ordinal === undefined || deletionTimestamp !== undefined) return [];
    if (claim.metadata.name === walClaimName(instance)) return [];
    return [
      {
        instance,
        ordinal,
        claim,
        initialized: annotations?.[operatorAnnotation.initialized] !== undefined,
        released: annotations?.[operatorAnnotation.released] !== undefined,
        detached: annotations?.[operatorAnnotation.detached] !== undefined,
        clusterId: labels?.[label.clusterId],
      },
    ];
  });
}
