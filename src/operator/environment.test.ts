import { expect, it } from 'vitest';
import { readEnvironment } from './environment.ts';

it('finds the etcd that is installed beside the operator', () => {
  expect(readEnvironment({ KOSCHEI_NAMESPACE: 'db-system' }).etcdEndpoints).toEqual([
    'https://koschei-etcd-0.koschei-etcd.db-system.svc:2379',
    'https://koschei-etcd-1.koschei-etcd.db-system.svc:2379',
    'https://koschei-etcd-2.koschei-etcd.db-system.svc:2379',
  ]);
});
it('takes an empty variable for none', () => {
  expect(readEnvironment({ KOSCHEI_LOG_LEVEL: '', KOSCHEI_IMAGE: '' })).toMatchObject({
    logLevel: 'info',
    agentImage: undefined,
  });
});
it('names every variable that is wrong', () => {
  const wrong = {
    KOSCHEI_POSTGRES_IMAGE_TEMPLATE: 'postgres',
    KOSCHEI_HTTP_PORT: 'x',
    KOSCHEI_ETCD_ENDPOINTS: 'etcd',
  };
  expect(() => readEnvironment(wrong)).toThrow(/KOSCHEI_POSTGRES_IMAGE_TEMPLATE/);
  expect(() => readEnvironment(wrong)).toThrow(/KOSCHEI_HTTP_PORT/);
  expect(() => readEnvironment(wrong)).toThrow(/KOSCHEI_ETCD_ENDPOINTS/);
});
