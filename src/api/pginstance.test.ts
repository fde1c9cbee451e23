import { expect, it } from 'vitest';
import { lagClass, PgInstance } from './pginstance.ts';

it('puts a lag into classes', () => {
  const mebibyte = 1024 ** 2;
  expect([undefined, Number.NaN, -5, 0, 1, mebibyte - 1, mebibyte, 16 * mebibyte].map(lagClass)).toEqual([
    '?',
    '?',
    '<1MB',
    '<1MB',
    '<1MB',
    '<1MB',
    '<16MB',
    '>=16MB',
  ]);
});

it('reads items of a list, which carry neither apiVersion nor kind', () => {
  const instance = PgInstance.parse({
    metadata: { name: 'shop-1', namespace: 'ns', uid: 'u', managedFields: [] },
    spec: {
      cluster: 'shop',
      clusterId: 'id',
      ordinal: 1,
      agentImage: 'koschei:1',
      postgres: { version: 17, image: 'postgres:17' },
      storage: { size: '1Gi' },
      etcd: { endpoints: ['https://etcd:2379'], tlsSecret: 'shop-etcd-tls' },
      initMode: 'initdb',
    },
  });
  expect(instance).toMatchObject({
    kind: 'PgInstance',
    apiVersion: 'koschei.dev/v1',
    metadata: { managedFields: [] },
  });
  expect(instance.spec.security).toEqual({ runAsUser: 999, runAsGroup: 999 });
});
