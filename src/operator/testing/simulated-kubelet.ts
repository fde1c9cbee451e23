import { createHash } from 'node:crypto';
import { Agent, request } from 'undici';
import { label } from '../../api/names.ts';
import { clusterKeys, Etcd } from '../../dcs/index.ts';
import {
  isNotFound,
  type KubeClient,
  type PersistentVolumeClaim,
  type Pod,
  resources,
} from '../../kube/index.ts';
import type { ApiServer } from '../../kube/testing/apiserver.ts';
import { read } from '../cluster/desired/secrets.ts';
import { componentLabel } from '../labels.ts';
import { SimulatedAgent } from './simulated-agent.ts';

/** What a test may change about the simulated nodes. */
export interface Behaviour {
  /** Images that cannot be pulled. */
  readonly missingImages: Set<string>;
  /** How the init Job's container ends, by instance; 0 if not named. */
  readonly initFailures: Map<string, { readonly exitCode: number; readonly message: string }>;
  /** Instances whose pods no node takes. */
  readonly unschedulable: Set<string>;
  /** Claims stay unbound. */
  unboundClaims: boolean;
  /** Volumes of claims that are bound from now on are local to a node. */
  localVolumes: boolean;
  /** Nodes on which nothing runs any more; what the API says of them is the test's to change. */
  readonly deadNodes: Set<string>;
}

const nodeCount = 3;
const hostname = 'kubernetes.io/hostname';
const selectedNode = 'volume.kubernetes.io/selected-node';

/**
 * Scheduler, volumes and kubelets in one: binds claims, gives pods a node and an address, runs a simulated agent per
 * Postgres pod, and ends pods that are to be deleted.
 */
export class SimulatedKubelet {
  readonly behaviour: Behaviour = {
    missingImages: new Set(),
    initFailures: new Map(),
    unschedulable: new Set(),
    unboundClaims: false,
    localVolumes: false,
    deadNodes: new Set(),
  };
  /** By pod uid. */
  readonly agents = new Map<string, SimulatedAgent>();
  readonly #server: ApiServer;
  readonly #client: KubeClient;
  readonly #http: Agent;
  /** By claim uid: what the volume holds. */
  readonly #volumes = new Map<string, { readonly dataId: string; founder: boolean }>();
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> = Promise.resolve();
  #addresses = 1;

  constructor(server: ApiServer) {
    this.#server = server;
    this.#client = server.client({ fieldManager: 'simulated-kubelet' });
    this.#http = new Agent({ connect: { ca: server.ca } });
  }

  async start(): Promise<void> {
    for (let n = 0; n < nodeCount; n += 1) {
      await this.registerNode(`node-${n}`);
    }
    let busy = false;
    this.#timer = setInterval(() => {
      if (busy) return;
      busy = true;
      this.#working = this.#step()
        .catch((error) => {
          if (process.env.KOSCHEI_TEST_OUTPUT !== undefined) console.error('kubelet:', error);
        })
        .finally(() => {
          busy = false;
        });
    }, 50);
  }

  /** Makes a Node that is ready, as a kubelet that starts does. */
  async registerNode(name: string): Promise<void> {
    const metadata = { name, labels: { [hostname]: name } };
    await this.#client.create(resources.nodes, { apiVersion: 'v1', kind: 'Node', metadata });
    await this.#client.patchStatus(resources.nodes, metadata, {
      conditions: [{ type: 'Ready', status: 'True' }],
    });
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer);
    await this.#working;
    await Promise.all([...this.agents.values()].map((agent) => agent.stop()));
    await this.#client.close();
    await this.#http.close();
  }

  async #step(): Promise<void> {
    const [claims, pods] = await Promise.all([
      this.#client.list(resources.persistentVolumeClaims),
      this.#client.list(resources.pods),
    ]);
    for (const claim of claims.items) await this.#bind(claim);
    for (const pod of pods.items) {
      try {
        await this.#attend(pod, claims.items);
      } catch (error) {
        if (!isNotFound(error)) throw error;
      }
    }
    const present = new Set(pods.items.map((pod) => pod.metadata.uid));
    for (const [uid, agent] of this.agents) {
      if (present.has(uid)) continue;
      this.agents.delete(uid);
      await agent.stop();
    }
  }

  async #bind(claim: PersistentVolumeClaim): Promise<void> {
    if (this.behaviour.unboundClaims) return;
    const storage = claim.spec?.resources?.requests?.storage;
    if (claim.status?.phase === 'Bound' && claim.status.capacity?.storage === storage) return;
    if (this.behaviour.localVolumes && claim.spec?.volumeName === undefined)
      await this.#provision(claim, this.#nodeFor(claim.metadata.name));
    await this.#client.patchStatus(resources.persistentVolumeClaims, claim.metadata, {
      phase: 'Bound',
      capacity: { storage },
    });
  }

  /** A volume that only one node can mount, as a provisioner of local volumes makes it. */
  async #provision(claim: PersistentVolumeClaim, node: string): Promise<void> {
    const volumeName = `pv-${claim.metadata.uid}`;
    const { accessModes, resources: wanted } = claim.spec ?? {};
    const matchExpressions = [{ key: hostname, operator: 'In', values: [node] }];
    await this.#client.create(resources.persistentVolumes, {
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: { name: volumeName },
      spec: {
        accessModes,
        capacity: { storage: wanted?.requests?.storage },
        local: { path: '/volumes' },
        nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions }] } },
      },
    } as never);
    await this.#client.mergePatch(resources.persistentVolumeClaims, claim.metadata, {
      metadata: { annotations: { [selectedNode]: node } },
      spec: { volumeName },
    });
  }

  /** The node that the ordinal of an instance means, or the next one that lives. */
  #nodeFor(instance: string): string {
    const first = Number(/-(\d+)$/.exec(instance)?.[1] ?? 0);
    const nodes = Array.from({ length: nodeCount }, (_, n) => `node-${(first + n) % nodeCount}`);
    return nodes.find((node) => !this.behaviour.deadNodes.has(node)) ?? 'none';
  }

  /** What remains of a pod when its node is dead: the API still shows it until its Node is deleted. */
  async #bury(pod: Pod): Promise<void> {
    const { uid = '' } = pod.metadata;
    const agent = this.agents.get(uid);
    this.agents.delete(uid);
    await agent?.kill();
    const name = pod.spec?.nodeName ?? '';
    if ((await this.#client.find(resources.nodes, { name })) === undefined)
      await this.#client.remove(resources.pods, pod.metadata, { uid, gracePeriodSeconds: 0 });
    else if (agent !== undefined) await this.#status(pod, this.#running(pod, false));
  }

  async #attend(pod: Pod, claims: readonly PersistentVolumeClaim[]): Promise<void> {
    const { uid = '', deletionTimestamp } = pod.metadata;
    if (this.behaviour.deadNodes.has(pod.spec?.nodeName ?? '')) return await this.#bury(pod);
    if (deletionTimestamp !== undefined) {
      const agent = this.agents.get(uid);
      this.agents.delete(uid);
      await agent?.stop();
      await this.#client.remove(resources.pods, pod.metadata, { uid, gracePeriodSeconds: 0 });
      return;
    }
    const claim = claims.find(
      ({ metadata }) =>
        metadata.namespace === pod.metadata.namespace &&
        metadata.name === pod.metadata.labels?.[label.instance],
    );
    if (claim?.status?.phase !== 'Bound') return;
    if (this.behaviour.unschedulable.has(pod.metadata.labels?.[label.instance] ?? '')) {
      return await this.#cannotPlace(pod);
    }
    const tied =
      claim.spec?.volumeName === undefined ? undefined : claim.metadata.annotations?.[selectedNode];
    if (pod.spec?.nodeName === undefined) {
      if (tied !== undefined && this.behaviour.deadNodes.has(tied)) return await this.#cannotPlace(pod);
      await this.#place(pod, tied);
    }
    const images = [...(pod.spec?.initContainers ?? []), ...(pod.spec?.containers ?? [])].map(
      (each) => each.image ?? '',
    );
    const missing = images.find((image) => this.behaviour.missingImages.has(image));
    if (missing !== undefined) return await this.#cannotPull(pod, missing);
    if (pod.metadata.labels?.[componentLabel] === 'init') await this.#runInit(pod, claim);
    else await this.#runPostgres(pod, claim);
  }

  async #cannotPlace(pod: Pod): Promise<void> {
    if (pod.status?.conditions?.some(({ type }) => type === 'PodScheduled') === true) return;
    const message = `0/${nodeCount} nodes are available: ${nodeCount} node(s) didn't match node selector.`;
    await this.#status(pod, {
      phase: 'Pending',
      conditions: [{ type: 'PodScheduled', status: 'False', reason: 'Unschedulable', message }],
    });
  }

  async #place(pod: Pod, tied: string | undefined): Promise<void> {
    const { namespace = '', name } = pod.metadata;
    const node = tied ?? this.#nodeFor(pod.metadata.labels?.[label.instance] ?? '');
    const answer = await request(`${this.#server.url}/api/v1/namespaces/${namespace}/pods/${name}/binding`, {
      dispatcher: this.#http,
      method: 'POST',
      headers: { authorization: `Bearer ${this.#server.adminToken}`, 'content-type': 'application/json' },
      body: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Binding',
        metadata: { name, namespace },
        target: { apiVersion: 'v1', kind: 'Node', name: node },
      }),
    });
    const text = await answer.body.text();
    if (answer.statusCode >= 300 && answer.statusCode !== 409) throw new Error(text);
  }

  async #cannotPull(pod: Pod, image: string): Promise<void> {
    if (pod.status?.containerStatuses?.[0]?.state?.waiting?.reason === 'ImagePullBackOff') return;
    await this.#status(pod, {
      phase: 'Pending',
      containerStatuses: [
        {
          name: pod.spec?.containers[0]?.name,
          image,
          imageID: '',
          ready: false,
          restartCount: 0,
          state: { waiting: { reason: 'ImagePullBackOff', message: `Back-off pulling image "${image}"` } },
        },
      ],
    });
  }

  async #runInit(pod: Pod, claim: PersistentVolumeClaim): Promise<void> {
    if (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed') return;
    const failure = this.behaviour.initFailures.get(pod.metadata.labels?.[label.instance] ?? '');
    const mode = pod.spec?.containers[0]?.env?.find((each) => each.name === 'KOSCHEI_INIT_MODE')?.value;
    if (failure === undefined) {
      this.#volumes.set(claim.metadata.uid ?? '', { dataId: dataIdOf(claim), founder: mode === 'initdb' });
    }
    const terminated = failure ?? { exitCode: 0, message: '' };
    await this.#status(pod, {
      phase: failure === undefined ? 'Succeeded' : 'Failed',
      containerStatuses: [
        {
          name: 'init',
          image: pod.spec?.containers[0]?.image,
          imageID: 'x',
          ready: false,
          restartCount: 0,
          state: { terminated: { ...terminated, reason: failure === undefined ? 'Completed' : 'Error' } },
        },
      ],
    });
  }

  async #runPostgres(pod: Pod, claim: PersistentVolumeClaim): Promise<void> {
    const { uid = '', namespace = '' } = pod.metadata;
    if (this.agents.has(uid)) return;
    const instance = pod.metadata.labels?.[label.instance] ?? '';
    const cluster = pod.metadata.labels?.[label.cluster] ?? '';
    const env = (name: string) =>
      pod.spec?.containers[0]?.env?.find((each) => each.name === name)?.value ?? '';
    const mounted = pod.spec?.volumes?.find((volume) => volume.name === 'etcd-tls')?.secret?.secretName ?? '';
    const secret = await this.#client.get(resources.secrets, { namespace, name: mounted });
    const [cert, key, ca] = ['tls.crt', 'tls.key', 'ca.crt'].map((name) =>
      Buffer.from(read(secret, name) ?? ''),
    );
    if (cert === undefined || key === undefined || ca === undefined) throw new Error('no etcd certificate');
    const etcd = new Etcd({
      endpoints: env('KOSCHEI_ETCD_ENDPOINTS').split(','),
      timeoutMs: 1_000,
      tls: { cert, key, ca },
    });
    const volume = this.#volumes.get(claim.metadata.uid ?? '') ?? { dataId: dataIdOf(claim), founder: false };
    let ready = false;
    const agent = new SimulatedAgent({
      instance,
      podUid: uid,
      dataId: volume.dataId,
      etcd,
      keys: clusterKeys(namespace, cluster, env('KOSCHEI_CLUSTER_ID')),
      founder: volume.founder,
      onReady: (now) => {
        if (now === ready) return;
        ready = now;
        void this.#status(pod, this.#running(pod, now)).catch(() => {
          ready = !now;
        });
      },
    });
    this.agents.set(uid, agent);
    await this.#status(pod, this.#running(pod, false));
    await agent.start();
  }

  #running(pod: Pod, ready: boolean): object {
    const ip = pod.status?.podIP ?? `10.1.0.${this.#addresses++ % 250}`;
    const time = new Date().toISOString().replace(/\.\d+Z$/, 'Z');
    const condition = (type: string, status: boolean) => ({
      type,
      status: status ? 'True' : 'False',
      lastTransitionTime: time,
    });
    return {
      phase: 'Running',
      podIP: ip,
      podIPs: [{ ip }],
      conditions: [
        condition('PodScheduled', true),
        condition('Initialized', true),
        condition('ContainersReady', ready),
        condition('Ready', ready),
      ],
      containerStatuses: [
        {
          name: 'postgres',
          image: pod.spec?.containers[0]?.image,
          imageID: 'x',
          ready,
          restartCount: 0,
          state: { running: { startedAt: time } },
        },
      ],
    };
  }

  async #status(pod: Pod, status: object): Promise<void> {
    await this.#client.patchStatus(resources.pods, pod.metadata, status);
  }
}

/** The same claim always holds the same data. */
const dataIdOf = (claim: PersistentVolumeClaim): string =>
  createHash('sha256')
    .update(claim.metadata.uid ?? '')
    .digest('hex')
    .slice(0, 16);
