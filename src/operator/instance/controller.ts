import { dataClaimName, initJobName, podName, walClaimName } from '../../api/names.ts';
import { PgClusterStatus } from '../../api/pgcluster.ts';
import { PgInstance, type PgInstanceStatus } from '../../api/pginstance.ts';
import {
  type ChosenApis,
  type Clock,
  type EventRecorder,
  type KubeClient,
  type KubeObject,
  type Node,
  OutdatedError,
  type PersistentVolumeClaim,
  type Pod,
  type Reconcile,
  resources,
} from '../../kube/index.ts';
import { actionKey } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import type { Caches } from '../caches.ts';
import { isPodReady } from '../cluster/members.ts';
import type { EtcdAccess } from '../etcd/access.ts';
import { eventOfAction, eventsOfChange } from '../events.ts';
import { ActionError, executeOnKube, judgeError, type KubeAction, subjectOf } from '../execute.ts';
import { failureOf } from '../failure.ts';
import { componentLabel } from '../labels.ts';
import { mergePatchOf } from '../status-patch.ts';
import { planInstance } from './plan.ts';
import type { Failure, InstanceSnapshot, NodeFacts } from './snapshot.ts';

export interface InstanceControllerOptions {
  readonly client: KubeClient;
  readonly caches: Caches;
  readonly etcd: EtcdAccess;
  readonly events: EventRecorder;
  readonly apis: ChosenApis;
  readonly clock: Clock;
}

interface Remembered {
  lagChangedAt: number | undefined;
  failure: Failure | undefined;
  /** Passes in a row that met something newer than what they had read. */
  conflicts: number;
}

/** Reconciles PgInstances: volume, init Job, StatefulSet, status. */
export function instanceReconciler(options: InstanceControllerOptions): Reconcile {
  const { client, caches, events, clock } = options;
  const memories = new Map<string, Remembered>();
  return async (key, { signal, log }) => {
    const name = `${key.namespace}/${key.name}`;
    const object = caches.instances.store.get(name);
    if (object === undefined) {
      memories.delete(name);
      return {};
    }
    const memory = memories.get(name) ?? { lagChangedAt: undefined, failure: undefined, conflicts: 0 };
    memories.set(name, memory);
    const instance = PgInstance.parse(object);
    const snapshot = await observe(options, instance, memory, signal);
    // Right after a start: the cluster's controller is about to ask etcd, and then this is called again.
    if (!snapshot.etcd.known && snapshot.etcd.reason === 'Unknown') return { requeueAfterMs: 1_000 };
    const plan = planInstance(snapshot);
    let { status } = plan;
    let failed: ActionError | undefined;
    for (const action of plan.actions) {
      log.info({ action: actionKey(action), because: action.because }, 'acting');
      try {
        if (action.do === 'create' && (await isInUse(client, instance, signal)))
          throw new OutdatedError(
            'expected an empty volume without a user, as the cache says, found another',
          );
        const outcome = await executeOnKube(
          client,
          action as KubeAction,
          foundObject(snapshot, action as KubeAction),
          signal,
        );
        if (outcome === 'conflict')
          throw new OutdatedError('expected what was read a moment ago, found something newer');
      } catch (cause) {
        const judged = judgeError(new ActionError(subjectOf(action), cause), memory.conflicts);
        memory.conflicts = judged.conflicts;
        if (judged.failure === undefined) throw cause;
        failed = judged.failure;
        break;
      }
      const note = eventOfAction(action);
      if (note !== undefined) events.record(object, note);
    }
    if (failed === undefined) memory.conflicts = 0;
    memory.failure = failed === undefined ? undefined : failureOf(failed);
    if (failed !== undefined) status = planInstance({ ...snapshot, failure: memory.failure }).status;
    if (status !== undefined) {
      if (status.lag !== instance.status?.lag) memory.lagChangedAt = clock.monotonic();
      await writeStatus(options, object, status, signal);
    }
    if (failed !== undefined) throw failed;
    return { requeueAfterMs: plan.requeueAfterMs };
  };
}

/**
 * Whether the volume that an init Job is to fill has data or a user, by what the API says now: a Job must never meet
 * the instance's own pod there.
 */
async function isInUse(client: KubeClient, { metadata }: PgInstance, signal: AbortSignal): Promise<boolean> {
  const { namespace, name } = metadata;
  const [claim, set] = await Promise.all([
    client.find(resources.persistentVolumeClaims, { namespace, name: dataClaimName(name) }, { signal }),
    client.find(resources.statefulSets, { namespace, name }, { signal }),
  ]);
  return set !== undefined || claim?.metadata.annotations?.[operatorAnnotation.initialized] !== undefined;
}

async function observe(
  { client, caches, etcd, apis, clock }: InstanceControllerOptions,
  instance: PgInstance,
  memory: Remembered,
  signal: AbortSignal,
): Promise<InstanceSnapshot> {
  const { namespace, name } = instance.metadata;
  const key = (each: string) => `${namespace}/${each}`;
  const pods = caches.podsOfInstance(key(name));
  const pod = pods.find((each) => each.metadata.name === podName(name));
  const data = caches.claims.store.get(key(dataClaimName(name)));
  const cluster = key(instance.spec.cluster);
  const ready = pod !== undefined && isPodReady(pod);
  const initPods = pods.filter((each) => each.metadata.labels?.[componentLabel] === 'init');
  const tied = tiedNode(instance, pod, initPods, data);
  return {
    now: new Date(clock.now()),
    instance,
    claims: { data, wal: caches.claims.store.get(key(walClaimName(name))) },
    job: caches.jobs.store.get(key(initJobName(name))),
    statefulSet: caches.statefulSets.store.get(key(name)),
    pod,
    initPods,
    etcd: etcd.peek(cluster),
    clusterHasLived: hasLived(caches, instance),
    node:
      ready || tied === undefined
        ? undefined
        : nodeFacts(tied, await client.find(resources.nodes, { name: tied }, { signal })),
    apis,
    lagChangedMsAgo: memory.lagChangedAt === undefined ? undefined : clock.monotonic() - memory.lagChangedAt,
    failure: memory.failure,
  };
}

/** The node that an instance runs on, or can only run on as far as its claim says. */
function tiedNode(
  { status }: PgInstance,
  pod: Pod | undefined,
  initPods: readonly Pod[],
  data: PersistentVolumeClaim | undefined,
): string | undefined {
  const living = initPods.filter((each) => !['Failed', 'Succeeded'].includes(each.status?.phase ?? ''));
  const scheduled = [pod, ...living].find((each) => each?.spec?.nodeName !== undefined)?.spec?.nodeName;
  const selected = data?.metadata.annotations?.['volume.kubernetes.io/selected-node'];
  // A volume that was there before its claim carries no such mark; while it is bound, it is where it was.
  return scheduled ?? selected ?? (data?.status?.phase === 'Bound' ? status?.node : undefined);
}

/** Whether the cluster has ever had a leader, or has data on another volume. */
function hasLived(caches: Caches, instance: PgInstance): boolean {
  const key = `${instance.metadata.namespace}/${instance.spec.cluster}`;
  const cluster = caches.clusters.store.get(key);
  const status = PgClusterStatus.safeParse(
    cluster === undefined ? {} : (Reflect.get(cluster, 'status') ?? {}),
  );
  const filled = caches
    .claimsOf(key)
    .some((claim) => claim.metadata.annotations?.[operatorAnnotation.initialized] !== undefined);
  // A status that cannot be read must not pass for that of a new cluster.
  return filled || !status.success || status.data.term !== undefined;
}

function nodeFacts(name: string, node: Node | undefined): NodeFacts {
  if (node === undefined) return { name, state: 'gone' };
  const ready = node.status?.conditions?.find((each) => each.type === 'Ready');
  if (ready?.status === 'True') return { name, state: 'ready' };
  const since = Date.parse(ready?.lastTransitionTime ?? '');
  return { name, state: 'not-ready', since: Number.isNaN(since) ? undefined : since };
}

function foundObject(snapshot: InstanceSnapshot, action: KubeAction): KubeObject | undefined {
  if (action.do !== 'apply') return undefined;
  const { claims, statefulSet } = snapshot;
  return [claims.data, claims.wal, statefulSet].find(
    (each) => each?.kind === action.object.kind && each.metadata.name === action.object.metadata.name,
  );
}

async function writeStatus(
  { client, events }: InstanceControllerOptions,
  object: KubeObject,
  status: PgInstanceStatus,
  signal: AbortSignal,
): Promise<void> {
  const before = (Reflect.get(object, 'status') ?? {}) as PgInstanceStatus;
  const patch = mergePatchOf(before, status);
  if (patch === undefined) return;
  const { resourceVersion } = object.metadata;
  await client.patchStatus(resources.pgInstances, object.metadata, patch as object, {
    signal,
    ...(resourceVersion === undefined ? {} : { resourceVersion }),
  });
  for (const note of eventsOfChange({ conditions: before.conditions }, { conditions: status.conditions })) {
    events.record(object, note);
  }
}
