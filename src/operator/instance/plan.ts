import type { PgInstanceStatus } from '../../api/pginstance.ts';
import { isSubset, type Job, type KubeObject, resources } from '../../kube/index.ts';
import { type Action, applied } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { isPodReady } from '../cluster/members.ts';
import { desiredClaims } from './desired/claims.ts';
import { type InitMode, initJob } from './desired/init-job.ts';
import { isOfOtherVersion, statefulSet } from './desired/stateful-set.ts';
import { failureTime, hasSucceeded, initRetryMs } from './init-outcome.ts';
import { waitingProblem } from './pod-problems.ts';
import type { InstanceSnapshot } from './snapshot.ts';
import { statusOf } from './status.ts';

export interface InstancePlan {
  readonly actions: readonly Action[];
  /** Undefined: leave the status as it is. */
  readonly status: PgInstanceStatus | undefined;
  /** Look again after this long, ms, though nothing may have changed. */
  readonly requeueAfterMs?: number | undefined;
}

/** Volume, then init Job until the volume is filled, then the StatefulSet. Pure. */
export function planInstance(snapshot: InstanceSnapshot): InstancePlan {
  const { instance } = snapshot;
  // What belongs to it goes by itself; its volumes stay.
  if (instance.metadata.deletionTimestamp !== undefined) return { actions: [], status: undefined };
  const { status, requeueAfterMs } = statusOf(snapshot);
  return { actions: [...steps(snapshot)], status, requeueAfterMs };
}

function steps(snapshot: InstanceSnapshot): Action[] {
  const { claims, now } = snapshot;
  const marked = claims.data?.metadata.annotations?.[operatorAnnotation.initialized];
  const filled = marked ?? (isFilled(snapshot) ? now.toISOString() : undefined);
  const wanted = desiredClaims(snapshot.instance, claims, { initialized: filled });
  const present = [claims.data, claims.wal];
  // A missing volume comes before what mounts it; a change that the API may refuse must hold up nothing else.
  const [missing, changed]: [Action[], Action[]] = [[], []];
  for (const object of wanted) {
    const found = present.find((each) => each?.metadata.name === object.metadata.name);
    if (found === undefined) missing.push({ do: 'apply', object, because: 'the instance has no volume yet' });
    // The server fills in the class: what was applied last says nothing about what is to change.
    else if (!isSubset(object, found)) {
      changed.push({ do: 'apply', object, because: 'the volume was filled, or is to grow' });
    }
  }
  const begun = marked !== undefined || snapshot.statefulSet !== undefined;
  return [...missing, ...(begun ? running(snapshot) : filling(snapshot)), ...changed];
}

/**
 * Whether the volume holds data. One that was lost and made anew under a running instance has no init Job, which would
 * meet the instance's own pod on the volume: the agent of that pod clones, and being ready proves that it has.
 */
function isFilled({ job, pod, statefulSet: set }: InstanceSnapshot): boolean {
  return (
    (job !== undefined && hasSucceeded(job)) || (set !== undefined && pod !== undefined && isPodReady(pod))
  );
}

function running(snapshot: InstanceSnapshot): Action[] {
  const { instance, job, statefulSet: found, apis } = snapshot;
  const set = statefulSet(instance, apis.endpointSlice, found);
  return [
    ...(job === undefined ? [] : [remove(job, 'the volume is filled')]),
    ...(isOfOtherVersion(set, found)
      ? []
      : applied(
          set,
          found,
          found === undefined ? 'the volume is filled' : 'the spec of the instance has changed',
        )),
  ];
}

function filling(snapshot: InstanceSnapshot): Action[] {
  const { instance, job, apis, now, initPods } = snapshot;
  const mode = initMode(snapshot);
  const wanted = mode === undefined ? undefined : initJob(instance, mode, apis.endpointSlice);
  if (job === undefined) {
    if (wanted === undefined) return [];
    return [
      {
        do: 'create',
        object: wanted,
        because:
          mode === 'initdb' ? 'the volume gets a new database' : 'the volume gets a copy of the primary',
      },
    ];
  }
  if (job.metadata.deletionTimestamp !== undefined || hasSucceeded(job)) return [];
  const template = (each: KubeObject | undefined) =>
    each?.metadata.annotations?.[operatorAnnotation.template];
  const changed = wanted !== undefined && template(wanted) !== template(job);
  const failedAt = failureTime(job);
  if (failedAt !== undefined) {
    if (changed) return [remove(job, 'it failed, and the spec has changed since')];
    return now.getTime() - failedAt >= initRetryMs ? [remove(job, 'it failed and is tried again')] : [];
  }
  const stuck = initPods.some((pod) => waitingProblem(pod, undefined) !== undefined);
  return changed && stuck ? [remove(job, 'its pod cannot start, and the spec has changed')] : [];
}

/**
 * How to fill the volume; undefined: not known yet. A new database is made once in the life of a cluster: by its first
 * instance, before etcd knows of any.
 */
export function initMode(snapshot: InstanceSnapshot): InitMode | undefined {
  const { instance, etcd, clusterHasLived } = snapshot;
  if (!etcd.known) return undefined;
  const begun = etcd.value.initialize !== undefined || etcd.value.leader !== undefined;
  if (instance.spec.initMode === 'clone' || begun) return 'clone';
  return clusterHasLived ? undefined : 'initdb';
}

const remove = (job: Job, because: string): Action => ({
  do: 'delete',
  resource: resources.jobs,
  ref: job.metadata,
  uid: job.metadata.uid ?? '',
  because,
});
