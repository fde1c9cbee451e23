import { afterAll, beforeAll, expect, it } from 'vitest';
import { resources } from '../kube/index.ts';
import { read } from './cluster/desired/secrets.ts';
import { startWorld, type World } from './testing/world.ts';

let world: World;
beforeAll(async () => {
  world = await startWorld();
  await world.startOperator();
});
afterAll(async () => {
  await world?.stop();
});

const small = { storage: { size: '1Gi' } };
const isRunning = (cluster: { status?: { phase?: string | undefined } | undefined }) =>
  cluster.status?.phase === 'Running';

it('takes a PgCluster to running instances, with everything that belongs to it', async () => {
  await world.apply('shop', { ...small, replicas: { synchronous: 1, asynchronous: 2 } });
  const shop = await world.until('shop', 'shop runs', isRunning);
  expect(shop.status).toMatchObject({
    primary: 'shop-1',
    ready: '4/4',
    instances: 4,
    timeline: 1,
    sync: 'shop-2',
  });
  const secret = await world.client.get(resources.secrets, { namespace: 'default', name: 'shop-app' });
  expect(read(secret, 'host')).toBe('shop-rw.default.svc');
});
