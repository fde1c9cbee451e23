import { afterAll, beforeAll, expect, it } from 'vitest';
import type { PgCluster } from '../api/pgcluster.ts';
import { resources } from '../kube/index.ts';
import { eventually } from '../kube/testing/eventually.ts';
import { startWorld, type World } from './testing/world.ts';

/* Replicas of the operator as processes of their own, killed in the middle of their work. */

let world: World;
beforeAll(async () => {
  world = await startWorld();
});
afterAll(async () => {
  await world?.stop();
});

const spec = { storage: { size: '1Gi' }, replicas: { synchronous: 1, asynchronous: 2 } };
const namespace = 'default';
const settled = (cluster: PgCluster) =>
  cluster.status?.phase === 'Running' && cluster.status.observedGeneration === cluster.metadata.generation;
const labelSelector = (cluster: string) => ({ 'koschei.dev/cluster': cluster });
const podUids = async (cluster: string) => {
  const { items } = await world.client.list(resources.pods, {
    namespace,
    labelSelector: { ...labelSelector(cluster), 'app.kubernetes.io/component': 'postgres' },
  });
  return new Map(items.map(({ metadata }) => [metadata.name, metadata.uid]));
};
const holder = async (): Promise<string> => {
  const lease = await world.client.find(resources.leases, {
    namespace: 'koschei-system',
    name: 'koschei-operator',
  });
  return lease?.spec?.holderIdentity ?? '';
};
const leads = (replica: string) =>
  eventually(`${replica} leads`, async () => (await holder()).startsWith(replica), 60_000);
const passwordOf = async (cluster: string) =>
  (await world.client.find(resources.secrets, { namespace, name: `${cluster}-app` }))?.data?.password;

it('a replica takes over from one that was killed, finishes what it began, and begins nothing twice', async () => {
  const first = await world.startReplica('replica-1');
  await leads('replica-1');
  await world.apply('bystander', { ...spec, replicas: { synchronous: 0, asynchronous: 1 } });
  await world.until('bystander', 'it runs', settled, { timeoutMs: 60_000 });
  const bystander = await podUids('bystander');
  const second = await world.startReplica('replica-2');

  // Killed with the work half done: no end of its own, and the Lease is not given up.
  await world.apply('shop', spec);
  await eventually('the first instance is there', async () => (await world.instances('shop')).length > 0);
  await first.stop();
  const begun = await world.cluster('shop');
  const password = await passwordOf('shop');
  expect(settled(begun)).toBe(false);
  expect(begun.status?.clusterId).toBeDefined();
  expect(password).toBeDefined();
  expect(await holder()).toContain('replica-1');

  await leads('replica-2');
  const shop = await world.until('shop', 'it runs', (c) => settled(c) && c.status?.ready === '4/4', {
    timeoutMs: 60_000,
  });
  expect(shop.status).toMatchObject({ clusterId: begun.status?.clusterId, primary: 'shop-1', term: 1 });
  expect(await passwordOf('shop')).toBe(password);
  const modes = (await world.instances('shop')).map((instance) => instance.spec.initMode);
  expect(modes).toEqual(['initdb', 'clone', 'clone', 'clone']);
  for (const resource of [resources.statefulSets, resources.persistentVolumeClaims]) {
    const { items } = await world.client.list(resource, { namespace, labelSelector: labelSelector('shop') });
    expect(items).toHaveLength(4);
  }

  // Again, between two pods of a rolling change.
  const old = await podUids('shop');
  const changed = async () =>
    [...(await podUids('shop'))].filter(([name, uid]) => old.get(name) !== uid).length;
  await world.apply('shop', { ...spec, postgres: { image: 'localhost/postgres:17.minor' } });
  await eventually('the first pod is new', async () => (await changed()) > 0);
  await second.stop();
  expect(await changed()).toBeLessThan(4);
  const third = await world.startReplica('replica-3');
  await leads('replica-3');
  const renewed = await world.until(
    'shop',
    'every pod is new',
    (c) => settled(c) && c.status?.currentImage === 'localhost/postgres:17.minor' && c.status.ready === '4/4',
    { timeoutMs: 90_000 },
  );
  expect(await changed()).toBe(4);
  expect(renewed.status).toMatchObject({ clusterId: begun.status?.clusterId, term: 2 });

  // A cluster that nothing was asked of was not touched by any of it.
  expect(await podUids('bystander')).toEqual(bystander);
  expect((await world.cluster('bystander')).status).toMatchObject({ phase: 'Running', term: 1 });
  await third.stop();
}, 240_000);
