import { setTimeout as sleep } from 'node:timers/promises';
import {
  atVersion,
  type ChosenApis,
  chooseApis,
  discover,
  type EndpointSlice,
  KubeClient,
  kubeconfigCredentials,
  type Resource,
  resources,
} from '../src/kube/index.ts';
import { context, kubeconfig } from './cluster/cluster.ts';

/** A client of the cluster under test, and the versions of the APIs that it has. */
export interface Kubernetes {
  readonly client: KubeClient;
  readonly apis: ChosenApis;
  readonly endpointSlices: Resource<EndpointSlice>;
}

let connected: Promise<Kubernetes> | undefined;

/** Connects once per process. */
export function kubernetes(): Promise<Kubernetes> {
  connected ??= (async () => {
    const client = new KubeClient({
      credentials: await kubeconfigCredentials({ file: kubeconfig, context }),
      fieldManager: 'koschei-tests',
    });
    const apis = chooseApis(await discover(client));
    return { client, apis, endpointSlices: atVersion(resources.endpointSlices, apis.endpointSlice) };
  })();
  return connected;
}

/**
 * Removes pods that are being deleted and whose containers have all ended. Kubelets before Kubernetes 1.22 may keep such
 * a pod for another minute, until they next collect dead containers; who waits for the end of a pod need not.
 */
export async function sweepDeadPods(namespace: string, labelSelector?: string): Promise<void> {
  const { client } = await kubernetes();
  const { items } = await client.list(resources.pods, { namespace, labelSelector });
  for (const { metadata, status } of items) {
    const containers = status?.containerStatuses ?? [];
    // A container that was collected already shows as one that has not been made yet.
    const dead = containers.length > 0 && containers.every(({ state }) => state?.running === undefined);
    if (metadata.deletionTimestamp === undefined || !dead) continue;
    const { name, uid } = metadata;
    await client.remove(resources.pods, { namespace, name }, { gracePeriodSeconds: 0, uid: uid ?? '' });
  }
}

/**
 * Waits until `check` returns neither undefined nor false, and returns that. An error counts as "not yet".
 * @param deadline milliseconds from now
 * @throws {Error} at the deadline, naming what was waited for and the last error.
 */
export async function eventually<T>(
  what: string,
  deadline: number,
  check: () => Promise<T | undefined | false>,
  pause = 200,
): Promise<T> {
  const end = performance.now() + deadline;
  for (;;) {
    let last: unknown;
    try {
      const result = await check();
      if (result !== undefined && result !== false) return result;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) {
      const why = last instanceof Error ? `: ${last.message}` : '';
      throw new Error(`Waited ${deadline / 1000} s in vain for ${what}${why}`, { cause: last });
    }
    await sleep(pause);
  }
}
