import { annotation, label, leaderEndpointSliceName, podName, port } from '../api/names.ts';
import { atVersion, type EndpointSlice, isSubset, type KubeClient, resources } from '../kube/index.ts';
import type { RoutingApi } from './routing.ts';

export interface PodIdentity {
  readonly namespace: string;
  readonly cluster: string;
  readonly instance: string;
  readonly podUid: string;
  readonly address: string;
  readonly node: string;
}

/** The endpoint that points a slice at one pod. Pure. */
export function leaderEndpoint(pod: PodIdentity): Pick<EndpointSlice, 'endpoints' | 'ports'> {
  return {
    endpoints: [
      {
        addresses: [pod.address],
        conditions: { ready: true },
        targetRef: { kind: 'Pod', namespace: pod.namespace, name: podName(pod.instance), uid: pod.podUid },
      },
    ],
    ports: [{ name: 'postgres', port: port.postgres, protocol: 'TCP' }],
  };
}

/** What to write so that the slice points at this pod in this term; `later-term`: it is not this one's any more. Pure. */
export function claimed(
  found: EndpointSlice,
  pod: PodIdentity,
  term: number,
): EndpointSlice | 'unchanged' | 'later-term' {
  const { annotations } = found.metadata;
  if (Number(annotations?.[annotation.term] ?? 0) > term) return 'later-term';
  const wanted = leaderEndpoint(pod);
  const ours = { [annotation.term]: String(term) };
  if (isSubset(wanted, found) && isSubset(ours, annotations)) return 'unchanged';
  return { ...found, metadata: { ...found.metadata, annotations: { ...annotations, ...ours } }, ...wanted };
}

const nobody: Pick<EndpointSlice, 'endpoints'> = { endpoints: [] };

/** The two objects an agent may write: the slice of its cluster's `-rw` Service, and its own pod's label. */
export function kubeRouting(client: KubeClient, sliceApi: string, pod: PodIdentity): RoutingApi {
  const slices = atVersion(resources.endpointSlices, sliceApi);
  const slice = { namespace: pod.namespace, name: leaderEndpointSliceName(pod.cluster) };
  const timeoutMs = 3_000;
  return {
    claim: async (term) => {
      const found = await client.get(slices, slice, { timeoutMs });
      const wanted = claimed(found, pod, term);
      if (wanted === 'later-term') return false;
      // The resourceVersion that was read makes this a compare-and-swap: of two leaders the later term stays.
      if (wanted !== 'unchanged') await client.update(slices, wanted, { timeoutMs });
      return true;
    },
    release: async () => {
      const found = await client.get(slices, slice, { timeoutMs });
      if (found.endpoints?.some((e) => e.targetRef?.uid === pod.podUid) !== true) return;
      await client.update(slices, { ...found, ...nobody }, { timeoutMs });
    },
    setRole: async (role) => {
      await client.mergePatch(
        resources.pods,
        { namespace: pod.namespace, name: podName(pod.instance) },
        { metadata: { labels: { [label.role]: role ?? null } } },
        { timeoutMs },
      );
    },
  };
}
