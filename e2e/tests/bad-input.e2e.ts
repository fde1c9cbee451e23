import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { isInvalid } from '../../src/kube/index.ts';
import { createAuthority, issueCertificate } from '../../src/tls/certificates.ts';
import { imageName, kubectl } from '../cluster/cluster.ts';
import { eventually } from '../kubernetes.ts';
import { PostgresCluster } from '../postgres-cluster.ts';
import { healthyCluster, scenario } from '../scenario.ts';

/* What people do wrong: each mistake is refused at apply, or a condition says what to do; no healthy database suffers. */

/** One instance is enough, and quick. */
const small = {
  replicas: { synchronous: 0, asynchronous: 0 },
  storage: { size: '256Mi' },
  resources: { requests: { cpu: '20m', memory: '64Mi' } },
};

/** Milliseconds within which a condition must be there. */
const soon = 30_000;

describe('refused by the API server', () => {
  let nowhere: PostgresCluster;
  beforeAll(async () => {
    nowhere = await PostgresCluster.at(`e2e-refused-${process.pid}`, 'shop');
    await nowhere.createNamespace();
  });
  afterAll(() => nowhere.remove());

  test.each<[string, object]>([
    ['a negative count', { ...small, replicas: { synchronous: -1 } }],
    ['an unknown major version of Postgres', { ...small, postgres: { version: 9 } }],
    ['a malformed quantity', { storage: { size: 'much' } }],
    ['no storage', { replicas: small.replicas }],
    ['a word that is none of the choices', { ...small, durability: 'maybe' }],
    ['an etcd without TLS', { ...small, etcd: { endpoints: ['http://etcd:2379'], tlsSecret: 'x' } }],
  ])('%s', async (_, spec) => {
    await expect(nowhere.apply(spec)).rejects.toSatisfy(isInvalid);
  });

  test.each(['Upper', 'a.b', '1shop', `a${'b'.repeat(45)}`])('the name %s', async (name) => {
    const misnamed = await PostgresCluster.at(nowhere.namespace, name);
    await expect(misnamed.apply(small)).rejects.toSatisfy(isInvalid);
  });
});

describe('refused by the operator, with the last accepted spec in force', () => {
  let shop: PostgresCluster;
  let started: string;
  const startTime = () => shop.sql('shop-1', 'SELECT pg_postmaster_start_time()');

  beforeAll(async () => {
    shop = await healthyCluster('refused', small);
    started = await startTime();
  }, 300_000);
  afterAll(async () => {
    await shop?.remove();
  }, 120_000);

  const refused = (name: string, change: object, undo: object, reason: string, says: RegExp) =>
    scenario(
      name,
      () => shop,
      async () => {
        await shop.patch(change);
        const message = await shop.waitForCondition('Accepted', { status: 'False', reason }, soon);
        expect(message).toMatch(says);
        expect(await startTime()).toBe(started);
        await shop.patch(undo);
        await shop.waitForCondition('Accepted', { status: 'True' }, soon);
        expect(await shop.problems()).toEqual([]);
      },
    );

  const parameter = (name: string, value: string | null) => ({ postgres: { parameters: { [name]: value } } });
  refused(
    'a smaller volume',
    { storage: { size: '128Mi' } },
    { storage: { size: '256Mi' } },
    'StorageShrink|InvalidSpec',
    /storage\.size/,
  );
  refused(
    'another major version',
    { postgres: { version: 16 } },
    { postgres: { version: 17 } },
    'MajorUpgradeRefused',
    /pg_dump/,
  );
  refused(
    'another user',
    { security: { runAsUser: 26 } },
    { security: { runAsUser: 999 } },
    'ImmutableField',
    /security/,
  );
  refused(
    'a parameter that Koschei owns',
    parameter('primary_conninfo', 'host=elsewhere'),
    parameter('primary_conninfo', null),
    'InvalidSpec',
    /primary_conninfo/,
  );
  refused(
    'a weaker durability by a parameter',
    parameter('synchronous_commit', 'off'),
    parameter('synchronous_commit', null),
    'InvalidSpec',
    /synchronous_commit/,
  );

  refused(
    'more memory requested than allowed',
    { resources: { limits: { memory: '32Mi' } } },
    { resources: { limits: null } },
    'InvalidSpec',
    /resources\.requests\.memory/,
  );
  refused(
    'an access rule that is none',
    { postgres: { hba: ['trust everybody'] } },
    { postgres: { hba: null } },
    'InvalidSpec',
    /hba\[0\]/,
  );

  scenario(
    'an access rule that only Postgres finds wrong',
    () => shop,
    async () => {
      await shop.patch({ postgres: { hba: ['host nonsense'] } });
      const wanted = { status: 'False', reason: 'UnknownParameter' };
      expect(await shop.waitForCondition('SettingsApplied', wanted, soon)).toMatch(/pg_hba/);
      // Who could connect still can.
      expect(await startTime()).toBe(started);
      await shop.patch({ postgres: { hba: null } });
      await shop.waitForCondition('SettingsApplied', { status: 'True' }, soon);
      expect(await shop.problems()).toEqual([]);
    },
  );

  scenario(
    'an unknown parameter',
    () => shop,
    async () => {
      await shop.patch(parameter('no_such_parameter', '1'));
      const wanted = { status: 'False', reason: 'UnknownParameter' };
      expect(await shop.waitForCondition('SettingsApplied', wanted, soon)).toMatch(/no_such_parameter/);
      expect(await startTime()).toBe(started);
      await shop.patch(parameter('no_such_parameter', null));
      await shop.waitForCondition('SettingsApplied', { status: 'True' }, soon);
      expect(await shop.problems()).toEqual([]);
    },
  );

  scenario(
    'a value that Postgres refuses',
    () => shop,
    async () => {
      await shop.patch(parameter('work_mem', 'lots'));
      const wanted = { status: 'False', reason: 'UnknownParameter' };
      expect(await shop.waitForCondition('SettingsApplied', wanted, soon)).toMatch(/work_mem/);
      await shop.patch(parameter('work_mem', null));
      await shop.waitForCondition('SettingsApplied', { status: 'True' }, soon);
      expect(await startTime()).toBe(started);
    },
  );
});

describe('a value with which Postgres does not start', () => {
  let shop: PostgresCluster;
  beforeAll(async () => {
    shop = await healthyCluster('no-start', { ...small, replicas: { synchronous: 1, asynchronous: 1 } });
  }, 300_000);
  afterAll(async () => {
    await shop?.remove();
  }, 120_000);

  scenario(
    'stops at the first standby, and the primary goes on',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const startTime = () => shop.sql(primary, 'SELECT pg_postmaster_start_time()');
      const started = await startTime();
      const parameters = (shared_buffers: string | null) => ({
        postgres: { parameters: { shared_buffers } },
      });
      await shop.patch(parameters('900GB'));
      await shop.waitForCondition(
        'Progressing',
        {
          status: 'True',
          reason: 'Updating',
          says: /Waiting for shop-\d to (work again|carry out an order)/,
        },
        90_000,
      );
      await shop.waitForCondition('Degraded', { status: 'True' }, soon);
      expect(await shop.knownPrimary()).toBe(primary);
      expect(await startTime()).toBe(started);
      await eventually('two ready instances', soon, async () => (await shop.status()).readyInstances === 2);

      await shop.patch(parameters(null));
      await shop.waitForCondition('Degraded', { status: 'False' }, 120_000);
      expect(await shop.knownPrimary()).toBe(primary);
      expect(await startTime()).toBe(started);
    },
  );
});

describe('clusters that cannot come up say why', () => {
  const stuck = (name: string, spec: object, type: string, reason: string, says: RegExp) => {
    let shop: PostgresCluster | undefined;
    scenario(
      name,
      () => shop,
      async () => {
        shop = await PostgresCluster.create('stuck', spec as never);
        try {
          expect(await shop.waitForCondition(type, { reason }, 60_000)).toMatch(says);
        } finally {
          await shop.remove();
        }
      },
    );
  };

  stuck(
    'an image that cannot be pulled',
    { ...small, postgres: { image: 'localhost/no-such-image:1' } },
    'Degraded',
    'ImagePullFailed',
    /no-such-image/,
  );
  stuck(
    'an image without Postgres',
    { ...small, postgres: { image: imageName('not-postgres:1') } },
    'Degraded',
    'NoPostgresInImage',
    /[Pp]ostgres/,
  );
  stuck(
    'a volume of a class that does not exist',
    { ...small, storage: { size: '256Mi', storageClassName: 'no-such-class' } },
    'VolumesBound',
    'VolumeNotBound',
    /shop-1/,
  );
  stuck(
    'a node that does not exist',
    { ...small, placement: { nodeSelector: { 'kubernetes.io/hostname': 'nowhere' } } },
    'Degraded',
    'WaitingForScheduling',
    /spec\.placement/,
  );
  stuck(
    'a Secret that does not exist',
    { ...small, etcd: { endpoints: ['https://etcd.example:2379'], tlsSecret: 'no-such-secret' } },
    'EtcdReachable',
    'SecretMissing',
    /no-such-secret/,
  );

  let lost: PostgresCluster | undefined;
  scenario(
    'an etcd that does not answer',
    () => lost,
    async () => {
      lost = await PostgresCluster.at(`e2e-lost-${process.pid}`, 'shop');
      await lost.createNamespace();
      try {
        await createClientSecret(lost.namespace, 'etcd-client');
        // The cluster's own DNS knows that there is no such Service.
        await lost.apply({
          ...small,
          etcd: { endpoints: ['https://etcd.nowhere.svc.cluster.local:2379'], tlsSecret: 'etcd-client' },
        });
        const message = await lost.waitForCondition('EtcdReachable', { reason: 'EtcdUnreachable' }, 60_000);
        expect(message).toMatch(/etcd\.nowhere\.svc/);
      } finally {
        await lost.remove();
      }
    },
  );
});

async function createClientSecret(namespace: string, name: string): Promise<void> {
  const now = new Date();
  const authority = await createAuthority({ commonName: 'test', validDays: 1, now });
  const client = await issueCertificate({
    authority,
    commonName: 'x',
    usages: ['client'],
    validDays: 1,
    now,
  });
  const data = { 'tls.crt': client.cert, 'tls.key': client.key, 'ca.crt': authority.cert };
  const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name, namespace }, stringData: data };
  await kubectl(['apply', '-f', '-'], JSON.stringify(secret));
}
