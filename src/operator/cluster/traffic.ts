import { podName } from '../../api/names.ts';
import type { LeaderValue } from '../../dcs/index.ts';
import type { EndpointSlice, Pod } from '../../kube/index.ts';

type Endpoint = NonNullable<EndpointSlice['endpoints']>[number];

/**
 * The endpoints of the `-rw` slice that lead to nobody, or to somebody who does not lead: their pod is gone, has
 * another address, or etcd names another leader. Only the leader ever adds one.
 * @param leader undefined when it is not known who leads: then that is no reason
 */
export function staleEndpoints(
  slice: EndpointSlice,
  pods: readonly Pod[],
  leader: Pick<LeaderValue, 'instance'> | undefined,
): { readonly endpoint: Endpoint; readonly why: string }[] {
  return (slice.endpoints ?? []).flatMap((endpoint) => {
    const { targetRef, addresses } = endpoint;
    if (targetRef?.uid === undefined) return [];
    const name = targetRef.name ?? '';
    const pod = pods.find((each) => each.metadata.uid === targetRef.uid);
    if (pod === undefined) return [{ endpoint, why: `the pod ${name} it points to is gone` }];
    const ip = pod.status?.podIP;
    if (ip !== undefined && !addresses.includes(ip)) {
      return [{ endpoint, why: `the pod ${name} has the address ${ip} now` }];
    }
    if (leader !== undefined && pod.metadata.name !== podName(leader.instance)) {
      return [{ endpoint, why: `${leader.instance} leads, not ${name}` }];
    }
    return [];
  });
}

/** The slice without its stale endpoints; undefined when there are none. */
export function withoutStale(
  slice: EndpointSlice,
  pods: readonly Pod[],
  leader: Pick<LeaderValue, 'instance'> | undefined,
): EndpointSlice | undefined {
  const stale = staleEndpoints(slice, pods, leader).map(({ endpoint }) => endpoint);
  if (stale.length === 0) return undefined;
  return { ...slice, endpoints: (slice.endpoints ?? []).filter((endpoint) => !stale.includes(endpoint)) };
}
