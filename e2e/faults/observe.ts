import * as z from 'zod';
import { historyValue } from '../../src/dcs/index.ts';
import { kubectl } from '../cluster/cluster.ts';
import { stateInEtcd } from '../etcd.ts';
import { systemNamespace } from '../install.ts';
import type { TermRecord } from '../ledger/primaries.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { disksOf } from './disks.ts';
import type { EtcdMember, Facts, Instance } from './fault.ts';

/** Looks at everything that faults are planned from. @throws {Error} when the cluster has no primary or a pod no node. */
export async function observe(cluster: PostgresCluster): Promise<Facts> {
  const [pods, primary, synchronous, disks, etcd] = await Promise.all([
    cluster.pods(),
    cluster.knownPrimary(),
    cluster.synchronousStandbys(),
    disksOf(cluster.namespace),
    etcdMembers(),
  ]);
  const instances = pods.map(({ instance, uid, address, node }): Instance => {
    if (address === undefined || node === undefined) {
      throw new Error(`expected ${instance} to run on a node, found no address`);
    }
    const role =
      instance === primary ? 'primary' : synchronous.includes(instance) ? 'synchronous' : 'asynchronous';
    return { name: instance, uid, address, node, role, disks: disks.get(instance) ?? {} };
  });
  return { namespace: cluster.namespace, cluster: cluster.name, instances, etcd };
}

const PodList = z.object({
  items: z.array(
    z.object({
      metadata: z.object({ name: z.string(), uid: z.string() }),
      spec: z.object({ nodeName: z.string() }),
      status: z.object({ podIP: z.string() }),
    }),
  ),
});
/** What `etcdctl endpoint status -w json` prints, as far as it is used. 64-bit numbers: compared, never calculated with. */
const EndpointStatus = z.tuple([
  z.object({
    Status: z.object({ header: z.object({ member_id: z.number() }), leader: z.number() }),
  }),
]);

/** The members of the managed etcd, and which of them leads. */
async function etcdMembers(): Promise<EtcdMember[]> {
  const selector = ['-n', systemNamespace, 'get', 'pods', '-l', 'app.kubernetes.io/name=koschei-etcd'];
  const { items } = PodList.parse(JSON.parse(await kubectl([...selector, '-o', 'json'])));
  return Promise.all(
    items.map(async ({ metadata: { name, uid }, spec, status }) => {
      const exec = ['-n', systemNamespace, 'exec', name, '--', 'etcdctl', 'endpoint', 'status', '-w', 'json'];
      const [{ Status }] = EndpointStatus.parse(JSON.parse(await kubectl(exec)));
      return {
        ...{ name, uid, address: status.podIP, node: spec.nodeName },
        leads: Status.leader === Status.header.member_id,
      };
    }),
  );
}

/** The terms of a namespace's cluster, as etcd's `history/` says, in order. */
export async function termsOf(namespace: string): Promise<TermRecord[]> {
  const keys = await stateInEtcd(namespace);
  return keys
    .filter(({ key }) => key.includes('/history/'))
    .map(({ value }) => historyValue.parse(JSON.parse(value)))
    .map(({ term, timeline, instance, at }) => ({ term, timeline, instance, at: Date.parse(at) }))
    .sort((a, b) => a.term - b.term);
}
