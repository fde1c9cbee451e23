import { afterAll, beforeAll, describe, expect } from 'vitest';
import { containerOf, hasFaults } from '../cluster/cluster.ts';
import { docker } from '../cluster/shell.ts';
import { forgetInEtcd } from '../etcd.ts';
import { now } from '../faults.ts';
import { eventually } from '../kubernetes.ts';
import type { Attempt } from '../ledger/history.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { healthyCluster, scenario } from '../scenario.ts';
import { startLedger, verifyLedger } from '../workload.ts';

/* A PgCluster is deleted by mistake and applied again: it goes on with the volumes that were kept. */

const spec = {
  postgres: { parameters: { shared_buffers: '32MB', max_connections: 50 } },
  replicas: { synchronous: 1, asynchronous: 1 },
  storage: { size: '512Mi' },
  resources: { requests: { cpu: '50m', memory: '128Mi' } },
};

let shop: PostgresCluster;
let written: { readonly run: string; readonly attempts: readonly Attempt[] };

beforeAll(async () => {
  shop = await healthyCluster('adoption', spec);
}, 300_000);

afterAll(async () => {
  await shop?.remove();
}, 180_000);

/** Writes rows for a while, with `meanwhile` happening in between. */
async function write(meanwhile: () => Promise<void>): Promise<typeof written> {
  const ledger = await startLedger(shop);
  try {
    await meanwhile();
    await ledger.acknowledges(now(), 30_000);
    return { run: ledger.run, attempts: await ledger.stop() };
  } finally {
    await ledger.stop().catch(() => {});
  }
}

/** Lets an instance receive no more WAL: what its pod sends to others is dropped on its node. */
async function cutOff(instance: string): Promise<() => Promise<void>> {
  const pods = await shop.pods();
  const { node, address } = await shop.podOf(instance);
  const rules = pods.flatMap((other) =>
    other.instance === instance ? [] : [['-s', `${address}`, '-d', `${other.address}`, '-j', 'DROP']],
  );
  const change = async (action: '-I' | '-D') => {
    for (const rule of rules) {
      await docker([...['exec', containerOf(node), 'iptables', '-t', 'raw', action, 'PREROUTING'], ...rule]);
    }
  };
  await change('-I');
  return () => change('-D');
}

describe('adoption', () => {
  scenario(
    'the volumes of a deleted PgCluster are adopted, one of them stale',
    () => shop,
    async () => {
      const { clusterId, timeline = 0 } = await shop.status();
      const password = await shop.secret('shop-app', 'password');
      const primary = await shop.knownPrimary();
      const [synchronous = ''] = await shop.synchronousStandbys();
      const stale = (await shop.pods())
        .map(({ instance }) => instance)
        .find((each) => each !== primary && each !== synchronous);
      if (stale === undefined) throw new Error('expected an asynchronous standby');

      // It misses a change of timeline and rows of both timelines.
      const heal = hasFaults ? await cutOff(stale) : async () => {};
      written = await write(async () => {
        await shop.requestSwitchover(synchronous);
        await shop.waitForOtherPrimary({ instance: primary }, 60_000);
      });
      if (hasFaults) expect((await shop.problems()).join('\n')).toContain(stale);
      await shop.delete();
      await heal();

      await shop.apply(spec);
      await shop.waitHealthy(180_000);
      expect((await shop.status()).clusterId).toBe(clusterId);
      expect((await shop.status()).timeline).toBeGreaterThan(timeline);
      expect(await shop.secret('shop-app', 'password')).toBe(password);
      expect((await shop.pods()).map(({ instance }) => instance)).toEqual(['shop-1', 'shop-2', 'shop-3']);
      await verifyLedger(shop, written.run, written.attempts);
    },
    500_000,
  );

  scenario(
    'without the state in etcd nothing is started until a person names the primary',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      await shop.delete();
      await forgetInEtcd(shop.namespace);
      await shop.apply(spec);
      await shop.waitForCondition('Ready', { status: 'False', reason: 'WaitingForDecision' }, 60_000);
      const { volumes = [], phase } = await shop.status();
      expect(phase).toBe('WaitingForDecision');
      expect(volumes.map(({ instance }) => instance)).toEqual(['shop-1', 'shop-2', 'shop-3']);
      expect(volumes.find(({ instance }) => instance === primary)?.note).toMatch(/primary/);
      expect(await shop.pods()).toEqual([]);

      await shop.annotate({ 'koschei.dev/adopt-primary': primary });
      await eventually('the named instance to lead', 120_000, async () => (await shop.primary()) === primary);
      await shop.waitHealthy(180_000);
      await verifyLedger(shop, written.run, written.attempts);
    },
    500_000,
  );
});
