import { afterAll, beforeAll, beforeEach, describe, expect } from 'vitest';
import { podName } from '../../src/api/names.ts';
import { kubectl } from '../cluster/cluster.ts';
import { now } from '../faults.ts';
import { eventually, sweepDeadPods } from '../kubernetes.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { expectShortGaps, healthyCluster, scenario, underLoad } from '../scenario.ts';

/* Edits of one spec, one after the other, while rows are written. */

let shop: PostgresCluster;

beforeAll(async () => {
  shop = await healthyCluster('changes', {
    postgres: { parameters: { shared_buffers: '32MB', max_connections: 50 } },
    replicas: { synchronous: 1, asynchronous: 1 },
    storage: { size: '512Mi' },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
  });
}, 300_000);

afterAll(async () => {
  await shop?.remove();
}, 180_000);

beforeEach(async () => {
  await shop.waitHealthy(60_000);
}, 90_000);

/** Milliseconds for a rolling restart of all instances; kubelets before Kubernetes 1.22 may take a minute to end a pod. */
const rollout = 300_000;

/** Milliseconds without an acknowledgement while the primary hands over, or is restarted in place. */
const longestGap = 12_000;

/** Makes a change under load and waits until it is in force and all is well. */
const change = (spec: object, inForce: () => Promise<boolean>) =>
  underLoad(
    shop,
    async () => {
      const at = now();
      await shop.patch(spec);
      await eventually(`${JSON.stringify(spec)} to be in force`, rollout, inForce, 500);
      return at;
    },
    { healthyWithin: rollout },
  );

/** Whether every instance has this value of a setting. */
async function everywhere(setting: string, value: string): Promise<boolean> {
  const pods = await shop.pods();
  const values = await Promise.all(pods.map(({ instance }) => shop.sql(instance, `SHOW ${setting}`)));
  return values.length > 0 && values.every((each) => each === value);
}

const parameters = (given: object) => ({ postgres: { parameters: given } });
const starts = async (): Promise<string[]> =>
  Promise.all(
    (await shop.pods()).map(({ instance }) => shop.sql(instance, 'SELECT pg_postmaster_start_time()')),
  );

describe('changes', () => {
  scenario(
    'a parameter that needs a reload restarts nothing',
    () => shop,
    async () => {
      const before = await starts();
      const primary = await shop.knownPrimary();
      await change(parameters({ work_mem: '7MB' }), () => everywhere('work_mem', '7MB'));
      expect(await starts()).toEqual(before);
      expect(await shop.knownPrimary()).toBe(primary);
    },
  );

  scenario(
    'a line for pg_hba.conf is taken up without a restart',
    () => shop,
    async () => {
      const before = await starts();
      const lines = ['hostssl all app all scram-sha-256', 'host all guest 192.0.2.0/24 reject'];
      const rule = `SELECT count(*) FROM pg_hba_file_rules WHERE 'guest' = ANY(user_name)`;
      await change({ postgres: { hba: lines } }, async () => {
        const pods = await shop.pods();
        const counts = await Promise.all(pods.map(({ instance }) => shop.sql(instance, rule)));
        return counts.every((count) => count === '1');
      });
      expect(await starts()).toEqual(before);
    },
  );

  scenario(
    'a parameter that needs a restart: standbys first, the primary by switchover',
    () => shop,
    async () => {
      const report = await change(parameters({ shared_buffers: '48MB' }), () =>
        everywhere('shared_buffers', '48MB'),
      );
      expectShortGaps(report, longestGap);
    },
    700_000,
  );

  /** Those that a standby may not have lower than its primary, all with a value of this size. */
  const controlled = (size: number) => ({
    max_connections: 30 + size,
    max_worker_processes: 8 + size,
    // Fewer than 54 are never asked for.
    max_wal_senders: 60 + size,
    max_prepared_transactions: size,
    max_locks_per_transaction: 64 + size,
  });
  for (const [done, size] of [
    ['raised', 40],
    ['lowered', 10],
  ] as const) {
    scenario(
      `max_connections and its four sisters are ${done} in one change`,
      () => shop,
      async () => {
        const wanted = controlled(size);
        const report = await change(parameters(wanted), async () => {
          for (const [name, value] of Object.entries(wanted))
            if (!(await everywhere(name, String(value)))) return false;
          return true;
        });
        expectShortGaps(report, longestGap);
      },
      700_000,
    );
  }

  scenario(
    'one more asynchronous standby',
    () => shop,
    async () => {
      await change({ replicas: { asynchronous: 2 } }, async () => (await shop.pods()).length === 4);
    },
  );

  scenario(
    'one more synchronous standby instead of an asynchronous one',
    () => shop,
    async () => {
      await change({ replicas: { synchronous: 2, asynchronous: 1 } }, async () => {
        return (await shop.synchronousStandbys()).length === 2;
      });
    },
  );

  scenario(
    'fewer standbys: neither the primary nor a synchronous one goes',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      await change(
        { replicas: { synchronous: 1, asynchronous: 1 } },
        async () => (await shop.pods()).length === 3,
      );
      expect(await shop.knownPrimary()).toBe(primary);
    },
  );

  scenario(
    'kubectl scale changes the asynchronous standbys',
    () => shop,
    async () => {
      const scale = (to: number) => kubectl(['-n', shop.namespace, 'scale', 'pgc/shop', `--replicas=${to}`]);
      const report = await underLoad(shop, async () => {
        const at = now();
        try {
          await scale(0);
          await eventually('one standby', 120_000, async () => {
            await sweepDeadPods(shop.namespace);
            return (await shop.pods()).length === 2;
          });
          await shop.waitHealthy(60_000);
          expect(await shop.wanted()).toEqual({ instances: 2, synchronous: 1 });
          await shop.waitForCondition(
            'SynchronousReplication',
            { status: 'True', reason: 'NoSpareForSync' },
            30_000,
          );
        } finally {
          await scale(1);
        }
        return at;
      });
      expectShortGaps(report, 6_000);
    },
  );

  scenario(
    'a deleted Secret of the application comes back with a password that Postgres takes',
    () => shop,
    async () => {
      const before = await shop.secret('shop-app', 'password');
      const primary = await shop.knownPrimary();
      const login = (password: string) =>
        shop.exec(primary, [
          ...['env', `PGPASSWORD=${password}`, 'PGCONNECT_TIMEOUT=3', 'PGSSLMODE=require'],
          ...['psql', '-h', 'localhost', '-U', 'app', '-d', 'app', '-XAtqc', 'SELECT current_user'],
        ]);
      expect((await login(before)).trim()).toBe('app');
      await kubectl(['-n', shop.namespace, 'delete', 'secret', 'shop-app']);
      await eventually('a login with the new password', 60_000, async () => {
        const now = await shop.secret('shop-app', 'password');
        return now !== before && (await login(now)).trim() === 'app';
      });
      await expect(login(before)).rejects.toThrow(/password authentication failed/);
    },
  );

  scenario(
    'volumes grow online',
    () => shop,
    async () => {
      const before = await starts();
      await change({ storage: { size: '768Mi' } }, async () => {
        const claims = await kubectl([
          ...['-n', shop.namespace, 'get', 'pvc', 'shop-1', '-o', 'jsonpath={.status.capacity.storage}'],
        ]);
        return claims === '768Mi';
      });
      expect(await starts()).toEqual(before);
    },
  );

  scenario(
    'the log level changes without a restart',
    () => shop,
    async () => {
      const before = await starts();
      const primary = await shop.knownPrimary();
      // A leader mentions each heartbeat, but only to those who look for mistakes.
      const debugs = async () => {
        const log = ['logs', podName(primary), '-c', 'postgres', '--since=3s'];
        return (await kubectl(['-n', shop.namespace, ...log])).includes('"level":"debug"');
      };
      expect(await debugs()).toBe(false);
      await change({ logLevel: 'debug' }, debugs);
      await change({ logLevel: 'info' }, async () => !(await debugs()));
      expect(await starts()).toEqual(before);
    },
  );

  scenario(
    'resources and labels: standbys first, the primary by switchover',
    () => shop,
    async () => {
      const podsSay = (path: string) =>
        kubectl([
          ...['-n', shop.namespace, 'get', 'pods', '-l', 'app.kubernetes.io/component=postgres,team=a'],
          ...['-o', `jsonpath={.items[*]${path}}`],
        ]);
      const report = await change(
        { resources: { requests: { cpu: '60m' } }, podMetadata: { labels: { team: 'a' } } },
        async () => (await podsSay('.spec.containers[0].resources.requests.cpu')) === '60m 60m 60m',
      );
      expectShortGaps(report, longestGap);
      expect(await podsSay('.metadata.labels.koschei\\.dev/cluster')).toBe('shop shop shop');
    },
    700_000,
  );

  scenario(
    'another minor image: standbys first, the primary by switchover',
    () => shop,
    async () => {
      const image = (await shop.status()).currentImage ?? '';
      const report = await change({ postgres: { image: `${image}.minor` } }, async () => {
        const images = await kubectl([
          ...['-n', shop.namespace, 'get', 'pods', '-l', 'app.kubernetes.io/component=postgres'],
          ...['-o', 'jsonpath={.items[*].spec.containers[0].image}'],
        ]);
        return images.split(' ').every((each) => each === `${image}.minor`);
      });
      expectShortGaps(report, longestGap);
    },
    700_000,
  );
});
