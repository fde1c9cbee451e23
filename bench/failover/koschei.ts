import { setTimeout as sleep } from 'node:timers/promises';
import {
  healCluster,
  healNetwork,
  killNode,
  kubectl,
  pauseNode,
  startApiServer,
  startNode,
  stopApiServer,
  unpauseNode,
  waitForNode,
} from '../../e2e/cluster/cluster.ts';
import { controlPlane, nodes } from '../../e2e/cluster/settings.ts';
import { docker } from '../../e2e/cluster/shell.ts';
import { dumpDiagnostics } from '../../e2e/diagnostics.ts';
import { killPod, now, startOperator, stopOperator } from '../../e2e/faults.ts';
import { install, systemNamespace } from '../../e2e/install.ts';
import { eventually, kubernetes } from '../../e2e/kubernetes.ts';
import { messageOf, type Target } from '../../e2e/ledger/connection.ts';
import type { Route } from '../../e2e/ledger/history.ts';
import { PostgresCluster } from '../../e2e/postgres-cluster.ts';
import { appSecretName, podName, podsServiceName, port, readWriteServiceName } from '../../src/api/names.ts';
import { resources } from '../../src/kube/index.ts';
import { entriesOf, type FirstAcks, type Phases, replacementPhases, takeoverPhases } from './phases.ts';
import type { Fault, Row } from './rows.ts';
import type { Injected, Instance, Stack } from './stack.ts';

/** Does something, and tells when it began, milliseconds since the epoch. */
const timed = (command: () => Promise<unknown>) => async (): Promise<number> => {
  const at = now();
  await command();
  return at;
};

/** What begins the names of this benchmark's namespaces. */
const test = 'bench-failover';

/** Milliseconds for the agents to notice that the API server is gone, before the fault itself. */
const apiGoneMs = 2_000;

/** Koschei on the local cluster, its Kubernetes included. */
export class Koschei implements Stack {
  readonly lateMs = 15_000;
  readonly patienceMs = 45_000;
  readonly version: string;
  #cluster: PostgresCluster | undefined;
  #withApi = true;

  private constructor(version: string) {
    this.version = version;
  }

  /** Brings the Kubernetes up and installs Koschei there. */
  static async install(): Promise<Koschei> {
    await install();
    await healCluster();
    await startOperator();
    await removeLeftovers();
    const image = await kubectl([
      ...['-n', systemNamespace, 'get', 'deployment', 'koschei-operator'],
      ...['-o', 'jsonpath={.spec.template.spec.containers[0].image}'],
    ]);
    return new Koschei(`Koschei ${image.replace(/^.*:/, '')}`);
  }

  get routes(): readonly Route[] {
    // The Service cannot be led elsewhere without the API.
    return this.#withApi ? ['service', 'multi-host', 'direct'] : ['multi-host', 'direct'];
  }

  /** Whether faults happen with the API server and the operator at work. */
  async withApi(wanted: boolean): Promise<void> {
    if (wanted === this.#withApi) return;
    await (wanted ? startOperator() : stopOperator());
    this.#withApi = wanted;
  }

  get #postgres(): PostgresCluster {
    if (this.#cluster === undefined) throw new Error('the cluster has not been started');
    return this.#cluster;
  }

  async start(): Promise<void> {
    await this.withApi(true);
    this.#cluster = await PostgresCluster.create(test, {
      postgres: { parameters: { shared_buffers: '64MB', max_connections: 50 } },
      replicas: { synchronous: 1, asynchronous: 1 },
      storage: { size: '1Gi' },
      resources: { requests: { cpu: '50m', memory: '128Mi' } },
    });
    await this.waitHealthy(180_000);
    const used = new Set((await this.#instances()).map(({ node }) => node));
    if (used.size !== nodes.length) {
      throw new Error(`expected an instance on each of ${nodes.length} nodes, found them on ${[...used]}`);
    }
  }

  async close(): Promise<void> {
    if (this.#cluster === undefined) return;
    await healCluster();
    await this.withApi(true);
    await this.#cluster.remove();
    this.#cluster = undefined;
  }

  async target(): Promise<Target> {
    const { name, namespace } = this.#postgres;
    const secret = (key: string) => this.#postgres.secret(appSecretName(name), key);
    return {
      serviceHost: await this.#postgres.serviceAddress(readWriteServiceName(name)),
      podsHost: `${podsServiceName(name)}.${namespace}.svc.cluster.local`,
      port: port.postgres,
      nameServers: nodes.map(({ ip }) => ip),
      user: await secret('user'),
      password: await secret('password'),
      database: await secret('dbname'),
      tls: true,
    };
  }

  async #instances(): Promise<Instance[]> {
    return (await this.#postgres.pods()).flatMap(({ instance, address, node }) =>
      address === undefined || node === undefined ? [] : [{ name: instance, address, node }],
    );
  }

  async #instance(name: string | undefined): Promise<Instance> {
    const found = (await this.#instances()).find((each) => each.name === name);
    if (found === undefined) throw new Error(`expected an instance ${name} with a node, found none`);
    return found;
  }

  async primary(): Promise<Instance> {
    return this.#instance(await this.#postgres.knownPrimary());
  }

  async synchronousStandby(): Promise<Instance> {
    return this.#instance((await this.#postgres.synchronousStandbys())[0]);
  }

  async placeEtcdLeader(node: string, where: Row['etcdLeader']): Promise<void> {
    const members = await etcdMembers();
    const leader = await etcdLeader(members);
    const target = members.find((each) => (each.node === node) === (where === 'here'));
    if (target === undefined) throw new Error(`expected a member of etcd ${where} of ${node}, found none`);
    if ((leader.node === node) === (where === 'here')) return;
    const etcdctl = (...args: string[]) =>
      kubectl(['-n', systemNamespace, 'exec', leader.pod, '--', 'etcdctl', ...args]);
    const id = (await etcdctl('member', 'list'))
      .split('\n')
      .map((line) => line.split(', '))
      .find(([, , name]) => name === target.pod)?.[0];
    await etcdctl('move-leader', id ?? '');
    await eventually(`${target.pod} to lead etcd`, 10_000, async () => {
      return (await etcdLeader(members)).pod === target.pod;
    });
  }

  async inject(fault: Fault, victim: Instance): Promise<Injected> {
    const prepared = await this.#prepare(fault, victim);
    if (this.#withApi) {
      const at = await prepared.inject();
      const { undo, finish } = prepared;
      return undo === undefined
        ? { at }
        : {
            at,
            undo: async () => {
              await undo();
              await finish?.();
            },
          };
    }
    await stopApiServer();
    await sleep(apiGoneMs);
    const at = await prepared.inject();
    return {
      at,
      undo: async () => {
        await prepared.undo?.();
        await startApiServer();
        await prepared.finish?.();
      },
    };
  }

  /** Finds out all that needs the API, so that the fault itself is one command to the node. */
  async #prepare(
    fault: Fault,
    victim: Instance,
  ): Promise<{
    readonly inject: () => Promise<number>;
    readonly undo?: () => Promise<void>;
    /** What is left to do when the API answers again. */
    readonly finish?: () => Promise<void>;
  }> {
    const { node } = victim;
    const nodeIsBack = () => waitForNode(node);
    switch (fault) {
      case 'switchover':
        return { inject: timed(() => this.#postgres.requestSwitchover()) };
      case 'delete pod':
        return { inject: () => killPod(this.#postgres, victim.name) };
      case 'kill postgres': {
        const { postmaster } = await processesOf(node, this.#postgres.namespace, podName(victim.name));
        return { inject: timed(() => docker(['exec', node, 'kill', '-9', postmaster])) };
      }
      case 'lose container': {
        const { namespace } = this.#postgres;
        const { main } = await processesOf(node, namespace, podName(victim.name));
        const pod = await this.#postgres.podOf(victim.name);
        const program = `/var/lib/kubelet/pods/${pod.uid}/volumes/kubernetes.io~empty-dir/programs/koschei-init`;
        // Without its program the kubelet cannot start it again.
        const script = `mv ${program} ${program}.gone && kill -9 ${main}`;
        return {
          inject: timed(() => docker(['exec', node, 'sh', '-c', script])),
          undo: async () => {
            await docker(['exec', node, 'mv', `${program}.gone`, program]);
          },
          // The kubelet waits longer and longer between its attempts.
          finish: async () => {
            await killPod(this.#postgres, victim.name);
          },
        };
      }
      case 'freeze node':
        return { inject: timed(() => pauseNode(node)), undo: () => unpauseNode(node), finish: nodeIsBack };
      case 'kill node':
        return { inject: timed(() => killNode(node)), undo: () => startNode(node), finish: nodeIsBack };
      case 'isolate node':
        return { inject: timed(() => isolate(node)), undo: healNetwork, finish: nodeIsBack };
      case 'cut off etcd':
        return this.#cutOff(
          victim,
          (await etcdMembers()).map(({ address }) => address),
        );
      case 'cut off peers':
        return this.#cutOff(
          victim,
          (await this.#instances()).map(({ address }) => address).filter((each) => each !== victim.address),
        );
      case 'kill etcd leader': {
        const leader = await etcdLeader(await etcdMembers());
        const { main } = await processesOf(leader.node, systemNamespace, leader.pod, 'etcd');
        return { inject: timed(() => docker(['exec', leader.node, 'kill', '-9', main])) };
      }
    }
  }

  /** In the network of the pod alone: everything else on its node goes on. */
  async #cutOff(victim: Instance, addresses: readonly string[]) {
    // The sandbox holds the network, and outlives the other containers.
    const { main } = await processesOf(
      victim.node,
      this.#postgres.namespace,
      podName(victim.name),
      'sandbox',
    );
    const iptables = `nsenter --target ${main} --net iptables -w`;
    const rules = addresses.map(
      (each) => `${iptables} -I INPUT -s ${each} -j DROP && ${iptables} -I OUTPUT -d ${each} -j DROP`,
    );
    const inNode = (script: string) => docker(['exec', victim.node, 'sh', '-c', script]);
    return {
      inject: timed(() => inNode(rules.join(' && '))),
      undo: async () => {
        await inNode(`${iptables} -F INPUT && ${iptables} -F OUTPUT`);
      },
    };
  }

  async waitHealthy(deadline: number): Promise<void> {
    let problems: string[] = [];
    await eventually('the cluster to be healthy', deadline, async () => {
      problems = await this.#postgres.problems().catch((error: unknown) => [messageOf(error)]);
      // The status is the operator's.
      return problems.filter((each) => this.#withApi || !each.startsWith('the status says')).length === 0;
    }).catch((error: unknown) => {
      throw new Error(`${messageOf(error)}\n  - ${problems.join('\n  - ')}`, { cause: error });
    });
  }

  async sql(instance: Instance, sql: string): Promise<string> {
    return this.#postgres.sql(instance.name, sql);
  }

  async log(since: number): Promise<string> {
    const primary = await this.primary();
    return kubectl([
      ...['-n', this.#postgres.namespace, 'logs', podName(primary.name), '-c', 'postgres'],
      `--since-time=${new Date(since - 1000).toISOString()}`,
    ]);
  }

  phases(log: string, row: Row, faultAt: number, acks: FirstAcks): Phases {
    const phases = row.victim === 'standby' ? replacementPhases : takeoverPhases;
    return phases(entriesOf(log, faultAt), faultAt, acks);
  }

  async explain(name: string): Promise<string> {
    return dumpDiagnostics(name, this.#cluster);
  }
}

/** Removes the clusters of measurements that were broken off. */
async function removeLeftovers(): Promise<void> {
  const { client } = await kubernetes();
  for (const { metadata } of (await client.list(resources.namespaces, {})).items) {
    if (!metadata.name.startsWith(`e2e-${test}-`) || metadata.deletionTimestamp !== undefined) continue;
    await (await PostgresCluster.at(metadata.name, 'shop')).remove();
  }
}

/**
 * Cuts a node and its pods off from all others in both directions, at once: `isolateNode` takes two seconds for it.
 * `healNetwork` undoes it.
 */
async function isolate(node: string): Promise<void> {
  const own = nodes.find(({ name }) => name === node);
  const others = nodes.filter(({ name }) => name !== node);
  const far = [controlPlane.ip, ...others.flatMap(({ ip, podSubnet }) => [ip, podSubnet])];
  const rules = far.flatMap((each) => [
    `-I PREROUTING -s ${each} -j DROP`,
    `-I PREROUTING -s ${own?.podSubnet} -d ${each} -j DROP`,
  ]);
  const text = ['*raw', ...rules, 'COMMIT', ''].join('\n');
  await docker(['exec', '-i', node, 'iptables-restore', '-w', '--noflush'], { input: text });
}

interface EtcdMember {
  readonly pod: string;
  readonly node: string;
  readonly address: string;
}

async function etcdMembers(): Promise<EtcdMember[]> {
  const { client } = await kubernetes();
  const { items } = await client.list(resources.pods, {
    namespace: systemNamespace,
    labelSelector: 'app.kubernetes.io/name=koschei-etcd',
  });
  return items.map(({ metadata, spec, status }) => ({
    pod: metadata.name,
    node: spec?.nodeName ?? '',
    address: status?.podIP ?? '',
  }));
}

/** As the members' own metrics say. */
async function etcdLeader(members: readonly EtcdMember[]): Promise<EtcdMember> {
  return eventually('a leader of etcd', 15_000, async () => {
    for (const member of members) {
      const answer = await fetch(`http://${member.address}:2381/metrics`, {
        signal: AbortSignal.timeout(1_000),
      }).catch(() => undefined);
      if (/^etcd_server_is_leader 1$/m.test((await answer?.text()) ?? '')) return member;
    }
    return undefined;
  });
}

/**
 * The main process of a container and, in a container of an instance, its postmaster, by their ids in the node.
 * @param container `sandbox` is what holds the pod's network
 */
async function processesOf(
  node: string,
  namespace: string,
  pod: string,
  container = 'postgres',
): Promise<{ main: string; postmaster: string }> {
  const labels = { 'pod.namespace': namespace, 'pod.name': pod };
  const filter = [
    ...Object.entries(labels).map(([key, value]) => `labels."io.kubernetes.${key}"==${value}`),
    container === 'sandbox'
      ? 'labels."io.cri-containerd.kind"==sandbox'
      : `labels."io.kubernetes.container.name"==${container}`,
  ].join(',');
  const script = `
    for id in $(ctr -n k8s.io containers list -q '${filter}'); do
      main=$(ctr -n k8s.io tasks list | awk -v id="$id" '$1 == id && $3 == "RUNNING" { print $2 }')
      [ -n "$main" ] && break
    done
    space=$(readlink "/proc/$main/ns/pid")
    for each in /proc/[0-9]*; do
      [ "$(cat $each/comm 2>/dev/null)" = postgres ] && [ "$(readlink $each/ns/pid)" = "$space" ] || continue
      parent=$(awk '/^PPid/ { print $2 }' $each/status)
      [ "$(cat /proc/$parent/comm)" = postgres ] || postmaster=\${each#/proc/}
    done
    echo "$main $postmaster"`;
  const [main, postmaster] = (await docker(['exec', node, 'sh', '-c', script])).split(' ');
  if (main === undefined || main === '' || (container === 'postgres' && !postmaster)) {
    throw new Error(
      `expected a running container ${container} of ${namespace}/${pod} on ${node}, found none`,
    );
  }
  return { main, postmaster: postmaster ?? '' };
}
