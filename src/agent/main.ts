import { randomBytes } from 'node:crypto';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { agentFieldManager, path, podHost, port } from '../api/names.ts';
import { ClusterStore, type ClusterView, clusterKeys, Etcd } from '../dcs/index.ts';
import { inClusterCredentials, KubeClient } from '../kube/index.ts';
import { createLogger, type Logger } from '../log/logger.ts';
import { findBinaries, postgresPaths } from '../postgres/index.ts';
import { Agent } from './agent.ts';
import { createApi } from './api.ts';
import { bootClock } from './boot-clock.ts';
import { type Certificates, readCertificates, sameCertificates } from './certificates.ts';
import { Database } from './database.ts';
import { type Environment, readEnvironment } from './environment.ts';
import { pipeGuard } from './guard.ts';
import { provesLeadership } from './ha/index.ts';
import { InitError, initialise, reportTermination } from './init.ts';
import { kubeRouting, type PodIdentity } from './kube-routing.ts';
import { Membership } from './membership.ts';
import { agentMetrics } from './metrics.ts';
import { Peers } from './peers.ts';
import { Routing, type RoutingApi } from './routing.ts';
import { Storage } from './storage.ts';
import { agentVersion } from './version.ts';

const probeTimeoutMs = 500;
const certificatesEveryMs = 30_000;
const listenAgainMs = 1_000;
const watchSilenceMs = 2_500;

/** `agent run`: runs and leads Postgres for as long as the container lives. */
async function run(environment: Environment, bootTimeMs: () => number, log: Logger): Promise<void> {
  const { KOSCHEI_NAMESPACE: namespace, KOSCHEI_CLUSTER: cluster, KOSCHEI_INSTANCE: instance } = environment;
  const guard = pipeGuard();
  const binaries = await findBinaries(environment.KOSCHEI_POSTGRES_VERSION);
  const paths = postgresPaths({ walRoot: environment.KOSCHEI_WAL_VOLUME });
  const hostOf = (name: string) => podHost(cluster, name, namespace);
  let certificates = await readCertificates(path.replicationTls);

  const etcd = await connectEtcd(environment);
  const keys = clusterKeys(namespace, cluster, environment.KOSCHEI_CLUSTER_ID);
  const postgresLog = log.child({ part: 'postgres' });
  let agent: Agent | undefined;
  const tick = () => agent?.tick();
  const store = new ClusterStore({
    etcd,
    keys,
    now: bootTimeMs,
    silenceMs: watchSilenceMs,
    onChange: () => {
      const level = store.view.config?.value.logLevel ?? environment.KOSCHEI_LOG_LEVEL;
      // A child does not follow its parent.
      for (const each of [log, postgresLog]) each.level = level;
      tick();
    },
    onProblem: (message) => log.warn(message),
  });
  const peers = new Peers({
    port: port.agent,
    now: bootTimeMs,
    timeoutMs: probeTimeoutMs,
    certificates: () => certificates,
    onAnswer: tick,
  });
  const database = new Database({
    installation: { paths, binaries },
    clusterId: environment.KOSCHEI_CLUSTER_ID,
    clusterName: instance,
    osUser: userInfo().username,
    memoryBytes: environment.KOSCHEI_MEMORY_BYTES,
    hostOf,
    now: bootTimeMs,
    guard,
    log: postgresLog,
    user: () => store.view.config?.value ?? { generation: 0, parameters: {}, hba: [] },
    leaderHistory: () => leaderHistory(store.view, peers),
    onChange: tick,
  });
  const storage = new Storage({
    program: join(path.programs, 'koschei-init'),
    paths,
    now: bootTimeMs,
    log,
  });

  const pod = {
    namespace,
    cluster,
    instance,
    podUid: environment.KOSCHEI_POD_UID,
    address: environment.KOSCHEI_POD_IP,
    node: environment.KOSCHEI_NODE_NAME,
  };
  const routing = new Routing(await routingApi(environment, pod, log), { now: bootTimeMs, log });
  const membership = new Membership({ etcd, keys, now: bootTimeMs, log });

  agent = new Agent({
    me: {
      clusterId: environment.KOSCHEI_CLUSTER_ID,
      instance,
      bootId: randomBytes(8).toString('hex'),
      address: pod.address,
      node: pod.node,
      podUid: pod.podUid,
      agentVersion,
      postgresVersion: binaries.version,
    },
    now: bootTimeMs,
    wallClock: () => new Date(),
    etcd,
    keys,
    store,
    database,
    storage,
    peers,
    guard,
    membership,
    routing,
    hostOf,
    log,
    onExit: () => {
      void membership.withdraw(instance).finally(() => process.exit(0));
    },
  });
  const running = agent;
  const metrics = agentMetrics(running, database, storage);
  const server = createApi(
    {
      state: () => running.answer(),
      look: () => running.look(),
      live: () => running.live(),
      ready: () => running.ready(),
      status: () => running.status(),
      metrics: () => metrics.metrics(),
      heard: (answer) => running.hear(answer),
      promise: (asked) => running.promise(asked),
    },
    await readCertificates(path.serverTls),
  );
  // Without a listener for it the agent would end, and Postgres with it, because a port is not free yet.
  server.on('error', (error) => {
    log.error({ err: error }, 'the API does not listen');
    setTimeout(() => server.listening || server.listen(port.agent), listenAgainMs);
  });
  server.listen(port.agent);
  let served = await readCertificates(path.serverTls);
  setInterval(() => {
    void renewCertificates(log, async () => {
      certificates = await readCertificates(path.replicationTls);
      const now = await readCertificates(path.serverTls);
      if (!sameCertificates(served, now)) {
        served = now;
        server.setSecureContext(now);
        await database.reload();
        log.info('the server certificate was renewed');
      }
      etcd.useCertificates(await etcdCertificates());
    });
  }, certificatesEveryMs).unref();

  // Postgres images name SIGINT as their stop signal, and that is what the kubelet sends then.
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.on(signal, () => {
      log.info(`${signal}: handing over and stopping`);
      running.requestStop();
    });
  store.start();
  peers.start();
  storage.start();
  running.start();
  // It takes as long as the disk does: meanwhile the agent answers, and says what it waits for.
  database.open().catch(fail);
  log.info({ instance, boot: environment.KOSCHEI_BOOT, postgres: binaries.version }, 'the agent runs');
}

/** Outside Kubernetes there is nobody to tell; clients then find the primary by their own list of hosts. */
async function routingApi(environment: Environment, pod: PodIdentity, log: Logger): Promise<RoutingApi> {
  if (process.env.KUBERNETES_SERVICE_HOST === undefined) {
    log.warn('not in a Kubernetes pod: no Service is pointed at the primary');
    return { claim: async () => true, release: async () => undefined, setRole: async () => undefined };
  }
  const credentials = await inClusterCredentials(process.env);
  const client = new KubeClient({ credentials, fieldManager: agentFieldManager });
  return kubeRouting(client, environment.KOSCHEI_ENDPOINTSLICE_API, pod);
}

/** What the leader said of its timeline, if it proved that it leads. */
function leaderHistory(view: ClusterView, peers: Peers) {
  const leader = view.leader?.value;
  const peer = leader && peers.facts.get(leader.instance);
  if (peer === undefined || leader === undefined || !provesLeadership(peer, leader)) return undefined;
  const { timeline, ancestors } = peer.answer;
  return timeline === undefined ? undefined : { timeline, ancestors };
}

async function renewCertificates(log: Logger, renew: () => Promise<void>): Promise<void> {
  try {
    await renew();
  } catch (error) {
    log.warn({ err: error }, 'the certificates could not be read; the ones in use stay');
  }
}

async function etcdCertificates(): Promise<Certificates | undefined> {
  return await readCertificates(path.etcdTls).catch(() => undefined);
}

async function connectEtcd(environment: Environment): Promise<Etcd> {
  const tls = await etcdCertificates();
  return new Etcd({
    endpoints: environment.KOSCHEI_ETCD_ENDPOINTS,
    timeoutMs: 1_000,
    ...(tls === undefined ? {} : { tls }),
  });
}

/** Ends the agent; koschei-init starts it again. */
async function fail(error: unknown): Promise<never> {
  log.error({ err: error }, 'the agent cannot go on');
  await reportTermination(
    error instanceof InitError
      ? error
      : new InitError('AgentFailed', error instanceof Error ? error.message : String(error)),
  );
  process.exit(1);
}

const log = createLogger({ name: 'agent', level: 'info' });
try {
  const environment = readEnvironment(process.env);
  log.level = environment.KOSCHEI_LOG_LEVEL;
  const now = bootClock(process.env);
  if (process.argv[2] === 'init') {
    await initialise(environment, { log, etcd: await connectEtcd(environment), now });
    process.exit(0);
  } else if (process.argv[2] === 'run') await run(environment, now, log);
  else throw new Error('usage: agent init | run');
} catch (error) {
  await fail(error);
}
