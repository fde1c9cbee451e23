import { randomBytes, randomInt } from 'node:crypto';
import { caKey, caSecretName, clusterSelector, finalizer, walClaimName } from '../../api/names.ts';
import { type PgClusterStatus, UnreadPgCluster } from '../../api/pgcluster.ts';
import { PgInstance } from '../../api/pginstance.ts';
import { acceptedSpec, readSpec } from '../../api/refusals.ts';
import {
  atVersion,
  type ChosenApis,
  type Clock,
  type EventRecorder,
  isInvalid,
  type KubeClient,
  type KubeObject,
  type ObjectKey,
  OutdatedError,
  type Reconcile,
  type ReconcileContext,
  resources,
} from '../../kube/index.ts';
import type { Logger } from '../../log/logger.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../../tls/certificates.ts';
import { type Action, actionKey, isDangerous, type Observed } from '../action.ts';
import type { Caches } from '../caches.ts';
import type { EtcdAccess, Tenant } from '../etcd/access.ts';
import { authorityDays, certificateDays, tlsData } from '../etcd/managed.ts';
import { eventOfAction, eventsOfChange, failureNews } from '../events.ts';
import { ActionError, executeOnKube, judgeError, type Outcome, subjectOf } from '../execute.ts';
import { failureOf } from '../failure.ts';
import type { Failure } from '../instance/snapshot.ts';
import { mergePatchOf } from '../status-patch.ts';
import { authorityData, authorityNotice, read } from './desired/secrets.ts';
import { type Fleet, isNodeReady, type Reach, reachOf } from './fleet.ts';
import { membersOf } from './members.ts';
import { clusterIdOf, planCluster, restartMemory } from './plan.ts';
import { needsFleet } from './replacement.ts';
import { type ClusterSnapshot, type EtcdFacts, type Installation, secretOf, sliceOf } from './snapshot.ts';
import { failedRequest } from './status.ts';
import { staleEndpoints, withoutStale } from './traffic.ts';
import { NodeZones, nodesOf } from './zones.ts';

export interface ClusterControllerOptions {
  readonly client: KubeClient;
  readonly caches: Caches;
  readonly etcd: EtcdAccess;
  readonly events: EventRecorder;
  readonly apis: ChosenApis;
  readonly installation: Installation;
  readonly clock: Clock;
}

interface Remembered {
  requested: { readonly at: number; readonly term: number | undefined } | undefined;
  staleSince: number | undefined;
  failure: Failure | undefined;
  /** Passes in a row that met something newer than what they had read. */
  conflicts: number;
  /** Revision of the request whose failure people were told last. */
  toldFailure: string | undefined;
  /** When the end of the cluster's authority was looked at. */
  authorityAt: number | undefined;
  readonly restarts: Map<string, number>;
}

/** Reconciles PgClusters: observe, plan, execute, write the status. */
export function clusterReconciler(options: ClusterControllerOptions): Reconcile {
  const { caches, etcd, clock } = options;
  const memories = new Map<string, Remembered>();
  const zones = new NodeZones(options.client, clock);
  return async (key, context) => {
    const name = `${key.namespace}/${key.name}`;
    const object = caches.clusters.store.get(name);
    if (object === undefined) {
      memories.delete(name);
      etcd.untrack(name);
      return {};
    }
    const memory = memories.get(name) ?? {
      requested: undefined,
      staleSince: undefined,
      failure: undefined,
      conflicts: 0,
      toldFailure: undefined,
      authorityAt: undefined,
      restarts: new Map(),
    };
    memories.set(name, memory);
    return await new Pass({ ...options, zones }, context, key, memory, clock).run(object);
  };
}

type PassOptions = ClusterControllerOptions & { readonly zones: NodeZones };

/** One reconcile of one cluster. */
class Pass {
  readonly #o: PassOptions;
  readonly #context: ReconcileContext;
  readonly #key: ObjectKey;
  readonly #memory: Remembered;
  readonly #clock: Clock;
  readonly #log: Logger;
  #zones: ReadonlyMap<string, string> = new Map();

  constructor(
    options: PassOptions,
    context: ReconcileContext,
    key: ObjectKey,
    memory: Remembered,
    clock: Clock,
  ) {
    this.#o = options;
    this.#context = context;
    this.#key = key;
    this.#memory = memory;
    this.#clock = clock;
    this.#log = context.log;
  }

  async run(object: KubeObject): Promise<{ requeueAfterMs?: number | undefined }> {
    const cluster = UnreadPgCluster.parse(object);
    const pods = this.#o.caches.podsOf(`${this.#key.namespace}/${this.#key.name}`);
    this.#zones = await this.#o.zones.of(nodesOf(pods), this.#log, this.#context.signal);
    const tenant = tenantOf(this.#snapshot(cluster, unasked));
    const etcd = tenant === undefined ? unasked : await this.#o.etcd.observe(tenant);
    const fleet = await this.#fleet(cluster);
    const snapshot = { ...this.#snapshot(cluster, etcd), fleet };
    this.#noteTraffic(snapshot);
    this.#noteAuthority(object, snapshot);
    const plan = planCluster({ ...snapshot, memory: this.#remembered() });
    let confirmed: ReadonlySet<string> | undefined;
    let status = plan.status;
    let failed: unknown;
    try {
      for (const action of plan.actions) {
        if (isDangerous(action)) {
          confirmed ??= await this.#lookAgain(cluster, tenant);
          if (!confirmed.has(actionKey(action))) {
            this.#log.info({ action: actionKey(action) }, 'not done: a second look at etcd says otherwise');
            throw outdated(action, 'what etcd said a moment ago');
          }
        }
        if ((await this.#execute(action, snapshot, tenant)) === 'conflict')
          throw outdated(action, 'what was read a moment ago');
      }
      this.#memory.conflicts = 0;
      this.#memory.failure = undefined;
    } catch (error) {
      const judged = judgeError(error, this.#memory.conflicts);
      this.#memory.conflicts = judged.conflicts;
      if (judged.failure === undefined) throw causeOf(error);
      failed = judged.failure;
      const failure = failureOf(judged.failure);
      this.#memory.failure = failure;
      status = planCluster({ ...snapshot, failure }).status;
    }
    if (status !== undefined) await this.#writeStatus(object, cluster, status);
    this.#tellFailedRequest(object, snapshot);
    if (failed !== undefined) throw failed;
    return { requeueAfterMs: plan.requeueAfterMs };
  }

  #snapshot(cluster: UnreadPgCluster, etcd: Observed<EtcdFacts>): ClusterSnapshot {
    const { caches, apis, installation } = this.#o;
    const key = `${this.#key.namespace}/${this.#key.name}`;
    const authority = this.#o.etcd.authority;
    return {
      now: new Date(this.#clock.now()),
      cluster,
      // One that cannot be read fails the pass: it must not pass for one that is not there.
      instances: caches.instancesOf(key).map((object) => PgInstance.parse(object)),
      claims: caches.claimsOf(key),
      pods: caches.podsOf(key),
      zones: this.#zones,
      statefulSets: caches.statefulSetsOf(key),
      objects: caches.objectsOf(key),
      etcd,
      etcdAuthority: authority?.cert,
      apis,
      installation,
      memory: this.#remembered(),
      random: {
        clusterId: randomText(16),
        password: randomText(32),
        salt: randomBytes(16).toString('hex'),
        requestId: randomBytes(8).toString('hex'),
      },
      failure: this.#memory.failure,
    };
  }

  /** Asked only while an instance may have to be replaced: neither nodes nor their volumes are watched. */
  async #fleet(cluster: UnreadPgCluster): Promise<Observed<Fleet> | undefined> {
    const { client, caches } = this.#o;
    const { signal } = this.#context;
    const after = specInForce(cluster.status, cluster.spec)?.failover.replaceLostInstanceAfter;
    if (after === undefined) return undefined;
    const members = membersOf(this.#snapshot(cluster, unasked));
    const lost = needsFleet(members, after, new Date(this.#clock.now()));
    if (lost.length === 0) return undefined;
    const claims = caches
      .claimsOf(`${this.#key.namespace}/${this.#key.name}`)
      .filter(({ metadata }) => lost.some(({ name }) => [name, walClaimName(name)].includes(metadata.name)));
    try {
      const { items: nodes } = await client.list(resources.nodes, { signal });
      const reach = new Map<string, Reach>();
      for (const { metadata, spec } of claims) {
        if (spec?.volumeName === undefined) continue;
        const volume = await client.find(resources.persistentVolumes, { name: spec.volumeName }, { signal });
        if (volume !== undefined) reach.set(metadata.name, reachOf(volume, nodes));
      }
      const ready = nodes.filter(isNodeReady).length;
      return { known: true, value: { nodes: { total: nodes.length, ready }, reach } };
    } catch (error) {
      const message = `nodes and volumes cannot be read: ${error instanceof Error ? error.message : String(error)}`;
      this.#log.warn({ err: error }, message);
      return { known: false, reason: 'Unknown', message };
    }
  }

  #remembered(): ClusterSnapshot['memory'] {
    const { requested, staleSince, restarts } = this.#memory;
    const now = this.#clock.monotonic();
    return {
      requested: requested === undefined ? undefined : { msAgo: now - requested.at, term: requested.term },
      staleForMs: staleSince === undefined ? undefined : now - staleSince,
      restarts,
    };
  }

  #noteTraffic(snapshot: ClusterSnapshot): void {
    const slice = sliceOf(snapshot);
    const leader = snapshot.etcd.known ? snapshot.etcd.value.view.leader?.value : undefined;
    const stale = slice !== undefined && staleEndpoints(slice, snapshot.pods, leader).length > 0;
    this.#memory.staleSince = stale ? (this.#memory.staleSince ?? this.#clock.monotonic()) : undefined;
  }

  /** Once a day. */
  #noteAuthority(object: KubeObject, snapshot: ClusterSnapshot): void {
    const { authorityAt } = this.#memory;
    const now = this.#clock.monotonic();
    const certificate = clusterAuthority(snapshot)?.cert;
    if (certificate === undefined || (authorityAt !== undefined && now - authorityAt < dayMs)) return;
    this.#memory.authorityAt = now;
    const message = authorityNotice(certificate, caSecretName(this.#key.name), snapshot.now);
    if (message === undefined) return;
    this.#log.warn(message);
    this.#o.events.record(object, { type: 'Warning', reason: 'AuthorityExpiring', message });
  }

  /** The actions of a plan made from a linearizable read of etcd. */
  async #lookAgain(cluster: UnreadPgCluster, tenant: Tenant | undefined): Promise<ReadonlySet<string>> {
    const etcd = tenant === undefined ? unasked : await this.#o.etcd.look(tenant);
    const fleet = await this.#fleet(cluster);
    return new Set(planCluster({ ...this.#snapshot(cluster, etcd), fleet }).actions.map(actionKey));
  }

  async #execute(action: Action, snapshot: ClusterSnapshot, tenant: Tenant | undefined): Promise<Outcome> {
    const { because } = action;
    this.#log.info({ action: actionKey(action), because }, 'acting');
    let outcome: Outcome;
    try {
      outcome = await this.#perform(action, snapshot, tenant);
    } catch (error) {
      throw new ActionError(subjectOf(action), error);
    }
    const note = eventOfAction(action);
    if (outcome === 'done' && note !== undefined) this.#o.events.record(snapshot.cluster as KubeObject, note);
    return outcome;
  }

  async #perform(action: Action, snapshot: ClusterSnapshot, tenant: Tenant | undefined): Promise<Outcome> {
    const { client, etcd } = this.#o;
    const { signal } = this.#context;
    const { now } = snapshot;
    const { because } = action;
    switch (action.do) {
      case 'apply':
      case 'create':
      case 'annotate':
      case 'delete':
        return await executeOnKube(client, action, cachedObject(snapshot, action), signal);
      case 'create-authority': {
        const pair = await createAuthority({ commonName: action.commonName, validDays: authorityDays, now });
        const object = { ...action.secret, data: authorityData(pair) };
        return await executeOnKube(client, { do: 'create', object, because }, undefined, signal);
      }
      case 'issue': {
        const authority = action.order.authority === 'etcd' ? etcd.authority : clusterAuthority(snapshot);
        if (authority === undefined) return 'conflict';
        const pair = await issueCertificate({ ...action.order, authority, validDays: certificateDays, now });
        const object = { ...action.secret, data: tlsData(pair, authority.cert) };
        const found = secretOf(snapshot, object.metadata.name);
        return await executeOnKube(client, { do: 'apply', object, because }, found, signal);
      }
      case 'clear-slice':
        return await this.#clearSlice(action.ref, snapshot, tenant);
      case 'add-finalizer':
      case 'remove-finalizer':
        return await this.#changeFinalizer(snapshot, action.do === 'add-finalizer');
      case 'grant-etcd':
        await etcd.grant(must(tenant));
        return 'done';
      case 'forget-etcd':
        await etcd.forget(must(tenant));
        return 'done';
      case 'clear-state':
        await etcd.clear(must(tenant));
        return 'done';
      case 'write-config': {
        const { value, expect } = action;
        const put = await etcd.write(must(tenant), (keys) => ({
          key: keys.config,
          value: JSON.stringify(value),
          expect,
        }));
        return put.succeeded ? 'done' : 'conflict';
      }
      case 'request': {
        const put = await etcd.write(must(tenant), (keys) => ({
          key: keys.request,
          value: JSON.stringify(action.value),
          expect: action.replaces ?? '0',
        }));
        const term = snapshot.etcd.known ? snapshot.etcd.value.view.leader?.value.term : undefined;
        if (put.succeeded) this.#memory.requested = { at: this.#clock.monotonic(), term };
        return put.succeeded ? 'done' : 'conflict';
      }
      case 'command': {
        const put = await etcd.write(must(tenant), (keys) => ({
          key: keys.command(action.instance),
          value: JSON.stringify(action.value),
          expect: '0',
        }));
        if (!put.succeeded) return 'conflict';
        if (action.value.do !== 'restart') return 'done';
        const { restarts } = this.#memory;
        const key = restartMemory(snapshot, action.instance);
        restarts.set(key, (restarts.get(key) ?? 0) + 1);
        return 'done';
      }
    }
  }

  #tellFailedRequest(object: KubeObject, snapshot: ClusterSnapshot): void {
    const failed = failedRequest(membersOf(snapshot));
    if (failed === undefined) return;
    const note = failureNews(failed, this.#memory.toldFailure, snapshot.cluster.status?.conditions);
    this.#memory.toldFailure = failed.revision;
    if (note !== undefined) this.#o.events.record(object, note);
  }

  /** By what the API and etcd say now: caches may be behind the leader that just wrote itself into the slice. */
  async #clearSlice(
    ref: { namespace?: string | undefined; name: string },
    snapshot: ClusterSnapshot,
    tenant: Tenant | undefined,
  ): Promise<Outcome> {
    const { client, apis, etcd } = this.#o;
    const { signal } = this.#context;
    const resource = atVersion(resources.endpointSlices, apis.endpointSlice);
    const slice = await client.find(resource, ref, { signal });
    const pods = await client.list(resources.pods, {
      namespace: ref.namespace,
      labelSelector: clusterSelector(snapshot.cluster.metadata.name),
      signal,
    });
    const facts = tenant === undefined ? unasked : await etcd.look(tenant);
    const leader = facts.known ? facts.value.view.leader?.value : undefined;
    const cleared = slice === undefined ? undefined : withoutStale(slice, pods.items, leader);
    if (cleared === undefined) return 'done';
    await client.update(resource, cleared, { signal });
    return 'done';
  }

  async #changeFinalizer({ cluster }: ClusterSnapshot, add: boolean): Promise<Outcome> {
    const { client } = this.#o;
    const present = cluster.metadata.finalizers ?? [];
    const at = present.indexOf(finalizer);
    if (add === at >= 0) return 'done';
    const list = '/metadata/finalizers';
    const patch = add
      ? present.length === 0
        ? [{ op: 'add' as const, path: list, value: [finalizer] }]
        : [{ op: 'add' as const, path: `${list}/-`, value: finalizer }]
      : [
          { op: 'test' as const, path: `${list}/${at}`, value: finalizer },
          { op: 'remove' as const, path: `${list}/${at}` },
        ];
    const guard = {
      op: 'test' as const,
      path: '/metadata/resourceVersion',
      value: cluster.metadata.resourceVersion,
    };
    try {
      await client.jsonPatch(resources.pgClusters, cluster.metadata, [guard, ...patch], {
        signal: this.#context.signal,
      });
      return 'done';
    } catch (error) {
      if (isInvalid(error)) return 'conflict';
      throw error;
    }
  }

  async #writeStatus(object: KubeObject, cluster: UnreadPgCluster, status: PgClusterStatus): Promise<void> {
    const before = Reflect.get(object, 'status') ?? {};
    const patch = mergePatchOf(before, status);
    if (patch === undefined) return;
    const { metadata } = cluster;
    await this.#o.client.patchStatus(resources.pgClusters, metadata, patch as object, {
      signal: this.#context.signal,
      ...(metadata.resourceVersion === undefined ? {} : { resourceVersion: metadata.resourceVersion }),
    });
    for (const note of eventsOfChange(cluster.status ?? {}, status)) this.#o.events.record(object, note);
  }
}

const unasked: Observed<EtcdFacts> = {
  known: false,
  reason: 'Unknown',
  message: 'etcd has not been asked about this cluster yet',
};

/** The cluster as etcd knows it; undefined while it has no id. */
export function tenantOf(snapshot: ClusterSnapshot): Tenant | undefined {
  const { metadata, status, spec } = snapshot.cluster;
  const identity = clusterIdOf(snapshot);
  if (identity.kind !== 'recorded') return undefined;
  const inForce = specInForce(status, spec);
  return {
    namespace: metadata.namespace,
    name: metadata.name,
    clusterId: identity.id,
    etcd: inForce?.etcd,
    ttlMs: (inForce?.failover.ttlSeconds ?? 6) * 1000,
  };
}

function specInForce(status: unknown, spec: unknown) {
  try {
    const accepted = acceptedSpec(status as { acceptedSpec?: unknown } | undefined);
    if (accepted !== undefined) return accepted;
  } catch {
    // Written by another version; judged elsewhere.
  }
  const reading = readSpec(spec);
  return reading.ok ? reading.spec : undefined;
}

function cachedObject(snapshot: ClusterSnapshot, action: Action): KubeObject | undefined {
  if (action.do !== 'apply') return undefined;
  const { kind, metadata } = action.object;
  return kind === 'PgInstance'
    ? (snapshot.instances.find((each) => each.metadata.name === metadata.name) as KubeObject | undefined)
    : snapshot.objects.get(`${kind}/${metadata.name}`);
}

function clusterAuthority(snapshot: ClusterSnapshot): KeyPair | undefined {
  const secret = secretOf(snapshot, caSecretName(snapshot.cluster.metadata.name));
  const [cert, key] = [read(secret, caKey.cert), read(secret, caKey.key)];
  return cert === undefined || key === undefined ? undefined : { cert, key };
}

const outdated = (action: Action, what: string): ActionError =>
  new ActionError(subjectOf(action), new OutdatedError(`expected ${what}, found something newer`));

const dayMs = 86_400_000;
const causeOf = (error: unknown): unknown => (error instanceof ActionError ? error.cause : error);

function must(tenant: Tenant | undefined): Tenant {
  if (tenant === undefined) throw new Error('the cluster has no id yet');
  return tenant;
}

const alphabet = 'abcdefghijklmnopqrstuvwxyz0123456789';
const randomText = (length: number): string =>
  Array.from({ length }, () => alphabet[randomInt(alphabet.length)]).join('');
