import { homedir } from 'node:os';
import { onlyLocal } from './containers.ts';
import {
  controlPlane,
  foreignContext,
  localContext,
  localKubeconfig,
  type Member,
  nodes,
} from './settings.ts';
import { docker, run, succeeds, waitUntil } from './shell.ts';

export { imageName, loadImages, provideImage } from './images.ts';

/*
 * The cluster that tests run against, and the faults that they inject. Faults exist in the local cluster only
 * (`hasFaults`); with KOSCHEI_CONTEXT set they throw.
 */

/** The kubeconfig with `context`. Give both to every client. */
export const kubeconfig: string =
  foreignContext === undefined ? localKubeconfig : (process.env.KUBECONFIG ?? `${homedir()}/.kube/config`);

export const context: string = foreignContext ?? localContext;

/** Whether nodes can be killed, paused and cut off here. */
export const hasFaults: boolean = foreignContext === undefined;

/** Kubernetes names of the local cluster's nodes, which are also the names of their containers. */
export const nodeNames: readonly string[] = nodes.map(({ name }) => name);

/**
 * Runs kubectl against the cluster and returns what it printed.
 * @param input text for `-f -`
 * @throws {CommandError} if it fails.
 */
export async function kubectl(args: readonly string[], input?: string): Promise<string> {
  const options = input === undefined ? {} : { input };
  return run('kubectl', ['--kubeconfig', kubeconfig, '--context', context, ...args], options);
}

function memberOf(name: string): Member {
  onlyLocal('To inject faults');
  const member = [controlPlane, ...nodes].find((each) => each.name === name);
  if (member === undefined) {
    throw new Error(
      `Expected one of the nodes ${nodeNames.join(', ')} or ${controlPlane.name}, found ${name}.`,
    );
  }
  return member;
}

/** The container of a Kubernetes node; throws if it is no node of the local cluster. */
export function containerOf(node: string): string {
  return memberOf(node).name;
}

/** Name of the container with etcd, the API server, the scheduler and the controllers. */
export const controlPlaneContainer: string = controlPlane.name;

/** Power off: nothing on the node ends in an orderly way. */
export async function killNode(node: string): Promise<void> {
  await docker(['kill', containerOf(node)]);
}

/** Power on after `killNode`. Returns at once; see `waitForNode`. */
export async function startNode(node: string): Promise<void> {
  await docker(['start', containerOf(node)]);
}

/** Freezes all processes of a node, as a stopped virtual machine. */
export async function pauseNode(node: string): Promise<void> {
  await docker(['pause', containerOf(node)]);
}

export async function unpauseNode(node: string): Promise<void> {
  await docker(['unpause', containerOf(node)]);
}

/**
 * Waits until Kubernetes says that a node is ready, or is not. Ready means that the node has renewed its lease since
 * this call: for the first seconds a dead node still counts as ready.
 * @param deadline milliseconds
 */
export async function waitForNode(node: string, ready = true, deadline = 60_000): Promise<void> {
  const start = Date.now();
  const status = '{.status.conditions[?(@.type=="Ready")].status}';
  const lease = ['get', 'lease', '-n', 'kube-node-lease', node, '-o', 'jsonpath={.spec.renewTime}'];
  await waitUntil(`node ${node} to be ${ready ? 'ready' : 'not ready'}`, deadline, async () => {
    try {
      const found = await kubectl(['get', 'node', node, '-o', `jsonpath=${status}`]);
      if (!ready) return found !== 'True';
      return found === 'True' && Date.parse(await kubectl(lease)) > start;
    } catch {
      return false; // The API server may be away for a while.
    }
  });
}

/**
 * Cuts the network between two of the cluster's containers, in both directions and for their pods too. The control
 * plane is `controlPlaneContainer`.
 */
export async function cutNetwork(one: string, other: string): Promise<void> {
  for (const [here, there] of [
    [one, other],
    [other, one],
  ] as const) {
    for (const source of addressesOf(there)) {
      await docker([
        'exec',
        containerOf(here),
        'iptables',
        '-t',
        'raw',
        '-I',
        'PREROUTING',
        '-s',
        source,
        '-j',
        'DROP',
      ]);
    }
  }
}

/** Cuts a node off from all other nodes and from the control plane; its own pods still see each other. */
export async function isolateNode(node: string): Promise<void> {
  for (const other of [controlPlane, ...nodes]) if (other.name !== node) await cutNetwork(node, other.name);
}

/** Undoes every `cutNetwork` and `isolateNode`. */
export async function healNetwork(): Promise<void> {
  onlyLocal('To inject faults');
  for (const { name } of [controlPlane, ...nodes]) {
    if (await isRunning(name)) await docker(['exec', name, 'iptables', '-t', 'raw', '-F', 'PREROUTING']);
  }
}

function addressesOf(name: string): string[] {
  const member = memberOf(name);
  const node = nodes.find((each) => each.name === name);
  return node === undefined ? [member.ip] : [member.ip, node.podSubnet];
}

async function isRunning(container: string): Promise<boolean> {
  return (await docker(['container', 'inspect', '--format', '{{.State.Status}}', container])) === 'running';
}

/** Kills the API server, and nothing else, and keeps it away until `startApiServer`. */
export async function stopApiServer(): Promise<void> {
  const file = '/run/koschei/kube-apiserver';
  await inControlPlane(`touch ${file}.hold && kill -9 "$(cat ${file}.pid)" 2>/dev/null || true`);
  await waitUntil('the API server to be gone', 10_000, async () => !(await apiServerAnswers()));
}

/**
 * Lets the API server run again and waits until it is ready.
 * @param deadline milliseconds
 */
export async function startApiServer(deadline = 60_000): Promise<void> {
  await inControlPlane('rm -f /run/koschei/kube-apiserver.hold');
  await waitUntil('the API server to be ready', deadline, apiServerAnswers);
}

async function inControlPlane(script: string): Promise<void> {
  await docker(['exec', containerOf(controlPlane.name), 'sh', '-c', script]);
}

/** Whether the API server says that it is ready. */
export async function apiServerAnswers(): Promise<boolean> {
  const args = [
    '--kubeconfig',
    kubeconfig,
    '--context',
    context,
    '--request-timeout=3s',
    'get',
    '--raw',
    '/readyz',
  ];
  return succeeds('kubectl', args, { timeout: 5_000 });
}

/**
 * Brings the local cluster back to health after faults: all containers running, networks whole, the API server up
 * and all nodes ready.
 */
export async function healCluster(): Promise<void> {
  onlyLocal('To inject faults');
  for (const { name } of [controlPlane, ...nodes]) {
    const status = await docker(['container', 'inspect', '--format', '{{.State.Status}}', name]);
    if (status === 'paused') await docker(['unpause', name]);
    else if (status !== 'running') await docker(['start', name]);
  }
  await healNetwork();
  await startApiServer();
  for (const node of nodeNames) await waitForNode(node);
}
