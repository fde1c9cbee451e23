import { type Condition, type NewCondition, setCondition } from '../../api/conditions.ts';
import { type InstanceState, lagClass, lagClasses, type PgInstanceStatus } from '../../api/pginstance.ts';
import type { MemberValue } from '../../dcs/index.ts';
import type { Pod } from '../../kube/index.ts';
import { operatorAnnotation } from '../annotations.ts';
import { isPodReady } from '../cluster/members.ts';
import { isGrown } from './desired/claims.ts';
import { failureTime, initRetryMs } from './init-outcome.ts';
import { initProblem, type Problem, waitingProblem } from './pod-problems.ts';
import type { InstanceSnapshot, NodeFacts } from './snapshot.ts';

/** A lag that has grown is written at most this often, ms. */
const lagEveryMs = 10_000;
/** While an instance does not work it is looked at this often, ms: no event tells that a node is away. */
const unwellMs = 10_000;

const states: Readonly<Record<MemberValue['state'], InstanceState>> = {
  starting: 'Starting',
  running: 'Running',
  streaming: 'Streaming',
  'catching-up': 'Running',
  rewinding: 'Rewinding',
  cloning: 'Cloning',
  stopped: 'Stopped',
  fenced: 'Stopped',
  waiting: 'Starting',
};

/** What is true about an instance, and when to look again. */
export function statusOf(snapshot: InstanceSnapshot): {
  readonly status: PgInstanceStatus;
  readonly requeueAfterMs: number | undefined;
} {
  const { instance, pod, etcd, claims, now } = snapshot;
  const before = instance.status ?? {};
  const view = etcd.known ? etcd.value : undefined;
  const { name } = instance.metadata;
  const says = view?.members.get(name)?.value;
  const isLeader = view?.leader?.value.instance === name && view.leader.value.phase === 'leading';
  const ready = readyCondition(snapshot, isLeader, says);
  const { lag, waitMs } = lagOf(snapshot, isLeader, says);
  const node =
    pod?.spec?.nodeName ?? claims.data?.metadata.annotations?.['volume.kubernetes.io/selected-node'];
  const conditions = [ready, volumesCondition(snapshot)].flatMap((each) => each ?? []);
  const status: PgInstanceStatus = {
    ...before,
    observedGeneration: instance.metadata.generation ?? 0,
    state: stateOf(snapshot, says),
    conditions: conditions.reduce<readonly Condition[]>(
      (list, condition) => setCondition(list, generation(condition, instance.metadata.generation), now),
      before.conditions ?? [],
    ) as Condition[],
  };
  if (node !== undefined) status.node = node;
  const away = nodeAwaySince(snapshot);
  if (away === undefined) delete status.waitingForNodeSince;
  else status.waitingForNodeSince = away;
  if (pod?.metadata.uid !== undefined) status.podUid = pod.metadata.uid;
  if (view !== undefined) {
    status.role = isLeader ? 'primary' : says === undefined || says.role === 'none' ? '' : 'standby';
    status.sync =
      status.role !== 'standby'
        ? ''
        : view.sync?.value.names.some((each) => each.instance === name) === true
          ? 'sync'
          : 'async';
    status.lag = lag;
  }
  if (says !== undefined) {
    status.dataId = says.dataId;
    if (says.timeline !== undefined) status.timeline = says.timeline;
  }
  const unwell = ready.status === 'True' ? undefined : unwellMs;
  const waits = [unwell, waitMs, retryWait(snapshot)].filter((each) => each !== undefined);
  return { status, requeueAfterMs: waits.length === 0 ? undefined : Math.min(...waits) };
}

/**
 * Since when the node that the instance is tied to has been away without a break, as far as it was looked at: the status
 * keeps it over restarts of the operator, and a node that was ready in between begins anew.
 */
function nodeAwaySince({ instance, node, pod, now }: InstanceSnapshot): string | undefined {
  if (node === undefined || node.state === 'ready' || (pod !== undefined && isPodReady(pod)))
    return undefined;
  const before = instance.status?.waitingForNodeSince;
  const seen = before === undefined ? now.getTime() : Date.parse(before);
  return new Date(Math.min(now.getTime(), Math.max(seen, node.since ?? seen)))
    .toISOString()
    .replace(/\.\d+Z$/, 'Z');
}

/** Whether the volume has no data yet and no pod of the instance uses it. */
const isFilling = ({ claims, statefulSet }: InstanceSnapshot): boolean =>
  statefulSet === undefined &&
  claims.data?.metadata.annotations?.[operatorAnnotation.initialized] === undefined;

const generation = (condition: NewCondition, observed: number | undefined): NewCondition => ({
  ...condition,
  message: condition.message.slice(0, 4096),
  ...(observed === undefined ? {} : { observedGeneration: observed }),
});

function stateOf(snapshot: InstanceSnapshot, says: MemberValue | undefined): InstanceState {
  const { claims, job, pod, etcd, instance } = snapshot;
  if (claims.data === undefined) return 'Pending';
  if (isFilling(snapshot)) {
    if (job === undefined) return 'Provisioning';
    return instance.spec.initMode === 'clone' ? 'Cloning' : 'Initializing';
  }
  if (pod === undefined) return 'Pending';
  if (pod.spec?.nodeName === undefined) return 'Pending';
  if (pod.metadata.deletionTimestamp !== undefined) return 'Stopped';
  if (pod.status?.phase !== 'Running') return 'Starting';
  if (says !== undefined && says.podUid === pod.metadata.uid) return states[says.state];
  if (!etcd.known) return isPodReady(pod) ? 'Running' : 'Unreachable';
  return isPodReady(pod) ? 'Unreachable' : 'Starting';
}

function lagOf(
  snapshot: InstanceSnapshot,
  isLeader: boolean,
  says: MemberValue | undefined,
): { readonly lag: string; readonly waitMs: number | undefined } {
  const before = snapshot.instance.status?.lag;
  const lag = isLeader ? '' : lagClass(says?.lagBytes);
  const rank = (each: string) => (lagClasses as readonly string[]).indexOf(each);
  const urgent = before === undefined || isLeader || rank(lag) < rank(before);
  if (urgent || lag === before) return { lag, waitMs: undefined };
  const ago = snapshot.lagChangedMsAgo ?? lagEveryMs;
  return ago >= lagEveryMs ? { lag, waitMs: undefined } : { lag: before, waitMs: lagEveryMs - ago };
}

function retryWait({ job, now }: InstanceSnapshot): number | undefined {
  const failedAt = job === undefined ? undefined : failureTime(job);
  return failedAt === undefined ? undefined : Math.max(1_000, failedAt + initRetryMs - now.getTime());
}

function readyCondition(
  snapshot: InstanceSnapshot,
  isLeader: boolean,
  says: MemberValue | undefined,
): NewCondition {
  const { pod } = snapshot;
  if (pod !== undefined && isPodReady(pod)) {
    const role = isLeader ? 'primary' : 'standby';
    return {
      type: 'Ready',
      status: 'True',
      reason: 'InstanceReady',
      message: says === undefined ? 'Postgres answers' : `Postgres answers as ${role}`,
    };
  }
  const { reason, message } = problemOf(snapshot, says);
  return { type: 'Ready', status: 'False', reason, message };
}

function problemOf(snapshot: InstanceSnapshot, says: MemberValue | undefined): Problem {
  const { claims, job, pod, initPods, etcd, node, failure, instance } = snapshot;
  if (failure !== undefined && failure.reason === 'name-taken') {
    return {
      reason: 'NameTaken',
      message: `${failure.object} exists and is not Koschei's: rename or remove it`,
    };
  }
  if (failure !== undefined && /exceeded quota|denied the request/.test(failure.message)) {
    return { reason: 'QuotaExceeded', message: `${failure.object}: ${failure.message}` };
  }
  if (failure !== undefined && !failure.object.startsWith('PersistentVolumeClaim/')) {
    return {
      reason: failure.reason === 'forbidden' ? 'Forbidden' : 'KubernetesApiError',
      message: `${failure.object}: ${failure.message}`,
    };
  }
  if (claims.data?.status?.phase === 'Lost') {
    return { reason: 'VolumeLost', message: `The volume of ${claims.data.metadata.name} is lost` };
  }
  if (isFilling(snapshot)) {
    const waiting = initPods
      .map((each) => waitingProblem(each, isTiedTo(each, node) ? node : undefined))
      .find((each) => each !== undefined);
    if (waiting !== undefined) return waiting;
    const failed = job === undefined ? undefined : failureTime(job);
    const why = initProblem(initPods);
    if (failed !== undefined) {
      const next = new Date(failed + initRetryMs).toISOString().replace(/\.\d+Z$/, 'Z');
      return {
        reason: why?.reason ?? 'InitFailed',
        message: `The volume could not be filled; it is tried again at ${next}. ${why?.message ?? 'The log of the Job says why'}`,
      };
    }
    if (why !== undefined) return { reason: why.reason, message: `${why.message}. It is being tried again` };
    if (!etcd.known) return { reason: etcd.reason, message: etcd.message };
    return instance.spec.initMode === 'clone' && job !== undefined
      ? { reason: 'Cloning', message: 'The volume gets a copy of the primary' }
      : { reason: 'Creating', message: 'The volume is being prepared' };
  }
  if (pod === undefined) {
    return { reason: 'Creating', message: 'The pod is being created' };
  }
  const waiting = waitingProblem(pod, node);
  if (waiting !== undefined) return waiting;
  if (pod.metadata.deletionTimestamp !== undefined) {
    return { reason: 'Restarting', message: 'The pod is being stopped' };
  }
  if (says !== undefined && says.podUid !== pod.metadata.uid) {
    return { reason: 'Restarting', message: 'The containers are starting' };
  }
  if (says?.problem !== undefined) {
    const { reason: what } = says.problem;
    if (what === 'DiskFull' || what === 'DiskStalled') return { reason: what, message: says.problem.message };
    const reason = what.startsWith('WaitingFor') ? 'Restarting' : 'PostgresNotRunning';
    return { reason, message: `${says.problem.reason}: ${says.problem.message}` };
  }
  if (says === undefined) {
    return pod.status?.phase === 'Running'
      ? { reason: 'InstanceUnreachable', message: 'The agent has not been heard of' }
      : { reason: 'Creating', message: 'The containers are starting' };
  }
  return { reason: underWay[says.state] ?? 'PostgresNotRunning', message: `Postgres is ${says.state}` };
}

/** Whether a pod is on that node, or on none yet. */
const isTiedTo = ({ spec }: Pod, node: NodeFacts | undefined): boolean =>
  spec?.nodeName === undefined || spec.nodeName === node?.name;

/** What an instance goes through on its way back to work. */
const underWay: Partial<Record<MemberValue['state'], Problem['reason']>> = {
  starting: 'Restarting',
  running: 'Restarting',
  streaming: 'Restarting',
  'catching-up': 'Restarting',
  rewinding: 'Rewinding',
  cloning: 'Cloning',
};

function volumesCondition({ claims, failure }: InstanceSnapshot): NewCondition | undefined {
  const present = [claims.data, claims.wal].filter((claim) => claim !== undefined);
  if (present.length === 0) return undefined;
  const type = 'VolumesBound';
  if (failure?.object.startsWith('PersistentVolumeClaim/') === true) {
    return {
      type,
      status: 'False',
      reason:
        failure.reason === 'forbidden' || failure.reason === 'invalid'
          ? 'ResizeRefused'
          : 'KubernetesApiError',
      message: `${failure.object} cannot be changed: ${failure.message}. The present size stays in use`,
    };
  }
  const lost = present.find((claim) => claim.status?.phase === 'Lost');
  if (lost !== undefined) {
    return {
      type,
      status: 'False',
      reason: 'VolumeLost',
      message: `${lost.metadata.name} has lost its volume`,
    };
  }
  const unbound = present.find((claim) => claim.status?.phase !== 'Bound');
  if (unbound !== undefined) {
    return {
      type,
      status: 'False',
      reason: 'VolumeNotBound',
      message: `${unbound.metadata.name} is not bound: ${unbound.spec?.storageClassName === undefined ? 'there is no default StorageClass; name one in spec.storage.storageClassName' : `the StorageClass ${unbound.spec.storageClassName} has not provided it yet`}`,
    };
  }
  const growing = present.find((claim) => !isGrown(claim));
  if (growing !== undefined) {
    return {
      type,
      status: 'False',
      reason: 'Resizing',
      message: `${growing.metadata.name} grows to ${growing.spec?.resources?.requests?.storage}`,
    };
  }
  return { type, status: 'True', reason: 'AllBound', message: 'Every volume is bound' };
}
