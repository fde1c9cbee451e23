import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { parseAllDocuments } from 'yaml';
import { fieldManager } from '../../api/names.ts';
import { PgCluster, type PgClusterSpecInput } from '../../api/pgcluster.ts';
import { PgInstance } from '../../api/pginstance.ts';
import { clusterKeys, Etcd } from '../../dcs/index.ts';
import {
  type KubeClient,
  type KubeObject,
  type RequestInfo,
  resources,
  systemClock,
} from '../../kube/index.ts';
import { type ApiServer, startApiServer } from '../../kube/testing/apiserver.ts';
import { eventually } from '../../kube/testing/eventually.ts';
import { freePort } from '../../kube/testing/free-ports.ts';
import { createLogger } from '../../log/logger.ts';
import { readEnvironment } from '../environment.ts';
import { ensureEtcdCredentials, managedEtcd } from '../etcd/managed.ts';
import { resourceOf } from '../execute.ts';
import { createOperator } from '../operator.ts';
import { type Running, run, type SecureEtcd, secureEtcd, startControllers } from './processes.ts';
import { SimulatedKubelet } from './simulated-kubelet.ts';

const repository = join(import.meta.dirname, '../../..');

/** A Kubernetes API with its real controllers, a real etcd with TLS, simulated pods, and the operator. */
export interface World {
  readonly server: ApiServer;
  readonly client: KubeClient;
  readonly kubelet: SimulatedKubelet;
  readonly etcd: SecureEtcd;
  readonly etcdEndpoint: string;
  /** Writes that the operator sent to the API, the Lease's not counted. */
  readonly writes: RequestInfo[];
  readonly apply: (name: string, spec: PgClusterSpecInput | object, namespace?: string) => Promise<void>;
  readonly cluster: (name: string, namespace?: string) => Promise<PgCluster>;
  readonly instances: (cluster: string, namespace?: string) => Promise<PgInstance[]>;
  /** Waits until the cluster satisfies the check. */
  readonly until: (
    name: string,
    what: string,
    check: (cluster: PgCluster, instances: PgInstance[]) => boolean,
    options?: { namespace?: string; timeoutMs?: number },
  ) => Promise<PgCluster>;
  /** Removes everything that etcd holds about the cluster. */
  readonly loseState: (cluster: PgCluster) => Promise<void>;
  /** etcd as its administrator; to be closed. */
  readonly asRoot: () => Promise<Etcd>;
  readonly startOperator: (environment?: Record<string, string>) => Promise<void>;
  readonly stopOperator: () => Promise<void>;
  /** Starts the operator's program in a process of its own, which `stop` kills without a word. */
  readonly startReplica: (name: string) => Promise<Running>;
  readonly stop: () => Promise<void>;
}

/** Starts everything; about 10 s. */
export async function startWorld(): Promise<World> {
  const stops: (() => Promise<unknown>)[] = [];
  const stop = async (): Promise<void> => {
    for (const each of stops.reverse()) await each();
  };
  try {
    const server = await startApiServer({ crds: [join(repository, 'crds/without-cel')] });
    stops.push(() => server.stop());
    const controllers: Running = await startControllers(server.kubeconfig);
    stops.push(() => controllers.stop());
    const client = server.client();
    stops.push(() => client.close());
    await install(client);

    const port = await freePort();
    const log = createLogger({
      name: 'operator',
      level: process.env.KOSCHEI_TEST_OUTPUT === undefined ? 'silent' : 'debug',
    });
    await ensureEtcdCredentials(client, 'koschei-system', new Date(), log);
    const secret = await client.get(resources.secrets, {
      namespace: 'koschei-system',
      name: managedEtcd.serverSecret,
    });
    const etcd = await secureEtcd(port, secret);
    stops.push(() => etcd.stop());
    const kubelet = new SimulatedKubelet(server);
    await kubelet.start();
    stops.push(() => kubelet.stop());

    const writes: RequestInfo[] = [];
    const onRequest = (info: RequestInfo) => {
      if (!['get', 'list', 'watch'].includes(info.verb) && info.resource !== 'leases') writes.push(info);
    };
    let running: { abort: AbortController; done: Promise<void> } | undefined;
    const stopOperator = async () => {
      running?.abort.abort();
      await running?.done;
      running = undefined;
    };
    stops.push(stopOperator);
    const variables = async () => ({
      KOSCHEI_IMAGE: 'localhost/koschei:dev',
      KOSCHEI_POSTGRES_IMAGE_TEMPLATE: 'localhost/postgres:{version}',
      KOSCHEI_ETCD_ENDPOINTS: `https://127.0.0.1:${port}`,
      KOSCHEI_HTTP_PORT: String(await freePort()),
    });
    const get = async (name: string, namespace = 'default') =>
      PgCluster.parse(await client.get(resources.pgClusters, { namespace, name }));
    const instances = async (cluster: string, namespace = 'default') =>
      (await client.list(resources.pgInstances, { namespace })).items
        .map((item) => PgInstance.parse(item))
        .filter((item) => item.spec.cluster === cluster)
        .sort((a, b) => a.spec.ordinal - b.spec.ordinal);
    const asRoot = async () => {
      const { authority, root } = await ensureEtcdCredentials(client, 'koschei-system', new Date(), log);
      const tls = {
        ca: Buffer.from(authority.cert),
        cert: Buffer.from(root.cert),
        key: Buffer.from(root.key),
      };
      return new Etcd({ endpoints: [`https://127.0.0.1:${port}`], timeoutMs: 2_000, tls });
    };
    return {
      etcdEndpoint: `https://127.0.0.1:${port}`,
      ...{ server, client, kubelet, etcd, writes, instances, stopOperator, stop },
      apply: async (name, spec, namespace = 'default') => {
        await client.apply(
          resources.pgClusters,
          {
            apiVersion: 'koschei.dev/v1',
            kind: 'PgCluster',
            metadata: { name, namespace },
            spec,
          } as KubeObject,
          { force: true },
        );
      },
      cluster: get,
      asRoot,
      loseState: async ({ metadata, status }) => {
        const connection = await asRoot();
        const { prefix } = clusterKeys(metadata.namespace, metadata.name, status?.clusterId ?? '');
        try {
          await connection.transact([], [{ op: 'deletePrefix', key: prefix }]);
        } finally {
          connection.close();
        }
      },
      until: async (name, what, check, { namespace = 'default', timeoutMs = 30_000 } = {}) => {
        let last: unknown;
        try {
          return await eventually(
            what,
            async () => {
              const found = await get(name, namespace);
              const members = await instances(name, namespace);
              last = {
                status: found.status,
                instances: members.map(({ metadata, status }) => [metadata.name, status]),
              };
              return check(found, members) ? found : undefined;
            },
            timeoutMs,
          );
        } catch (error) {
          throw new Error(`${String(error)}\n${JSON.stringify(last, undefined, 1)}`, { cause: error });
        }
      },
      startReplica: async (name) => {
        const folder = await mkdtemp(join(tmpdir(), 'koschei-replica-'));
        stops.push(() => rm(folder, { recursive: true }));
        const administrator = await readFile(server.kubeconfig, 'utf8');
        const kubeconfig = join(folder, 'kubeconfig');
        const text = administrator.replace(server.adminToken, server.restrictedToken);
        await writeFile(kubeconfig, text, { mode: 0o600 });
        const replica = run(process.execPath, [join(repository, 'src/operator/main.ts')], {
          ...(await variables()),
          KUBECONFIG: kubeconfig,
          KOSCHEI_POD_NAME: name,
        });
        stops.push(() => replica.stop());
        return replica;
      },
      startOperator: async (more = {}) => {
        const environment = readEnvironment({ ...(await variables()), ...more });
        const abort = new AbortController();
        const operator = await createOperator({
          // With the rights that deploy/ gives the operator, and no others.
          client: server.clientWithToken(server.restrictedToken, { fieldManager, onRequest }),
          environment,
          log,
          registry: new Registry(),
          clock: systemClock,
        });
        running = { abort, done: operator.run(abort.signal) };
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Namespace and rights as deploy/ has them, for the user of the test instead of the service account. */
async function install(client: KubeClient): Promise<void> {
  await client.create(resources.namespaces, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: 'koschei-system' },
  });
  const text = await readFile(join(repository, 'deploy/base/access.yaml'), 'utf8');
  for (const document of parseAllDocuments(text)) {
    const object = document.toJS() as KubeObject & { subjects?: unknown };
    if (object.kind === 'ServiceAccount') continue;
    if (object.subjects !== undefined) {
      object.subjects = [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'restricted' }];
    }
    const clusterScoped = object.kind.startsWith('Cluster');
    const resource = clusterScoped
      ? {
          group: 'rbac.authorization.k8s.io',
          version: 'v1',
          kind: object.kind,
          plural: `${object.kind.toLowerCase()}s`,
          namespaced: false,
        }
      : resourceOf(object);
    if (!clusterScoped) object.metadata.namespace = 'koschei-system';
    await client.create(resource, object);
  }
}
