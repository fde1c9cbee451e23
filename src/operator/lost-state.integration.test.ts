import { afterAll, beforeAll, expect, it } from 'vitest';
import { annotation } from '../api/names.ts';
import type { PgCluster } from '../api/pgcluster.ts';
import { clusterKeys, type Etcd } from '../dcs/index.ts';
import { resources } from '../kube/index.ts';
import { eventually } from '../kube/testing/eventually.ts';
import { startWorld, type World } from './testing/world.ts';

/* etcd loses the state of clusters whose instances run, or gets an older one back. */

let world: World;
beforeAll(async () => {
  world = await startWorld();
  await world.startOperator();
});
afterAll(async () => {
  await world?.stop();
});

const namespace = 'default';
const spec = { storage: { size: '1Gi' }, replicas: { synchronous: 1, asynchronous: 1 } };
const settled = (cluster: PgCluster) =>
  cluster.status?.phase === 'Running' && cluster.status.observedGeneration === cluster.metadata.generation;
const condition = (cluster: PgCluster, type: string) =>
  cluster.status?.conditions?.find((each) => each.type === type);
const annotate = (name: string, value: string) =>
  world.client.mergePatch(
    resources.pgClusters,
    { namespace, name },
    { metadata: { annotations: { [annotation.adoptPrimary]: value } } },
  );
const withRoot = async <T>(use: (etcd: Etcd) => Promise<T>): Promise<T> => {
  const etcd = await world.asRoot();
  try {
    return await use(etcd);
  } finally {
    etcd.close();
  }
};
const keysOf = ({ metadata, status }: PgCluster) =>
  clusterKeys(metadata.namespace, metadata.name, status?.clusterId ?? '');

/** Runs a cluster and has another instance than the first lead it, in term 2. */
async function switchedOver(name: string): Promise<PgCluster> {
  await world.apply(name, spec);
  const first = await world.until(name, 'it runs', settled, { timeoutMs: 60_000 });
  await world.client.mergePatch(
    resources.pgClusters,
    { namespace, name },
    { metadata: { annotations: { [annotation.switchover]: 'any' } } },
  );
  return await world
    .until(name, 'another one leads', (c) => settled(c) && c.status?.term === 2, {
      timeoutMs: 60_000,
    })
    .then((second) => {
      expect(second.status?.primary).not.toBe(first.status?.primary);
      return second;
    });
}

it('etcd loses the state of a cluster: the status tells of each instance, and "auto" goes on with who led last', async () => {
  const before = await switchedOver('wiped');
  const { primary = '' } = before.status ?? {};
  const since = world.writes.length;
  await world.loseState(before);
  const lost = await world.until(
    'wiped',
    'every agent has said how far its data go',
    (c) =>
      c.status?.phase === 'WaitingForDecision' &&
      c.status.volumes?.length === 3 &&
      c.status.volumes.every(({ lsn, term }) => lsn !== undefined && term !== undefined),
    { timeoutMs: 60_000 },
  );
  expect(condition(lost, 'EtcdReachable')).toMatchObject({ status: 'False', reason: 'EtcdStateLost' });
  expect(lost.status?.volumes?.find(({ instance }) => instance === primary)).toMatchObject({ term: 2 });
  // Nothing but the status was written.
  const changes = world.writes.slice(since).filter(({ resource }) => !/status|events/.test(resource));
  expect(changes.filter(({ resource }) => !['pgclusters', 'pginstances'].includes(resource))).toEqual([]);
  const { keys } = await withRoot((etcd) => etcd.readPrefix(keysOf(before).prefix));
  expect(keys.map(({ key }) => key).filter((key) => !key.includes('/members/'))).toEqual([]);

  await annotate('wiped', 'auto');
  const after = await world.until('wiped', 'it runs again', settled, { timeoutMs: 60_000 });
  expect(after.status).toMatchObject({ primary, term: 3, ready: '3/3' });
  expect(after.status?.timeline).toBeGreaterThan(before.status?.timeline ?? 0);
  expect(after.status?.volumes).toBeUndefined();
  await eventually('the decision is forgotten', async () => {
    const { metadata } = await world.cluster('wiped');
    return metadata.annotations?.[annotation.adoptPrimary] === undefined;
  });
}, 240_000);

it('etcd gets an older state back: nothing is changed until a person decides, and then it is made anew', async () => {
  await world.apply('older', spec);
  const first = await world.until('older', 'it runs', settled, { timeoutMs: 60_000 });
  const keys = keysOf(first);
  const saved = (await withRoot((etcd) => etcd.readPrefix(keys.prefix))).keys.filter(
    ({ key }) => !key.includes('/members/'),
  );
  const before = await switchedOver('older');
  const { primary = '' } = before.status ?? {};
  await withRoot((etcd) =>
    etcd.transact(
      [],
      saved.map(({ key, value }) => ({ op: 'put', key, value })),
    ),
  );
  const stale = await world.until(
    'older',
    'it is noticed',
    (c) => condition(c, 'EtcdReachable')?.reason === 'EtcdStateStale',
    { timeoutMs: 60_000 },
  );
  expect(condition(stale, 'EtcdReachable')?.message).toMatch(/leads term 1, while there has been a term 2/);
  expect(condition(stale, 'Ready')).toMatchObject({ status: 'False', reason: 'WaitingForDecision' });
  expect(stale.status?.volumes).toHaveLength(3);

  // What is asked for is left for later.
  await world.apply('older', { ...spec, replicas: { synchronous: 1, asynchronous: 2 } });
  await world.until('older', 'it is read', (c) => c.status?.observedGeneration === c.metadata.generation);
  expect(await world.instances('older')).toHaveLength(3);

  await annotate('older', primary);
  const after = await world.until('older', 'it runs again', (c) => settled(c) && c.status?.ready === '4/4', {
    timeoutMs: 60_000,
  });
  expect(after.status?.primary).toBe(primary);
  expect(after.status?.term).toBeGreaterThan(before.status?.term ?? 0);
}, 240_000);
