import { expect, it } from 'vitest';
import { Store } from './store.ts';
import type { KubeObject } from './types.ts';

const pod = (namespace: string, name: string, cluster: string): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { namespace, name, labels: { cluster } },
});
const byCluster = {
  cluster: (object: KubeObject) => [`${object.metadata.namespace}/${object.metadata.labels?.cluster}`],
};

it('finds objects by key, namespace and index', () => {
  const store = new Store(byCluster);
  store.set(pod('x', 'a', 'shop'));
  store.set(pod('x', 'b', 'shop'));
  store.set(pod('y', 'a', 'shop'));
  expect(store.get('x/a')?.metadata.name).toBe('a');
  expect(store.list('x').map((object) => object.metadata.name)).toEqual(['a', 'b']);
  expect(store.list()).toHaveLength(3);
  expect(store.byIndex('cluster', 'x/shop').map((object) => object.metadata.name)).toEqual(['a', 'b']);
  expect(store.byIndex('cluster', 'z/shop')).toEqual([]);
  expect(() => store.byIndex('color', 'red')).toThrow('no index "color"');
});

it('keeps the index right when an object moves or goes', () => {
  const store = new Store(byCluster);
  store.set(pod('x', 'a', 'shop'));
  expect(store.set(pod('x', 'a', 'blog'))?.metadata.labels).toEqual({ cluster: 'shop' });
  expect(store.byIndex('cluster', 'x/shop')).toEqual([]);
  expect(store.byIndex('cluster', 'x/blog')).toHaveLength(1);
  store.delete('x/a');
  expect(store.byIndex('cluster', 'x/blog')).toEqual([]);
  expect(store.delete('x/a')).toBeUndefined();
});

it('does not let a reader change what another one reads', () => {
  const store = new Store();
  store.set(pod('x', 'a', 'shop'));
  const labels = store.get('x/a')?.metadata.labels ?? {};
  expect(() => {
    labels.cluster = 'mine';
  }).toThrow(TypeError);
});
