import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { PgCluster } from '../../src/api/pgcluster.ts';
import { resources } from '../../src/kube/index.ts';
import { hasFaults, healCluster, killNode, kubectl, startNode, waitForNode } from '../cluster/cluster.ts';
import { stateInEtcd, withEtcd } from '../etcd.ts';
import { now } from '../faults.ts';
import { systemNamespace } from '../install.ts';
import { eventually, kubernetes } from '../kubernetes.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { healthyCluster, scenario, underLoad } from '../scenario.ts';

/* What other operators leave to people: a machine lost for good, and etcd with all that it knew. */

let shop: PostgresCluster;

beforeAll(async () => {
  if (!hasFaults) return;
  await healCluster();
  shop = await healthyCluster('disasters', {
    postgres: { parameters: { shared_buffers: '32MB', max_connections: 50 } },
    replicas: { synchronous: 1, asynchronous: 1 },
    failover: { replaceLostInstanceAfter: '30s' },
    storage: { size: '512Mi' },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
  });
}, 300_000);

afterAll(async () => {
  if (hasFaults) await healCluster();
  await shop?.remove();
}, 180_000);

const instances = async (): Promise<string[]> => (await shop.pods()).map(({ instance }) => instance).sort();
const system = (...args: string[]) => kubectl(['-n', systemNamespace, ...args]);

/** The managed etcd is made anew, empty, as docs/etcd.md says ("When the majority is lost for good"). */
async function loseEtcd(): Promise<void> {
  const members = [0, 1, 2].map((n) => `koschei-etcd-${n}`);
  await system('delete', 'configmap', 'koschei-etcd', '--ignore-not-found');
  await system('scale', 'statefulset', 'koschei-etcd', '--replicas=0');
  try {
    await system('wait', '--for=delete', ...members.map((name) => `pod/${name}`), '--timeout=120s');
    await system('delete', 'pvc', ...members.map((name) => `data-${name}`));
  } finally {
    await system('scale', 'statefulset', 'koschei-etcd', '--replicas=3');
  }
  await system('rollout', 'status', 'statefulset/koschei-etcd', '--timeout=120s');
}

describe.runIf(hasFaults)('disasters', () => {
  scenario(
    'the node of a standby is lost for good: another instance takes its place without a human',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const [synchronous = ''] = await shop.synchronousStandbys();
      const lost = (await instances()).find((each) => each !== primary && each !== synchronous) ?? '';
      const { node } = await shop.podOf(lost);
      const others = [await shop.podOf(primary), await shop.podOf(synchronous)].map((pod) => pod.node);
      expect(others, 'the instances are on different nodes').not.toContain(node);
      try {
        await underLoad(
          shop,
          async () => {
            const at = now();
            await killNode(node);
            await kubectl(['delete', 'node', node]);
            await shop.waitForCondition('Progressing', { reason: 'ReplacingInstance' }, 240_000);
            expect(now() - at).toBeGreaterThan(30_000);
            return at;
          },
          { healthyWithin: 180_000 },
        );
        expect(await instances()).toEqual([primary, synchronous, 'shop-4'].sort());
        expect((await shop.status()).detachedVolumes).toMatchObject([{ claim: lost, node }]);
      } finally {
        await startNode(node);
        await waitForNode(node);
      }
      // The machine is back with its disk: nothing starts on it, and the volume is still there.
      await shop.waitHealthy(60_000);
      expect(await instances()).toEqual([primary, synchronous, 'shop-4'].sort());
      const { client } = await kubernetes();
      const claims = await client.list(resources.persistentVolumeClaims, {
        namespace: shop.namespace,
        labelSelector: 'koschei.dev/detached',
      });
      expect(claims.items.map(({ metadata }) => metadata.name)).toEqual([lost]);
    },
    500_000,
  );

  scenario(
    'etcd loses everything under load: nobody is promoted, and one command makes the state anew without a loss',
    () => shop,
    async () => {
      const before = await shop.status();
      const primary = await shop.knownPrimary();
      await underLoad(
        shop,
        async () => {
          const at = now();
          await loseEtcd();
          await shop.waitForCondition('Ready', { status: 'False', reason: 'WaitingForDecision' }, 120_000);
          await eventually('every volume to be told of', 60_000, async () => {
            const { volumes = [] } = await shop.status();
            const told = volumes.filter(({ lsn, term }) => lsn !== undefined && term !== undefined);
            return told.length === 3;
          });
          const { volumes = [] } = await shop.status();
          expect(volumes.find(({ instance }) => instance === primary)?.term).toBe(before.term);
          for (const { instance } of await shop.pods()) {
            const answer = await shop.sql(instance, 'SELECT pg_is_in_recovery()').catch(() => 'stopped');
            expect(answer, `${instance} is no primary`).toMatch(/^(t|stopped)$/);
          }
          await shop.annotate({ 'koschei.dev/adopt-primary': 'auto' });
          await eventually('the last primary to lead', 120_000, async () => {
            return (await shop.primary()) === primary;
          });
          return at;
        },
        { healthyWithin: 180_000 },
      );
      const after = PgCluster.parse(await shop.read());
      expect(after.status?.primary).toBe(primary);
      expect(after.status?.term).toBeGreaterThan(before.term ?? 0);
      expect(after.status?.volumes).toBeUndefined();
      expect(after.metadata.annotations ?? {}).not.toHaveProperty(['koschei.dev/adopt-primary']);
    },
    600_000,
  );

  scenario(
    'etcd is set back to an older state under load: nobody obeys it, nothing is overwritten, and the same command helps',
    () => shop,
    async () => {
      const first = await shop.knownPrimary();
      const saved = (await stateInEtcd(shop.namespace)).filter(({ key }) => !key.includes('/members/'));
      await shop.requestSwitchover();
      const primary = await shop.waitForOtherPrimary({ instance: first }, 60_000);
      await shop.waitHealthy(60_000);
      const before = await shop.status();
      const dataIds = async () => {
        const { volumes = [] } = await shop.status();
        return volumes.map(({ instance, dataId, term }) => `${instance} ${dataId} ${term}`).sort();
      };
      await underLoad(
        shop,
        async () => {
          const at = now();
          await withEtcd((etcd) =>
            etcd.transact(
              [],
              saved.map(({ key, value }) => ({ op: 'put', key, value })),
            ),
          );
          await shop.waitForCondition('EtcdReachable', { status: 'False', reason: 'EtcdStateStale' }, 60_000);
          await shop.waitForCondition('Ready', { status: 'False', reason: 'WaitingForDecision' }, 10_000);
          const told = await dataIds();
          await sleep(15_000);
          for (const { instance } of await shop.pods()) {
            const answer = await shop.sql(instance, 'SELECT pg_is_in_recovery()').catch(() => 'stopped');
            expect(answer, `${instance} is no primary`).toMatch(/^(t|stopped)$/);
          }
          expect(await dataIds(), 'nobody was cloned').toEqual(told);
          await shop.annotate({ 'koschei.dev/adopt-primary': 'auto' });
          await eventually('the last primary to lead', 120_000, async () => {
            return (await shop.primary()) === primary;
          });
          return at;
        },
        { healthyWithin: 180_000 },
      );
      expect((await shop.status()).term).toBeGreaterThan(before.term ?? 0);
    },
    500_000,
  );
});
