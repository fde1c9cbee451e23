import { createHash } from 'node:crypto';
import { clusterLabels, instanceLabels, podName } from '../../api/names.ts';
import type { PgClusterSpecInput, PgClusterStatus, UnreadPgCluster } from '../../api/pgcluster.ts';
import { PgInstance, type PgInstanceSpec } from '../../api/pginstance.ts';
import type {
  ClusterView,
  CommandValue,
  ConfigValue,
  LeaderValue,
  MemberValue,
  RequestValue,
  Stamped,
  SyncValue,
} from '../../dcs/index.ts';
import {
  type ChosenApis,
  deepFreeze,
  type KubeObject,
  type PersistentVolumeClaim,
  type Pod,
  type StatefulSet,
  withAppliedHash,
} from '../../kube/index.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../../tls/certificates.ts';
import type { Action, CertificateOrder, Observed } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { authorityData } from '../cluster/desired/secrets.ts';
import type { Fleet } from '../cluster/fleet.ts';
import { type Plan, planCluster } from '../cluster/plan.ts';
import type { ClusterSnapshot } from '../cluster/snapshot.ts';
import { tlsData } from '../etcd/managed.ts';
import { componentLabel } from '../labels.ts';

const lowest = '100';
/** Settings that need a restart in this model. */
const restartSetting = 'max_connections';

export const now = new Date('2026-01-01T00:00:00Z');

export const apis: ChosenApis = {
  serverVersion: { major: 1, minor: 30, gitVersion: 'v1.30.0' },
  endpointSlice: 'discovery.k8s.io/v1',
  podDisruptionBudget: 'policy/v1',
  hasCelQuantities: true,
  hasUnhealthyPodEvictionPolicy: true,
  hasKoschei: true,
  groupVersions: new Set(),
};

/** Certificates take a while to make: the same ones serve every run. */
const authority: KeyPair = await createAuthority({ commonName: 'test', validDays: 3650, now });
const issued = new Map<string, KeyPair>();

/**
 * A PgCluster and all around it in memory: executes a cluster's plans, and plays the part of the instance controller,
 * of Kubernetes and of the agents. It lives without time: `react` does at once all that would follow by itself.
 */
export class Model {
  cluster: UnreadPgCluster;
  readonly instances = new Map<string, PgInstance>();
  readonly claims = new Map<string, PersistentVolumeClaim>();
  readonly pods = new Map<string, Pod>();
  readonly objects = new Map<string, KubeObject>();
  readonly members = new Map<string, MemberValue>();
  readonly commands = new Map<string, CommandValue>();
  readonly restarts = new Map<string, number>();
  /** What the operator makes new instances of. */
  agentImage = 'koschei:1';
  /** What the primary says of slots that are not Koschei's. */
  slotProblem: MemberValue['slotProblem'];
  /** What the primary says of the last request. */
  refusedRequest: MemberValue['refusedRequest'];
  /** Postgres's setting in force, by instance. */
  readonly inForce = new Map<string, string>();
  time = now;
  /** Zone by node. */
  readonly zones = new Map<string, string>();
  /** Instances whose pods do not get ready. */
  readonly broken = new Set<string>();
  /** Instances whose nodes are lost, with the time since when they have been away; their pods do not get ready. */
  readonly away = new Map<string, Date>();
  /** What the API says of nodes and volumes; undefined: three nodes of which one is lost, and local volumes. */
  fleet: Observed<Fleet> | undefined;
  /** etcd answers, but takes no writes. */
  noSpace = false;
  /** For how long the leader has been silent, ms. */
  leaderSilentMs = 0;
  /** What the next password that is made up will be. */
  newPassword = 'secret';
  initialized = false;
  etcdAnswers = true;
  config: ConfigValue | undefined;
  leader: LeaderValue | undefined;
  sync: SyncValue | undefined;
  request: RequestValue | undefined;
  /** Every executed action, for invariants over the whole run. */
  readonly done: Action[] = [];
  #revision = 1;
  #uids = 0;

  constructor(spec: PgClusterSpecInput | object, name = 'shop') {
    this.cluster = {
      apiVersion: 'koschei.dev/v1',
      kind: 'PgCluster',
      metadata: { name, namespace: 'ns', uid: 'cluster-uid', generation: 1 },
      spec,
    };
  }

  edit(spec: PgClusterSpecInput | object): void {
    const { metadata } = this.cluster;
    this.cluster = {
      ...this.cluster,
      metadata: { ...metadata, generation: (metadata.generation ?? 0) + 1 },
      spec,
    };
  }

  delete(): void {
    const { metadata } = this.cluster;
    this.cluster = { ...this.cluster, metadata: { ...metadata, deletionTimestamp: now.toISOString() } };
  }

  get view(): ClusterView {
    const stamp = <T>(value: T): Stamped<T> => ({ value, revision: String(this.#revision) });
    const stamped = <T>(map: ReadonlyMap<string, T>) =>
      new Map([...map].map(([key, value]) => [key, stamp(value)]));
    return {
      revision: String(this.#revision),
      ...(this.initialized ? { initialize: stamp({ systemIdentifier: '7', by: 'x' }) } : {}),
      ...(this.config === undefined ? {} : { config: stamp(this.config) }),
      ...(this.leader === undefined ? {} : { leader: stamp(this.leader) }),
      ...(this.sync === undefined ? {} : { sync: stamp(this.sync) }),
      ...(this.request === undefined ? {} : { request: stamp(this.request) }),
      members: stamped(this.members),
      commands: stamped(this.commands),
      history: new Map(),
      invalid: [],
    };
  }

  get snapshot(): ClusterSnapshot {
    return deepFreeze({
      now: this.time,
      cluster: this.cluster,
      instances: [...this.instances.values()],
      claims: [...this.claims.values()],
      pods: [...this.pods.values()],
      zones: this.zones,
      statefulSets: [...this.instances.values()].map((each) => this.#statefulSet(each)),
      objects: this.objects,
      etcd: this.etcdAnswers
        ? {
            known: true as const,
            value: {
              view: this.view,
              leaderSilentMs: this.leaderSilentMs,
              granted: true,
              noSpace: this.noSpace,
            },
          }
        : { known: false as const, reason: 'EtcdUnreachable' as const, message: 'no answer' },
      fleet: this.fleet ?? {
        known: true,
        value: {
          nodes: { total: 3, ready: 2 },
          reach: new Map([...this.away.keys()].map((name) => [name, 'stranded' as const])),
        },
      },
      etcdAuthority: authority.cert,
      apis,
      installation: {
        agentImage: this.agentImage,
        postgresImageTemplate: 'postgres:{version}',
        etcdEndpoints: ['https://etcd:2379'],
      },
      memory: { restarts: this.restarts },
      random: {
        clusterId: 'abcdefghijklmnop',
        password: this.newPassword,
        requestId: `r${this.#revision}`,
        salt: '07'.repeat(16),
      },
    });
  }

  /** One pass: plans, and executes all actions or the first few. */
  async pass(limit = Number.POSITIVE_INFINITY): Promise<Plan> {
    const plan = planCluster(this.snapshot);
    const actions = plan.actions.slice(0, limit);
    for (const action of actions) await this.execute(action);
    if (actions.length === plan.actions.length && plan.status !== undefined) {
      this.cluster = { ...this.cluster, status: plan.status as PgClusterStatus };
    }
    return plan;
  }

  /** Passes until nothing is left to do. Throws when that does not come. */
  async converge(passes = 60): Promise<Plan> {
    for (let n = 0; n < passes; n += 1) {
      const before = JSON.stringify(this.cluster.status);
      const plan = await this.pass();
      this.react();
      if (plan.actions.length === 0 && JSON.stringify(this.cluster.status) === before) return plan;
    }
    const { actions } = planCluster(this.snapshot);
    throw new Error(`not converged: ${JSON.stringify(actions.map((each) => [each.do, each.because]))}`);
  }

  async execute(action: Action): Promise<void> {
    this.done.push(action);
    this.#revision += 1;
    switch (action.do) {
      case 'apply':
      case 'create':
        return this.#put(action.object);
      case 'create-authority':
        return this.#put({ ...action.secret, data: authorityData(authority) } as KubeObject);
      case 'issue':
        return this.#put({
          ...action.secret,
          data: tlsData(await issue(action.order), authority.cert),
        } as KubeObject);
      case 'annotate':
        return this.#annotate(action.resource.kind, action.ref.name, action.annotations, action.labels);
      case 'delete':
        return this.#remove(action.resource.kind, action.ref.name);
      case 'add-finalizer':
      case 'remove-finalizer': {
        const finalizers = action.do === 'add-finalizer' ? ['koschei.dev/volumes'] : [];
        this.cluster = { ...this.cluster, metadata: { ...this.cluster.metadata, finalizers } };
        return;
      }
      case 'forget-etcd':
        this.initialized = false;
        this.config = undefined;
        this.leader = undefined;
        return;
      case 'clear-state':
        this.initialized = false;
        this.config = undefined;
        this.leader = undefined;
        this.sync = undefined;
        this.request = undefined;
        this.commands.clear();
        return;
      case 'write-config':
        this.config = action.value;
        return;
      case 'request':
        this.request = action.value;
        return;
      case 'command': {
        const says = this.members.get(action.instance);
        const key = `${action.instance} ${says?.pendingRestart?.settings.join(',')} ${this.config?.generation}`;
        this.restarts.set(key, (this.restarts.get(key) ?? 0) + 1);
        this.commands.set(action.instance, action.value);
        return;
      }
      case 'clear-slice':
      case 'grant-etcd':
        return;
    }
  }

  /** Lets happen what would follow by itself. */
  react(): void {
    for (const instance of this.instances.values()) this.#bringUp(instance);
    for (const name of [...this.pods.keys()]) {
      const instance = name.replace(/-0$/, '');
      if (!this.instances.has(instance)) {
        this.pods.delete(name);
        this.members.delete(instance);
      }
    }
    this.#lead();
    for (const instance of this.instances.values()) this.#publish(instance.metadata.name);
    this.#keepSync();
  }

  /** What an agent takes care of: somebody leads, requests and orders are obeyed. */
  #lead(): void {
    const founder = [...this.instances.values()].find(({ spec }) => spec.initMode === 'initdb');
    if (!this.initialized && founder !== undefined && this.config !== undefined) {
      this.initialized = true;
      this.leader = leaderValue(founder.metadata.name, 1);
      this.sync = { term: 1, mode: 'sync', names: [] };
    }
    const leads = this.leader?.instance;
    if (leads === undefined) return;
    if (!this.#works(leads)) this.#handOver(undefined);
    if (this.request !== undefined) {
      this.#handOver(this.request.to);
      this.request = undefined;
    }
    for (const name of this.commands.keys()) {
      if (this.#works(name)) this.inForce.set(name, this.#wanted());
      this.commands.delete(name);
    }
  }

  #works(name: string): boolean {
    return this.pods.has(podName(name)) && !this.broken.has(name) && !this.away.has(name);
  }

  #handOver(to: string | undefined): void {
    const { leader, sync } = this;
    if (leader === undefined || sync === undefined) return;
    const named = (name: string) =>
      sync.mode === 'async'
        ? this.config?.members.includes(name) === true
        : sync.names.some((each) => each.instance === name);
    const able = [...this.instances.keys()].filter(
      (name) => name !== leader.instance && named(name) && this.#works(name),
    );
    const next = to === undefined ? able[0] : able.find((name) => name === to);
    if (next === undefined) return;
    this.leader = leaderValue(next, leader.term + 1);
    this.sync = {
      ...sync,
      term: leader.term + 1,
      names: [
        ...sync.names.filter((each) => each.instance !== next),
        { instance: leader.instance, dataId: dataId(leader.instance) },
      ],
    };
  }

  #keepSync(): void {
    const { config, sync, leader } = this;
    if (config === undefined || sync === undefined || leader === undefined) return;
    const able = [...this.members.values()]
      .filter((each) => each.instance !== leader.instance && config.members.includes(each.instance))
      .filter((each) => this.#works(each.instance) && each.state === 'streaming')
      .map((each) => each.instance);
    const present = sync.names.map((each) => each.instance);
    const order = [
      ...able.filter((name) => present.includes(name)),
      ...able.filter((name) => !present.includes(name)),
    ];
    const names = order.slice(0, config.synchronous);
    // Nobody is dropped before somebody else is there.
    if (names.length < Math.min(config.synchronous, present.length)) return;
    this.sync = {
      ...sync,
      mode: config.synchronous > 0 ? 'sync' : 'async',
      names: names.map((instance) => ({ instance, dataId: dataId(instance) })),
    };
  }

  #wanted(): string {
    return this.config?.parameters[restartSetting] ?? lowest;
  }

  #publish(name: string): void {
    if (!this.#works(name) || this.config === undefined || this.leader === undefined) {
      this.members.delete(name);
      return;
    }
    const leads = this.leader.instance === name;
    const [wanted, inForce] = [this.#wanted(), this.inForce.get(name) ?? lowest];
    const primary = this.inForce.get(this.leader.instance) ?? lowest;
    // A standby takes the larger of the wanted value and its primary's.
    const target = leads ? wanted : String(Math.max(Number(wanted), Number(primary)));
    const pending = target !== inForce;
    this.members.set(name, {
      instance: name,
      dataId: dataId(name),
      bootId: 'boot-0001',
      address: '10.0.0.1',
      node: 'n',
      podUid: this.pods.get(podName(name))?.metadata.uid ?? '',
      role: leads ? 'primary' : 'standby',
      state: leads ? 'running' : 'streaming',
      agentVersion: '1',
      lagBytes: 0,
      configGeneration: this.config.generation,
      pendingRestart: {
        settings: pending ? [restartSetting] : [],
        lowered: pending && Number(target) < Number(inForce) ? [restartSetting] : [],
      },
      ...(leads && this.slotProblem !== undefined ? { slotProblem: this.slotProblem } : {}),
      ...(leads && this.refusedRequest !== undefined ? { refusedRequest: this.refusedRequest } : {}),
    });
  }

  #bringUp(instance: PgInstance): void {
    const { name } = instance.metadata;
    const since = this.away
      .get(name)
      ?.toISOString()
      .replace(/\.\d+Z$/, 'Z');
    const { waitingForNodeSince: _, ...status } = { ...instance.status, node: `node-of-${name}` };
    this.instances.set(name, {
      ...instance,
      status: { ...status, ...(since === undefined ? {} : { waitingForNodeSince: since }) },
    });
    const claim = this.claims.get(name);
    if (claim === undefined)
      this.claims.set(name, filledClaim(this.cluster.metadata.name, instance.spec.clusterId, name));
    const pod = this.pods.get(podName(name));
    if (pod === undefined) this.inForce.set(name, this.#wanted());
    this.pods.set(podName(name), {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name: podName(name),
        namespace: 'ns',
        uid: pod?.metadata.uid ?? this.#uid(),
        labels: {
          ...instanceLabels(this.cluster.metadata.name, instance.spec.clusterId, name),
          [componentLabel]: 'postgres',
          'controller-revision-hash':
            pod?.metadata.labels?.['controller-revision-hash'] ?? revisionOf(instance),
        },
      },
      spec: pod?.spec ?? {
        nodeName: `node-of-${name}`,
        containers: [{ name: 'postgres', image: instance.spec.postgres.image }],
      },
      status: {
        phase: 'Running',
        podIP: '10.0.0.1',
        conditions: [
          { type: 'Ready', status: this.broken.has(name) || this.away.has(name) ? 'False' : 'True' },
        ],
      },
    } as Pod);
  }

  #statefulSet(instance: PgInstance): StatefulSet {
    const { name, namespace } = instance.metadata;
    return {
      apiVersion: 'apps/v1',
      kind: 'StatefulSet',
      metadata: { name, namespace, generation: 1 },
      status: { observedGeneration: 1, updateRevision: revisionOf(instance), replicas: 1 },
    } as StatefulSet;
  }

  #uid(): string {
    this.#uids += 1;
    return `uid-${this.#uids}`;
  }

  #put(object: KubeObject): void {
    const { kind, metadata } = object;
    const found =
      kind === 'PgInstance'
        ? this.instances.get(metadata.name)
        : this.objects.get(`${kind}/${metadata.name}`);
    const written = withAppliedHash({
      ...object,
      metadata: { ...metadata, uid: found?.metadata.uid ?? this.#uid() },
    });
    // The hash is that of what was rendered, without what the server adds.
    written.metadata.annotations = {
      ...found?.metadata.annotations,
      ...withAppliedHash(object).metadata.annotations,
    };
    if (kind === 'PgInstance') {
      const status = this.instances.get(metadata.name)?.status;
      this.instances.set(metadata.name, PgInstance.parse({ ...written, status }));
    } else this.objects.set(`${kind}/${metadata.name}`, written);
  }

  #annotate(
    kind: string,
    name: string,
    annotations: Readonly<Record<string, string | null>>,
    labels: Readonly<Record<string, string | null>> = {},
  ): void {
    const target =
      kind === 'PgCluster'
        ? this.cluster
        : kind === 'PgInstance'
          ? this.instances.get(name)
          : this.claims.get(name);
    if (target === undefined) return;
    const { metadata } = target;
    const changed = {
      ...target,
      metadata: {
        ...metadata,
        annotations: merged(metadata.annotations, annotations),
        labels: merged(metadata.labels, labels),
      },
    };
    if (kind === 'PgCluster') this.cluster = changed as UnreadPgCluster;
    else if (kind === 'PgInstance') this.instances.set(name, changed as PgInstance);
    else this.claims.set(name, changed as PersistentVolumeClaim);
  }

  #remove(kind: string, name: string): void {
    if (kind === 'PgInstance') this.instances.delete(name);
    else if (kind === 'Pod') {
      this.pods.delete(name);
      this.members.delete(name.replace(/-0$/, ''));
    } else if (kind === 'PersistentVolumeClaim') this.claims.delete(name);
    else this.objects.delete(`${kind}/${name}`);
  }
}

/** As a merge patch does it. */
function merged(
  present: Readonly<Record<string, string>> | undefined,
  change: Readonly<Record<string, string | null>>,
): Record<string, string> {
  const after = Object.entries({ ...present, ...change });
  return Object.fromEntries(after.flatMap(([key, value]) => (value === null ? [] : [[key, value]])));
}

const dataId = (instance: string): string => createHash('sha256').update(instance).digest('hex').slice(0, 16);

/** Changes with what a pod template is made of. */
const revisionOf = ({ spec }: { spec: PgInstanceSpec }): string =>
  createHash('sha256')
    .update(
      JSON.stringify([spec.agentImage, spec.postgres, spec.resources, spec.podMetadata, spec.placement]),
    )
    .digest('hex')
    .slice(0, 10);

const leaderValue = (instance: string, term: number): LeaderValue => ({
  instance,
  dataId: dataId(instance),
  bootId: 'boot-0001',
  term,
  timeline: term,
  phase: 'leading',
  beat: 1,
  address: '10.0.0.1',
  members: [],
});

async function issue(order: CertificateOrder): Promise<KeyPair> {
  const key = JSON.stringify(order);
  const pair = issued.get(key) ?? (await issueCertificate({ ...order, authority, validDays: 90, now }));
  issued.set(key, pair);
  return pair;
}

/** A bound data volume that an init Job has filled. */
export const filledClaim = (
  cluster: string,
  clusterId: string,
  instance: string,
  annotations: Record<string, string> = {},
): PersistentVolumeClaim =>
  ({
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name: instance,
      namespace: 'ns',
      uid: `claim-${instance}`,
      labels: { ...clusterLabels(cluster, clusterId), ...instanceLabels(cluster, clusterId, instance) },
      annotations: { [operatorAnnotation.initialized]: now.toISOString(), ...annotations },
    },
    spec: { resources: { requests: { storage: '1Gi' } } },
    status: { phase: 'Bound', capacity: { storage: '1Gi' } },
  }) as PersistentVolumeClaim;
