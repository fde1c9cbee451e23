import { podName } from '../src/api/names.ts';
import { resources } from '../src/kube/index.ts';
import { kubectl } from './cluster/cluster.ts';
import { eventually, kubernetes } from './kubernetes.ts';
import type { PostgresCluster } from './postgres-cluster.ts';

/*
 * What goes wrong in the tests, besides what `cluster/cluster.ts` can do to nodes. Each returns when the fault was
 * there, in milliseconds since the epoch.
 */

/** Now, in milliseconds since the epoch with fractions, on a clock that does not jump. */
export const now = (): number => performance.timeOrigin + performance.now();

/** Deletes the pod of an instance without any grace, as `kubectl delete pod --grace-period=0 --force` does. */
export async function killPod(cluster: PostgresCluster, instance: string): Promise<number> {
  const { client } = await kubernetes();
  const at = now();
  await client.remove(
    resources.pods,
    { namespace: cluster.namespace, name: podName(instance) },
    { gracePeriodSeconds: 0 },
  );
  return at;
}

/** `kill -9` of the postmaster, inside its container. */
export async function killPostgres(cluster: PostgresCluster, instance: string): Promise<number> {
  const script = 'date +%s%3N; kill -9 "$(head -n 1 /var/lib/koschei/pgdata/postmaster.pid)"';
  return Number(await cluster.exec(instance, ['sh', '-c', script]));
}

/** Stops the agent, inside its container; its Postgres goes on, until koschei-init ends both at the deadline. */
export async function stopAgent(cluster: PostgresCluster, instance: string): Promise<number> {
  const script = `for process in /proc/[0-9]*; do
    case "$(tr '\\0' ' ' < $process/cmdline)" in
      /koschei/node*main.mjs*run*) date +%s%3N; kill -STOP "\${process#/proc/}";;
    esac
  done 2> /dev/null`;
  const at = Number(await cluster.exec(instance, ['sh', '-c', script]));
  if (!(at > 0)) throw new Error(`no agent runs on ${instance}`);
  return at;
}

/** `kubectl drain` as an administrator does it. */
export async function drain(node: string): Promise<number> {
  const at = now();
  await kubectl(['drain', node, '--ignore-daemonsets', '--delete-emptydir-data', '--timeout=120s']);
  return at;
}

export async function uncordon(node: string): Promise<void> {
  await kubectl(['uncordon', node]);
}

const operatorPods = 'app.kubernetes.io/name=koschei-operator';

/** Stops all replicas of the operator and waits until they are gone. */
export async function stopOperator(): Promise<void> {
  await kubectl(['-n', 'koschei-system', 'scale', 'deployment/koschei-operator', '--replicas=0']);
  const pods = ['pods', '-n', 'koschei-system', '-l', operatorPods];
  // Killed, not asked: it gets no chance to do anything more, and old kubelets take a minute to end a pod.
  await kubectl(['delete', ...pods, '--grace-period=0', '--force', '--wait=false']);
  await eventually('the operator to be gone', 60_000, async () => {
    return (await kubectl(['get', ...pods, '-o', 'name'])).trim() === '';
  });
}

/** Starts the operator again and waits until it is ready. */
export async function startOperator(): Promise<void> {
  await kubectl(['-n', 'koschei-system', 'scale', 'deployment/koschei-operator', '--replicas=2']);
  await kubectl([
    '-n',
    'koschei-system',
    'rollout',
    'status',
    'deployment/koschei-operator',
    '--timeout=90s',
  ]);
}
