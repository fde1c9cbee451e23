import { randomBytes } from 'node:crypto';
import { label, leaderEndpointSliceName, ordinalOf, podName } from '../src/api/names.ts';
import {
  instanceCount,
  PgCluster,
  PgClusterSpec,
  type PgClusterSpecInput,
  type PgClusterStatus,
} from '../src/api/pgcluster.ts';
import { isNotFound, type Pod, resources } from '../src/kube/index.ts';
import { kubectl } from './cluster/cluster.ts';
import {
  type ClusterFacts,
  healthProblems,
  type PodFacts,
  ServerFacts,
  serverQuery,
  type Wanted,
} from './health.ts';
import { eventually, type Kubernetes, kubernetes, sweepDeadPods } from './kubernetes.ts';
import { messageOf } from './ledger/connection.ts';

/** Tells the pods of instances from those of init Jobs. */
const instancePods = 'app.kubernetes.io/component=postgres';

/** A PgCluster in a namespace, as a person with kubectl sees and handles it. */
export class PostgresCluster {
  readonly name: string;
  readonly namespace: string;
  readonly #kubernetes: Kubernetes;

  private constructor(kubernetes: Kubernetes, namespace: string, name: string) {
    this.#kubernetes = kubernetes;
    this.namespace = namespace;
    this.name = name;
  }

  /** A PgCluster that may or may not exist yet. */
  static async at(namespace: string, name: string): Promise<PostgresCluster> {
    return new PostgresCluster(await kubernetes(), namespace, name);
  }

  /** Applies a new PgCluster in a namespace of its own, which the name of the test begins. */
  static async create(test: string, spec: PgClusterSpecInput, name = 'shop'): Promise<PostgresCluster> {
    const namespace = `e2e-${test}-${randomBytes(2).toString('hex')}`;
    const cluster = await PostgresCluster.at(namespace, name);
    await cluster.createNamespace();
    try {
      await cluster.apply(spec);
      return cluster;
    } catch (error) {
      await cluster.remove();
      throw error;
    }
  }

  get #ref() {
    return { namespace: this.namespace, name: this.name };
  }

  async createNamespace(): Promise<void> {
    await this.#kubernetes.client.apply(resources.namespaces, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: {
        name: this.namespace,
        labels: { 'koschei.dev/test': 'true', 'pod-security.kubernetes.io/enforce': 'restricted' },
      },
    });
  }

  /** `kubectl apply` of this spec. @throws {ApiError} when the API server refuses it. */
  async apply(spec: unknown): Promise<void> {
    await this.#kubernetes.client.apply(
      resources.pgClusters,
      { ...{ apiVersion: 'koschei.dev/v1', kind: 'PgCluster', metadata: this.#ref }, spec } as never,
      { force: true },
    );
  }

  /** Merges a change into the spec. */
  async patch(spec: object): Promise<void> {
    await this.#kubernetes.client.mergePatch(resources.pgClusters, this.#ref, { spec });
  }

  async annotate(annotations: Readonly<Record<string, string | null>>): Promise<void> {
    await this.#kubernetes.client.mergePatch(resources.pgClusters, this.#ref, { metadata: { annotations } });
  }

  /** Asks for a switchover to an instance, or to the best one. */
  async requestSwitchover(to = 'any'): Promise<void> {
    await this.annotate({ 'koschei.dev/switchover': to });
  }

  async read(): Promise<PgCluster> {
    return PgCluster.parse(await this.#kubernetes.client.get(resources.pgClusters, this.#ref));
  }

  async status(): Promise<PgClusterStatus> {
    const found = await this.#kubernetes.client.get(resources.pgClusters, this.#ref);
    return PgCluster.shape.status.parse((found as { status?: unknown }).status) ?? {};
  }

  /** What the spec asks for. */
  async wanted(): Promise<Wanted> {
    const { replicas } = PgClusterSpec.parse((await this.read()).spec);
    return { instances: instanceCount(replicas), synchronous: replicas.synchronous };
  }

  /** The pods of instances, by the order of their numbers. */
  async pods(): Promise<PodFacts[]> {
    const { items } = await this.#kubernetes.client.list(resources.pods, {
      namespace: this.namespace,
      labelSelector: `${label.cluster}=${this.name},${instancePods}`,
    });
    return items.map(podFacts).sort((a, b) => this.#ordinal(a) - this.#ordinal(b));
  }

  #ordinal({ instance }: PodFacts): number {
    return ordinalOf(this.name, instance) ?? 0;
  }

  /** @throws {Error} if there is no pod of that instance. */
  async podOf(instance: string): Promise<PodFacts & { readonly node: string }> {
    const pod = (await this.pods()).find((each) => each.instance === instance);
    if (pod?.node === undefined) throw new Error(`expected a scheduled pod of ${instance}, found none`);
    return { ...pod, node: pod.node };
  }

  async #endpoints(): Promise<ClusterFacts['endpoints']> {
    const slice = await this.#kubernetes.client.get(this.#kubernetes.endpointSlices, {
      namespace: this.namespace,
      name: leaderEndpointSliceName(this.name),
    });
    return (slice.endpoints ?? []).flatMap(({ addresses, targetRef }) =>
      addresses.map((address) => ({ address, podUid: targetRef?.uid })),
    );
  }

  /** The instance that the `-rw` Service leads to, which the leader itself writes; undefined: nobody. */
  async primary(): Promise<string | undefined> {
    const [[endpoint], pods] = await Promise.all([this.#endpoints(), this.pods()]);
    return pods.find((pod) => pod.uid === endpoint?.podUid)?.instance;
  }

  /** @throws {Error} if there is none at the moment. */
  async knownPrimary(): Promise<string> {
    const primary = await this.primary();
    if (primary === undefined) throw new Error(`expected a primary of ${this.name}, found none`);
    return primary;
  }

  /** The synchronous standbys, as the primary's Postgres says. */
  async synchronousStandbys(): Promise<string[]> {
    const [pods, server] = await Promise.all([this.pods(), this.server(await this.knownPrimary())]);
    const addresses = server.walsenders.filter(({ sync }) => sync === 'sync').map(({ address }) => address);
    return pods.filter((pod) => addresses.includes(pod.address ?? '')).map(({ instance }) => instance);
  }

  /** Runs a command in the Postgres container of an instance and returns what it printed. */
  async exec(instance: string, command: readonly string[]): Promise<string> {
    return kubectl([
      ...['--request-timeout=20s', '-n', this.namespace, 'exec', podName(instance), '-c', 'postgres', '--'],
      ...command,
    ]);
  }

  /** Runs SQL as the superuser, inside the pod. Columns are separated by `|`, without a header. */
  async sql(instance: string, sql: string, database = 'app'): Promise<string> {
    const psql = ['psql', '-h', '/run/koschei', '-U', 'postgres', '-d', database];
    return (await this.exec(instance, [...psql, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', sql])).trimEnd();
  }

  /** What the Postgres of an instance says about itself. */
  async server(instance: string): Promise<ServerFacts> {
    return ServerFacts.parse(JSON.parse(await this.sql(instance, serverQuery, 'postgres')));
  }

  async #facts(): Promise<ClusterFacts> {
    const [pods, endpoints, cluster] = await Promise.all([this.pods(), this.#endpoints(), this.read()]);
    const servers = await Promise.all(
      pods.map(async ({ instance, ready }) => {
        // A pod that is not ready is a problem already; asking it would only take time.
        const answer = ready
          ? await this.server(instance).catch((error: unknown) => messageOf(error))
          : 'not ready';
        return [instance, answer] as const;
      }),
    );
    const status = cluster.status ?? {};
    return {
      pods,
      endpoints,
      servers: new Map(servers),
      status: {
        generation: cluster.metadata.generation,
        observedGeneration: status.observedGeneration,
        primary: status.primary,
        phase: status.phase,
        ready: status.ready,
        readyCondition: status.conditions?.find(({ type }) => type === 'Ready')?.status,
      },
    };
  }

  /** What is not well at the moment; none: all is. See {@link healthProblems}. */
  async problems(): Promise<string[]> {
    return healthProblems(await this.#facts(), await this.wanted());
  }

  /**
   * Waits until all is well.
   * @param deadline milliseconds from now
   * @throws {Error} at the deadline, with what is not.
   */
  async waitHealthy(deadline: number): Promise<void> {
    let problems: string[] = ['nothing was looked at'];
    await eventually(`${this.name} to be healthy`, deadline, async () => {
      problems = await this.problems().catch((error: unknown) => [messageOf(error)]);
      return problems.length === 0;
    }).catch((error: unknown) => {
      throw new Error(`${messageOf(error)}\n  - ${problems.join('\n  - ')}`, { cause: error });
    });
  }

  /**
   * Waits until the status says Ready for the newest spec, with all instances; that is what `kubectl wait` sees.
   * @param deadline milliseconds from now
   */
  async waitReady(deadline: number): Promise<void> {
    const { instances } = await this.wanted();
    let last = '';
    await eventually(
      `${this.name} to be Ready`,
      deadline,
      async () => {
        const { metadata, status = {} } = await this.read();
        const ready = status.conditions?.find(({ type }) => type === 'Ready');
        last = `ready ${status.ready}, phase ${status.phase}, ${ready?.reason}: ${ready?.message}`;
        return (
          status.observedGeneration === metadata.generation &&
          ready?.status === 'True' &&
          status.ready === `${instances}/${instances}`
        );
      },
      100,
    ).catch((error: unknown) => {
      throw new Error(`${messageOf(error)} (${last})`, { cause: error });
    });
  }

  /**
   * Waits until the `-rw` Service leads to another instance than `old`, or to another pod of it.
   * @param deadline milliseconds from now
   * @returns the new primary.
   */
  async waitForOtherPrimary(old: { instance: string }, deadline: number): Promise<string> {
    return eventually(
      `another primary than ${old.instance}`,
      deadline,
      async () => {
        const primary = await this.primary();
        return primary !== old.instance && primary;
      },
      100,
    );
  }

  /** Waits until a condition has this status, reason and message, and returns the message. */
  async waitForCondition(
    type: string,
    wanted: { readonly status?: string; readonly reason?: string | RegExp; readonly says?: RegExp },
    deadline: number,
    pause?: number,
  ): Promise<string> {
    let last = 'no such condition';
    return eventually(
      `${type} ${JSON.stringify(wanted, stringOf)}`,
      deadline,
      async () => {
        const found = (await this.status()).conditions?.find((each) => each.type === type);
        last =
          found === undefined ? 'no such condition' : `${found.status} ${found.reason}: ${found.message}`;
        const { status, reason, says } = wanted;
        const fits =
          found !== undefined &&
          (says === undefined || says.test(found.message)) &&
          (status === undefined || found.status === status) &&
          (reason === undefined || new RegExp(reason).test(found.reason));
        return fits && found.message;
      },
      pause,
    ).catch((error: unknown) => {
      throw new Error(`${messageOf(error)} (found ${last})`, { cause: error });
    });
  }

  /** A value of a Secret as text. */
  async secret(name: string, key: string): Promise<string> {
    const secret = await this.#kubernetes.client.get(resources.secrets, { namespace: this.namespace, name });
    const value = secret.data?.[key];
    if (value === undefined) throw new Error(`expected the key ${key} in the Secret ${name}`);
    return Buffer.from(value, 'base64').toString();
  }

  /** The address of a Service of this cluster. */
  async serviceAddress(name: string): Promise<string> {
    const service = await this.#kubernetes.client.get(resources.services, {
      namespace: this.namespace,
      name,
    });
    const address = service.spec?.clusterIP;
    if (address === undefined) throw new Error(`the Service ${name} has no address`);
    return address;
  }

  /** Deletes the PgCluster and waits until it is gone with its pods. */
  async delete(deadline = 90_000): Promise<void> {
    const { client } = this.#kubernetes;
    await client.remove(resources.pgClusters, this.#ref);
    await eventually(`${this.name} to be deleted`, deadline, async () => {
      await sweepDeadPods(this.namespace);
      const gone = (await client.find(resources.pgClusters, this.#ref)) === undefined;
      return gone && (await this.pods()).length === 0;
    });
  }

  /** Removes the namespace with everything in it, and waits until its pods are gone, so that they cost nothing. */
  async remove(): Promise<void> {
    const { client } = this.#kubernetes;
    // The PgCluster first: what has to be done for its finalizer needs the other objects.
    await this.delete(60_000).catch((error: unknown) => {
      if (!isNotFound(error)) console.error(messageOf(error));
    });
    await client.remove(resources.namespaces, { name: this.namespace });
    await eventually('the pods to be gone', 60_000, async () => {
      await sweepDeadPods(this.namespace);
      return (await this.pods()).length === 0;
    });
  }
}

const stringOf = (_: string, value: unknown) => (value instanceof RegExp ? String(value) : value);

function podFacts(pod: Pod): PodFacts {
  const { labels, uid, deletionTimestamp } = pod.metadata;
  return {
    instance: labels?.[label.instance] ?? '',
    uid: uid ?? '',
    address: pod.status?.podIP,
    node: pod.spec?.nodeName,
    ready: pod.status?.conditions?.some(({ type, status }) => type === 'Ready' && status === 'True') ?? false,
    terminating: deletionTimestamp !== undefined,
    role: labels?.[label.role],
  };
}
