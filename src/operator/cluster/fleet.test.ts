import { expect, it } from 'vitest';
import type { Node, PersistentVolume } from '../../kube/index.ts';
import { reachOf } from './fleet.ts';

const node = (name: string, ready: boolean, labels: Record<string, string> = {}): Node =>
  ({
    apiVersion: 'v1',
    kind: 'Node',
    metadata: { name, labels: { 'kubernetes.io/hostname': name, ...labels } },
    status: { conditions: [{ type: 'Ready', status: ready ? 'True' : 'Unknown' }] },
  }) as Node;
const volume = (...matchExpressions: object[]): PersistentVolume =>
  ({
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name: 'pv' },
    spec:
      matchExpressions.length === 0
        ? {}
        : { nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions }] } } },
  }) as unknown as PersistentVolume;
const at = (name: string) => ({ key: 'kubernetes.io/hostname', operator: 'In', values: [name] });
const zone = (name: string) => ({ key: 'topology.kubernetes.io/zone', operator: 'In', values: [name] });

it.each([
  ['a volume that every node can mount', volume(), 'ready'],
  ['one on a node that is ready', volume(at('a')), 'ready'],
  ['one on a node that is not ready', volume(at('b')), 'stranded'],
  ['one on a node that is gone', volume(at('gone')), 'stranded'],
  [
    'one of a driver of local volumes',
    volume({ key: 'topology.topolvm.io/node', operator: 'In', values: ['gone'] }),
    'stranded',
  ],
  ['one in a zone with a node that is ready', volume(zone('east')), 'ready'],
  ['one in a zone without any', volume(zone('west')), 'elsewhere'],
  [
    "one in a provider's zone without any",
    volume({ key: 'topology.ebs.csi.aws.com/zone', operator: 'In', values: ['west'] }),
    'elsewhere',
  ],
  ['one on a lost node in a zone that is there', volume(at('gone'), zone('east')), 'stranded'],
  [
    'one on either of two nodes that are away',
    volume({ key: 'kubernetes.io/hostname', operator: 'In', values: ['b', 'gone'] }),
    'elsewhere',
  ],
  ['one with a rule of the future', volume({ key: 'x', operator: 'Near', values: ['y'] }), 'ready'],
])('%s', (_, pv, expected) => {
  const nodes = [node('a', true, { 'topology.kubernetes.io/zone': 'east' }), node('b', false)];
  expect(reachOf(pv, nodes)).toBe(expected);
});
