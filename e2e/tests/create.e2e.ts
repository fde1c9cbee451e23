import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { podName, walClaimName } from '../../src/api/names.ts';
import { clusterKeys } from '../../src/dcs/index.ts';
import { context, imageName, kubeconfig, kubectl } from '../cluster/cluster.ts';
import { repository } from '../cluster/settings.ts';
import { run } from '../cluster/shell.ts';
import { accessInEtcd, stateInEtcd } from '../etcd.ts';
import { killPod, now } from '../faults.ts';
import { PostgresCluster } from '../postgres-cluster.ts';
import { expectShortGaps, healthyCluster, scenario, underLoad } from '../scenario.ts';

const example = (name: string) =>
  parse(readFileSync(`${repository}/deploy/examples/${name}.yaml`, 'utf8')) as { spec: never };

describe('creation', () => {
  let cluster: PostgresCluster | undefined;

  scenario(
    'the smallest spec makes a primary with a synchronous and an asynchronous standby',
    () => cluster,
    async () => {
      cluster = await healthyCluster('smallest', example('minimal').spec);
      expect(await cluster.wanted()).toEqual({ instances: 3, synchronous: 1 });
      const nodes = (await cluster.pods()).map(({ node }) => node);
      expect(new Set(nodes).size, 'each on a node of its own').toBe(3);

      const rows = await kubectl(['-n', cluster.namespace, 'get', 'pgc,pgi', '--no-headers']);
      expect(rows).toMatch(/pgcluster\S+\s+shop-1\s+3\/3\s+shop-\d\s+\d+\s+Running/);
      expect(rows).toMatch(/shop-1\s+shop\s+primary\s/);
      expect(rows).toMatch(/shop-\d\s+shop\s+standby\s+sync\s.*Streaming/);
      expect(rows).toMatch(/shop-\d\s+shop\s+standby\s+async\s.*Streaming/);

      const report = await underLoad(cluster, async (ledger) => {
        const at = await killPod(cluster as PostgresCluster, 'shop-1');
        await (cluster as PostgresCluster).waitForOtherPrimary({ instance: 'shop-1' }, 40_000);
        await ledger.acknowledges(now(), 30_000);
        return at;
      });
      expectShortGaps(report, 12_000);
    },
    400_000,
  );

  test('deletionPolicy Delete leaves nothing', async () => {
    if (cluster === undefined) return;
    const { namespace, name } = cluster;
    const { user } = clusterKeys(namespace, name, (await cluster.status()).clusterId ?? '');
    expect(await stateInEtcd(namespace)).not.toEqual([]);
    expect(await accessInEtcd(user)).toEqual({ user: true, role: true });
    await cluster.patch({ deletionPolicy: 'Delete' });
    await cluster.delete();
    expect(await stateInEtcd(namespace)).toEqual([]);
    expect(await accessInEtcd(user)).toEqual({ user: false, role: false });
    const left = ['pvc,secrets,pgi,statefulsets,services', '-l', 'koschei.dev/cluster=shop', '-o', 'name'];
    await expect
      .poll(() => kubectl(['-n', (cluster as PostgresCluster).namespace, 'get', ...left]), {
        timeout: 60_000,
        interval: 500,
      })
      .toBe('');
    await cluster.remove();
  }, 200_000);

  test('one name in two namespaces makes two clusters that know nothing of each other', async () => {
    const spec = { replicas: { synchronous: 0, asynchronous: 0 }, storage: { size: '256Mi' } };
    const [one, two] = await Promise.all([
      PostgresCluster.create('twin', spec),
      PostgresCluster.create('twin', spec),
    ]);
    try {
      await Promise.all([one.waitHealthy(180_000), two.waitHealthy(180_000)]);
      await one.sql('shop-1', `CREATE TABLE only_here ()`);
      expect(await two.sql('shop-1', `SELECT to_regclass('only_here')`)).toBe('');
      expect(await one.secret('shop-app', 'password')).not.toBe(await two.secret('shop-app', 'password'));
      expect((await one.status()).clusterId).not.toBe((await two.status()).clusterId);
    } finally {
      await Promise.all([one.remove(), two.remove()]);
    }
  }, 300_000);

  test('an image with another user id, and a volume of its own for WAL', async () => {
    const other = await healthyCluster('user-id', {
      postgres: { image: imageName('postgres:17.uid-26') },
      security: { runAsUser: 26, runAsGroup: 26 },
      replicas: { synchronous: 1, asynchronous: 0 },
      storage: { size: '256Mi', wal: { size: '256Mi' } },
    });
    try {
      const walOnItsVolume = async () => {
        for (const instance of ['shop-1', 'shop-2']) {
          const script = 'readlink -f /var/lib/koschei/pgdata/pg_wal; ls /var/lib/koschei/pgdata/pg_wal/0*';
          const [folder, segment = ''] = (await other.exec(instance, ['sh', '-c', script])).split('\n');
          expect(folder).toMatch(/^\/var\/lib\/koschei-wal\/pg_wal\./);
          expect(segment, 'WAL').not.toBe('');
          const path = '{.spec.volumes[?(@.name=="wal")].persistentVolumeClaim.claimName}';
          expect(
            await kubectl(['-n', other.namespace, 'get', 'pod', podName(instance), '-o', `jsonpath=${path}`]),
          ).toBe(walClaimName(instance));
        }
      };
      await walOnItsVolume();
      const report = await underLoad(other, async (ledger) => {
        const at = await killPod(other, 'shop-1');
        await other.waitForOtherPrimary({ instance: 'shop-1' }, 40_000);
        await ledger.acknowledges(now(), 60_000);
        return at;
      });
      // With two instances and every commit confirmed by both, writes wait until the old primary is back.
      expectShortGaps(report, 15_000);
      await walOnItsVolume();
      const owner = await other.exec('shop-2', ['stat', '-c', '%u:%g', '/var/lib/koschei/pgdata/PG_VERSION']);
      expect(owner.trim()).toBe('26:26');
    } finally {
      await other.remove();
    }
  }, 400_000);

  test('kubectl explains the fields', async () => {
    const options = ['--kubeconfig', kubeconfig, '--context', context];
    const text = await run('kubectl', [...options, 'explain', 'pgcluster.spec.replicas']);
    expect(text).toMatch(/synchronous/);
    expect(text.replaceAll(/\s+/g, ' ')).toMatch(/Standbys that confirm every commit/);
  });
});
