import { PgInstance, type PgInstanceSpec } from '../../api/pginstance.ts';
import { emptyView } from '../../dcs/index.ts';
import type { Job, Pod, StatefulSet } from '../../kube/index.ts';
import type { InstanceSnapshot } from '../instance/snapshot.ts';
import { apis, now } from './model.ts';

/** A PgInstance `shop-1` in namespace `ns`. */
export const instance = (spec: Partial<PgInstanceSpec> = {}): PgInstance =>
  PgInstance.parse({
    metadata: { name: 'shop-1', namespace: 'ns', uid: 'instance-uid', generation: 1 },
    spec: {
      cluster: 'shop',
      clusterId: 'abcdefghijklmnop',
      ordinal: 1,
      agentImage: 'koschei:1',
      postgres: { version: 17, image: 'postgres:17' },
      storage: { size: '1Gi' },
      etcd: { endpoints: ['https://etcd:2379'], tlsSecret: 'shop-etcd-tls' },
      initMode: 'clone',
      ...spec,
    },
  });

/** Nothing exists yet but the PgInstance; etcd knows a cluster that runs. */
export const snapshot = (more: Partial<InstanceSnapshot> = {}): InstanceSnapshot => ({
  now,
  instance: instance(),
  claims: {},
  job: undefined,
  statefulSet: undefined,
  pod: undefined,
  initPods: [],
  etcd: {
    known: true,
    value: { ...emptyView, initialize: { value: { systemIdentifier: '7', by: 'shop-2' }, revision: '1' } },
  },
  clusterHasLived: true,
  node: undefined,
  apis,
  lagChangedMsAgo: undefined,
  failure: undefined,
  ...more,
});

export const job = (
  condition?: 'Complete' | 'Failed',
  at = now,
  annotations: Record<string, string> = {},
): Job =>
  ({
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: { name: 'shop-1-init', namespace: 'ns', uid: 'job-uid', annotations },
    status: {
      conditions:
        condition === undefined
          ? []
          : [{ type: condition, status: 'True', lastTransitionTime: at.toISOString() }],
    },
  }) as Job;

export const pod = (status: object = {}, name = 'shop-1-0'): Pod =>
  ({
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name, namespace: 'ns', uid: `uid-of-${name}` },
    spec: { nodeName: 'node-1', containers: [{ name: 'postgres', image: 'postgres:17' }] },
    status: { phase: 'Running', ...status },
  }) as Pod;

export const readyPod = (): Pod => pod({ conditions: [{ type: 'Ready', status: 'True' }] });

export const set = {
  apiVersion: 'apps/v1',
  kind: 'StatefulSet',
  metadata: { name: 'shop-1', namespace: 'ns' },
} as StatefulSet;
