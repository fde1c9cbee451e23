import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';
import type { PgCluster } from '../api/pgcluster.ts';
import { resources } from '../kube/index.ts';
import { eventually } from '../kube/testing/eventually.ts';
import { startWorld, type World } from './testing/world.ts';

/* Nodes that are lost for good together with the volumes on them. */

let world: World;
beforeAll(async () => {
  world = await startWorld();
  world.kubelet.behaviour.localVolumes = true;
  await world.startOperator();
});
afterAll(async () => {
  await world?.stop();
});
afterEach(() => {
  world.kubelet.behaviour.deadNodes.clear();
});

const namespace = 'default';
const spec = (asynchronous: number) => ({
  storage: { size: '1Gi', wal: { size: '1Gi' } },
  replicas: { synchronous: 1, asynchronous },
  failover: { replaceLostInstanceAfter: '30s' },
});
const settled = (cluster: PgCluster) =>
  cluster.status?.phase === 'Running' && cluster.status.observedGeneration === cluster.metadata.generation;
const condition = (cluster: PgCluster, type: string) =>
  cluster.status?.conditions?.find((each) => each.type === type);
const names = async (cluster: string) =>
  (await world.instances(cluster)).map(({ metadata }) => metadata.name).sort();
const eventsOf = async (name: string) =>
  (await world.client.list(resources.events, { namespace })).items
    .filter((event) => event.involvedObject.name === name)
    .map((event) => event.reason);
const nodeOf = async (instance: string) =>
  (await world.client.get(resources.pods, { namespace, name: `${instance}-0` })).spec?.nodeName ?? '';
const markNode = (name: string, status: 'True' | 'Unknown') =>
  world.client.patchStatus(
    resources.nodes,
    { name },
    {
      conditions: [
        { type: 'Ready', status, lastTransitionTime: new Date().toISOString().replace(/\.\d+Z$/, 'Z') },
      ],
    },
  );

it('the instance on a node that is deleted is replaced; its volumes stay, and nothing starts on them again', async () => {
  await world.apply('shop', spec(1));
  const before = await world.until('shop', 'it runs', settled, { timeoutMs: 60_000 });
  const { primary = '', synchronousStandbys: [sync = ''] = [] } = before.status ?? {};
  const lost = (await names('shop')).find((name) => name !== primary && name !== sync) ?? '';
  const node = await nodeOf(lost);
  expect([await nodeOf(primary), await nodeOf(sync)]).not.toContain(node);

  const { deadNodes } = world.kubelet.behaviour;
  deadNodes.add(node);
  const at = Date.now();
  await world.client.remove(resources.nodes, { name: node });
  await world.until(
    'shop',
    'it is said when it will be replaced',
    (c) =>
      condition(c, 'Degraded')?.reason === 'WaitingForNode' &&
      condition(c, 'Degraded')?.message.includes('is replaced on another node if') === true,
    { timeoutMs: 30_000 },
  );
  const after = await world.until(
    'shop',
    'another one has taken its place',
    (c) => settled(c) && c.status?.ready === '3/3' && c.status.detachedVolumes !== undefined,
    { timeoutMs: 90_000 },
  );
  expect(Date.now() - at).toBeGreaterThan(30_000);
  expect(await names('shop')).toEqual([primary, sync, 'shop-4'].sort());
  expect(after.status).toMatchObject({ primary, term: before.status?.term });
  expect(after.status?.detachedVolumes).toMatchObject([{ claim: lost, node }]);
  expect(await eventsOf('shop')).toEqual(expect.arrayContaining(['InstanceReplaced', 'VolumeDetached']));
  const detached = await world.client.list(resources.persistentVolumeClaims, {
    namespace,
    labelSelector: { 'koschei.dev/detached': 'true' },
  });
  expect(detached.items.map(({ metadata }) => metadata.name).sort()).toEqual([lost, `${lost}-wal`]);

  // The machine comes back with its disk.
  deadNodes.delete(node);
  await world.kubelet.registerNode(node);
  await sleep(3_000);
  expect(await names('shop')).toEqual([primary, sync, 'shop-4'].sort());
  const pods = await world.client.list(resources.pods, { namespace });
  expect(pods.items.map(({ metadata }) => metadata.name)).not.toContain(`${lost}-0`);
  // Not even when more instances are asked for.
  await world.apply('shop', spec(2));
  await world.until('shop', 'there is one more', (c) => settled(c) && c.status?.ready === '4/4', {
    timeoutMs: 60_000,
  });
  expect(await names('shop')).toEqual([primary, sync, 'shop-4', 'shop-5'].sort());

  // Nor is it adopted by a PgCluster of the same name.
  await world.client.remove(resources.pgClusters, { namespace, name: 'shop' });
  await eventually(
    'the PgCluster is gone',
    async () => (await world.client.find(resources.pgClusters, { namespace, name: 'shop' })) === undefined,
    60_000,
  );
  await world.apply('shop', spec(2));
  await world.until('shop', 'it runs again', (c) => settled(c) && c.status?.ready === '4/4', {
    timeoutMs: 60_000,
  });
  expect(await names('shop')).toEqual([primary, sync, 'shop-4', 'shop-5'].sort());
}, 300_000);

it('an instance on a node that is not ready is replaced, but not while most nodes are not', async () => {
  await world.apply('rest', spec(1));
  const before = await world.until('rest', 'it runs', settled, { timeoutMs: 60_000 });
  const { primary = '', synchronousStandbys: [sync = ''] = [] } = before.status ?? {};
  const lost = (await names('rest')).find((name) => name !== primary && name !== sync) ?? '';
  const node = await nodeOf(lost);
  // What the other nodes run goes on: it is the control plane that has lost touch with another one, too.
  const other = await nodeOf(sync);
  world.kubelet.behaviour.deadNodes.add(node);
  try {
    await Promise.all([markNode(node, 'Unknown'), markNode(other, 'Unknown')]);
    const held = await world.until(
      'rest',
      'it is said why it is not replaced',
      (c) => condition(c, 'Degraded')?.message.includes('only 1 of 3 nodes are ready') === true,
      { timeoutMs: 90_000 },
    );
    expect(held.status?.detachedVolumes).toBeUndefined();
    expect(await names('rest')).toEqual([primary, sync, lost].sort());
    await markNode(other, 'True');
    await world.until(
      'rest',
      'another one has taken its place',
      (c) => settled(c) && c.status?.ready === '3/3' && c.status.detachedVolumes?.[0]?.claim === lost,
      { timeoutMs: 90_000 },
    );
    expect(await names('rest')).toEqual([primary, sync, 'rest-4'].sort());
  } finally {
    world.kubelet.behaviour.deadNodes.delete(node);
    await markNode(node, 'True');
  }
}, 300_000);

it('the primary is never replaced', async () => {
  await world.apply('lone', { ...spec(0), replicas: { synchronous: 0, asynchronous: 0 } });
  await world.until('lone', 'it runs', settled, { timeoutMs: 60_000 });
  const node = await nodeOf('lone-1');
  world.kubelet.behaviour.deadNodes.add(node);
  try {
    await world.client.remove(resources.nodes, { name: node });
    const held = await world.until(
      'lone',
      'it is said why it is not replaced',
      (c) => condition(c, 'Degraded')?.message.includes('a failover must come first') === true,
      { timeoutMs: 90_000 },
    );
    expect(held.status?.detachedVolumes).toBeUndefined();
    expect(await names('lone')).toEqual(['lone-1']);
  } finally {
    world.kubelet.behaviour.deadNodes.delete(node);
    await world.kubelet.registerNode(node);
  }
  await world.until('lone', 'it runs again', settled, { timeoutMs: 60_000 });
}, 300_000);
