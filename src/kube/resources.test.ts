import { expect, it } from 'vitest';
import { apiVersionOf, atVersion, resourcePath, resources } from './resources.ts';
import { keyOf, ownerReference, splitKey } from './types.ts';

it('builds paths', () => {
  expect(resourcePath(resources.pods)).toBe('/api/v1/pods');
  expect(resourcePath(resources.pods, { namespace: 'ns' })).toBe('/api/v1/namespaces/ns/pods');
  expect(resourcePath(resources.nodes, { name: 'n1' })).toBe('/api/v1/nodes/n1');
  expect(resourcePath(resources.pgClusters, { namespace: 'ns', name: 'shop', subresource: 'status' })).toBe(
    '/apis/koschei.dev/v1/namespaces/ns/pgclusters/shop/status',
  );
});

it('never leaves the path it was meant for', () => {
  expect(resourcePath(resources.pods, { namespace: 'ns', name: '../../nodes/n1' })).toBe(
    '/api/v1/namespaces/ns/pods/..%2F..%2Fnodes%2Fn1',
  );
  expect(() => resourcePath(resources.pods, { name: 'a' })).toThrow('without a namespace');
  expect(() => resourcePath(resources.pods, { namespace: '', name: 'a' })).toThrow('without a namespace');
  for (const name of ['', '.', '..']) {
    expect(() => resourcePath(resources.nodes, { name })).toThrow('expected the name of a Node');
  }
});

it('switches to another version of the same group only', () => {
  const beta = atVersion(resources.endpointSlices, 'discovery.k8s.io/v1beta1');
  expect(apiVersionOf(beta)).toBe('discovery.k8s.io/v1beta1');
  expect(beta.plural).toBe('endpointslices');
  expect(() => atVersion(resources.endpointSlices, 'policy/v1')).toThrow('expected a version of the group');
});

it('keys are reversible', () => {
  for (const ref of [
    { namespace: 'ns', name: 'a' },
    { namespace: '', name: 'node' },
  ]) {
    expect(splitKey(keyOf(ref))).toEqual(ref);
  }
});

it('makes owner references only to objects that exist', () => {
  const owner = { apiVersion: 'koschei.dev/v1', kind: 'PgCluster', metadata: { name: 'shop', uid: 'u' } };
  expect(ownerReference(owner)).toMatchObject({ name: 'shop', uid: 'u', controller: true });
  expect(() => ownerReference({ ...owner, metadata: { name: 'shop' } })).toThrow('has no uid');
});
