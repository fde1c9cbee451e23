import type { NewCondition } from '../../api/conditions.ts';
import { appSecretName, caSecretName, finalizer, podName, walClaimName } from '../../api/names.ts';
import { PgClusterSpec } from '../../api/pgcluster.ts';
import { resources } from '../../kube/index.ts';
import type { Action } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { positionOf } from './evidence.ts';
import { membersOf, volumesOf } from './members.ts';
import type { Plan } from './plan.ts';
import type { ClusterSnapshot } from './snapshot.ts';
import { deletingStatus } from './status.ts';

/** How long the primary waits for the standbys to be gone, so that they have everything, ms. */
const standbysFirstMs = 30_000;

/**
 * Ends a cluster: the standbys, then the primary. With `Retain` volumes, credentials and the state in etcd stay, and
 * each volume is marked with what was known about it; with `Delete` they go.
 */
export function planDeletion(snapshot: ClusterSnapshot): Plan {
  const { cluster } = snapshot;
  if (cluster.metadata.finalizers?.includes(finalizer) !== true) return { actions: [], status: undefined };
  const id = cluster.status?.clusterId;
  const done: Action = { do: 'remove-finalizer', because: 'the volumes are dealt with' };
  if (id === undefined) return { actions: [done], status: undefined };

  const policy = deletionPolicy(snapshot);
  const present = snapshot.instances;
  if (present.length > 0) return endInstances(snapshot, policy);
  if (policy === 'Retain') return { actions: [done], status: undefined };

  const own = snapshot.claims.filter(
    (claim) =>
      claim.metadata.deletionTimestamp === undefined &&
      Object.values(claim.metadata.labels ?? {}).includes(id),
  );
  const named = new Set(volumesOf(snapshot).flatMap(({ instance }) => [instance, walClaimName(instance)]));
  const volumes = own.filter((claim) => named.has(claim.metadata.name));
  const secrets = [appSecretName, caSecretName].flatMap((name) => {
    const secret = snapshot.objects.get(`Secret/${name(cluster.metadata.name)}`);
    return secret?.metadata.uid === undefined ? [] : [secret];
  });
  const etcdKnown = snapshot.etcd.known;
  const because = 'the spec says deletionPolicy: Delete';
  return {
    actions: [
      ...(etcdKnown ? [{ do: 'forget-etcd', because } as const] : []),
      ...volumes.map(
        (claim): Action => ({
          do: 'delete',
          resource: resources.persistentVolumeClaims,
          ref: claim.metadata,
          uid: claim.metadata.uid ?? '',
          because,
        }),
      ),
      ...secrets.map(
        (secret): Action => ({
          do: 'delete',
          resource: resources.secrets,
          ref: secret.metadata,
          uid: secret.metadata.uid ?? '',
          because,
        }),
      ),
      ...(etcdKnown ? [done] : []),
    ],
    status: etcdKnown
      ? undefined
      : deletingStatus(snapshot, {
          ...deleting,
          message:
            'Waiting for etcd, to remove the state of this cluster there. To leave that state behind, set deletionPolicy to Retain',
        }),
    requeueAfterMs: etcdKnown ? undefined : 10_000,
  };
}

const deleting: NewCondition = {
  type: 'Progressing',
  status: 'True',
  reason: 'Deleting',
  message: 'The instances are being stopped, the primary last',
};

function endInstances(snapshot: ClusterSnapshot, policy: 'Retain' | 'Delete'): Plan {
  const { cluster, now, pods } = snapshot;
  const members = membersOf(snapshot);
  const since = now.getTime() - Date.parse(cluster.metadata.deletionTimestamp ?? now.toISOString());
  const leader = members.find((member) => member.isLeader)?.name ?? cluster.status?.primary;
  const standbys = members.filter((member) => member.name !== leader);
  const standbyPods = pods.filter((pod) => leader === undefined || pod.metadata.name !== podName(leader));
  const primaryToo = since >= standbysFirstMs || (standbys.length === 0 && standbyPods.length === 0);
  const ending = primaryToo ? members : standbys;
  return {
    actions: [
      ...(policy === 'Retain' ? markVolumes(snapshot) : []),
      ...ending.map(
        ({ instance, name }): Action => ({
          do: 'delete',
          resource: resources.pgInstances,
          ref: { namespace: cluster.metadata.namespace, name },
          uid: instance.metadata.uid,
          because: 'the PgCluster is being deleted',
        }),
      ),
    ],
    status: deletingStatus(snapshot, deleting),
    requeueAfterMs: primaryToo ? undefined : Math.max(1_000, standbysFirstMs - since),
  };
}

/** Writes on each volume what is known about it, for people who may have to choose one if etcd loses its state. */
function markVolumes(snapshot: ClusterSnapshot): Action[] {
  if (!snapshot.etcd.known) return [];
  const { view } = snapshot.etcd.value;
  return volumesOf(snapshot).flatMap(({ instance, claim }): Action[] => {
    const says = view.members.get(instance)?.value;
    if (says === undefined) return [];
    const lsn = positionOf(says);
    const text = JSON.stringify({
      dataId: says.dataId,
      timeline: says.timeline,
      ...(lsn === undefined ? {} : { lsn }),
      role: says.role,
      ...(says.promotedTerm === undefined ? {} : { term: says.promotedTerm }),
    });
    if (claim.metadata.annotations?.[operatorAnnotation.lastSeen] === text) return [];
    return [
      {
        do: 'annotate',
        resource: resources.persistentVolumeClaims,
        ref: claim.metadata,
        annotations: { [operatorAnnotation.lastSeen]: text },
        because: 'it is kept, and this is how far its data go',
      },
    ];
  });
}

/** The policy of the spec as it is now, even when the rest of it is refused; when in doubt nothing is destroyed. */
function deletionPolicy({ cluster }: ClusterSnapshot): 'Retain' | 'Delete' {
  const policy = PgClusterSpec.shape.deletionPolicy;
  const given = (spec: unknown) =>
    typeof spec === 'object' && spec !== null && 'deletionPolicy' in spec
      ? policy.safeParse(spec.deletionPolicy).data
      : undefined;
  return given(cluster.spec) ?? 'Retain';
}
