import { expect, it } from 'vitest';
import * as names from './names.ts';

it('finds the ordinal in an instance name, and only in those of the cluster', () => {
  expect(names.ordinalOf('shop', names.instanceName('shop', 12))).toBe(12);
  for (const other of ['shop-0', 'shop-01', 'shop-x', 'shop', 'shop-1-1', 'shopping-1', 'shop-rw'])
    expect(names.ordinalOf('shop', other)).toBeUndefined();
  expect(names.ordinalOf('shop-1', 'shop-1-2')).toBe(2);
});

it('keeps every name of the longest cluster name within 63 characters, those that Kubernetes derives included', () => {
  const cluster = 'a'.repeat(names.maxClusterNameLength);
  const instance = names.instanceName(cluster, 999999);
  const controllerRevision = `${names.statefulSetName(instance)}-5b9d7f8c6d`;
  const jobPod = `${names.initJobName(instance)}-x7k2p`;
  for (const name of [
    controllerRevision,
    jobPod,
    names.podName(instance),
    names.walClaimName(instance),
    names.podsServiceName(cluster),
    names.leaderEndpointSliceName(cluster),
    names.replicationTlsSecretName(cluster),
  ])
    expect(name.length, name).toBeLessThanOrEqual(63);
});

it('selects what it labels', () => {
  expect(names.instanceLabels('shop', 'id', 'shop-1')).toMatchObject(names.clusterSelector('shop'));
  expect(names.clusterSelector('shop', 'standby')).toEqual({
    'koschei.dev/cluster': 'shop',
    'koschei.dev/role': 'standby',
  });
  expect(names.podHost('shop', 'shop-1', 'ns')).toBe('shop-1-0.shop-pods.ns.svc');
});
