import { Gauge, type Registry } from 'prom-client';
import {
  type Clock,
  Controller,
  chooseApis,
  discover,
  Elector,
  EventRecorder,
  type KubeClient,
  type KubeMetrics,
  Manager,
  resources,
  systemClock,
} from '../kube/index.ts';
import type { Logger } from '../log/logger.ts';
import { Caches } from './caches.ts';
import { clusterReconciler } from './cluster/controller.ts';
import type { Environment } from './environment.ts';
import { EtcdAccess } from './etcd/access.ts';
import { instanceReconciler } from './instance/controller.ts';

export interface OperatorOptions {
  readonly client: KubeClient;
  readonly environment: Environment;
  readonly log: Logger;
  readonly registry: Registry;
  readonly metrics?: KubeMetrics | undefined;
  readonly clock?: Clock;
  /** False: this process works without asking whether another one does. For tests. */
  readonly election?: boolean;
}

/** Something that the operator needs in the cluster is not there. */
export class NotInstalledError extends Error {
  override readonly name = 'NotInstalledError';
}

/** Puts the operator together. Run what it returns with `run(signal)`. Throws when the API server is not usable. */
export async function createOperator(options: OperatorOptions): Promise<Manager> {
  const { client, environment, log, registry, metrics, clock = systemClock } = options;
  const apis = chooseApis(await discover(client));
  if (!apis.hasKoschei) {
    throw new NotInstalledError(
      'expected the CRDs of koschei.dev/v1, found none; install Koschei with kubectl apply -k deploy (docs/operations.md says which folder suits older servers)',
    );
  }
  log.info(
    {
      server: apis.serverVersion.gitVersion,
      endpointSlices: apis.endpointSlice,
      podDisruptionBudgets: apis.podDisruptionBudget ?? 'none: drains are not limited',
      validationRules: apis.hasCelQuantities
        ? 'by the API server'
        : 'by the operator only: refused changes show in the status',
    },
    'what the Kubernetes API offers',
  );
  const caches = new Caches(client, apis, log, metrics);
  const events = new EventRecorder({
    client,
    component: 'koschei-operator',
    instance: environment.identity,
    log,
    clock,
  });
  const failing = new Gauge({
    name: 'koschei_managed_etcd_failing',
    help: '1 while the last look at the managed etcd, its users and its credentials by this process found something wrong; the log says what.',
    registers: [registry],
  });
  const etcd = new EtcdAccess({
    client,
    namespace: environment.namespace,
    endpoints: environment.etcdEndpoints,
    clock,
    log: log.child({ part: 'etcd' }),
    onManaged: (usable) => failing.set(usable ? 0 : 1),
    onChange: (key) => {
      clusters.enqueue(key);
      for (const { metadata } of caches.instancesOf(key))
        instances.enqueue(`${metadata.namespace}/${metadata.name}`);
    },
  });
  const { postgresImageTemplate, etcdEndpoints } = environment;
  const agentImage = environment.agentImage ?? (await ownImage(client, environment));
  log.info({ agentImage, postgresImageTemplate, etcdEndpoints }, 'what new instances are made of');
  const common = { client, caches, etcd, events, apis, clock };
  const clusters = new Controller({
    name: 'cluster',
    reconcile: clusterReconciler({
      ...common,
      installation: { agentImage, postgresImageTemplate, etcdEndpoints },
    }),
    log,
    metrics,
    clock,
    keys: () => caches.clusters.store.keys(),
  });
  const instances = new Controller({
    name: 'instance',
    reconcile: instanceReconciler(common),
    log,
    metrics,
    clock,
    workers: 8,
    keys: () => caches.instances.store.keys(),
  });
  caches.onChange((cluster, instance) => {
    if (cluster !== undefined) clusters.enqueue(cluster);
    if (instance !== undefined) instances.enqueue(instance);
  });
  const elector =
    options.election === false
      ? undefined
      : new Elector({
          client,
          namespace: environment.namespace,
          name: 'koschei-operator',
          identity: `${environment.identity}-${process.pid}-${Math.random().toString(36).slice(2, 10)}`,
          log,
          metrics,
          clock,
        });
  return new Manager({
    log,
    registry,
    http: { port: environment.httpPort },
    sources: caches.all,
    workers: [etcd, clusters, instances],
    elector,
    close: async () => {
      await events.flush();
      await client.close();
    },
  });
}

/** The image that this program was started from, according to its own pod. */
async function ownImage(client: KubeClient, { namespace, identity }: Environment): Promise<string> {
  const pod = await client.find(resources.pods, { namespace, name: identity });
  const container = pod?.spec?.containers.find(({ name }) => name === 'operator');
  if (container?.image !== undefined) return container.image;
  throw new NotInstalledError(
    `expected a pod ${namespace}/${identity} with a container "operator", found none; outside a pod, say the agent's image in KOSCHEI_IMAGE`,
  );
}
