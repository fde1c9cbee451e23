import { expect, it } from 'vitest';
import type { EndpointSlice } from '../../kube/index.ts';
import { pod } from '../testing/instance-fixtures.ts';
import { staleEndpoints, withoutStale } from './traffic.ts';

const slice = {
  apiVersion: 'discovery.k8s.io/v1',
  kind: 'EndpointSlice',
  metadata: { name: 'shop-rw-leader', namespace: 'ns', resourceVersion: '5' },
  addressType: 'IPv4',
  endpoints: [
    { addresses: ['10.0.0.1'], targetRef: { kind: 'Pod', name: 'shop-1-0', uid: 'uid-of-shop-1-0' } },
  ],
} as EndpointSlice;
const alive = pod({ podIP: '10.0.0.1' });

it('leaves the leader alone', () => {
  expect(staleEndpoints(slice, [alive], { instance: 'shop-1' })).toEqual([]);
  expect(staleEndpoints(slice, [alive], undefined)).toEqual([]);
  expect(withoutStale(slice, [alive], undefined)).toBeUndefined();
});
it.each([
  ['a pod that is gone', [], undefined, /gone/],
  ['a pod with another address', [pod({ podIP: '10.0.0.9' })], undefined, /10\.0\.0\.9/],
  ['somebody who does not lead', [alive], { instance: 'shop-2' }, /shop-2 leads/],
])('finds %s', (_, pods, leader, why) => {
  expect(staleEndpoints(slice, pods, leader)[0]?.why).toMatch(why);
  expect(withoutStale(slice, pods, leader)).toEqual({ ...slice, endpoints: [] });
});
