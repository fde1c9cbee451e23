import { describe, expect, test } from 'vitest';
import { bytes, type Claim, plan, provisioner, type Volume } from './volumes.ts';

function claim(size: string, status: Claim['status'], node = 'node-1'): Claim {
  return {
    metadata: {
      name: 'data',
      namespace: 'ns',
      uid: 'u1',
      resourceVersion: '1',
      annotations: {
        'volume.beta.kubernetes.io/storage-provisioner': provisioner,
        'volume.kubernetes.io/selected-node': node,
      },
    },
    spec: { resources: { requests: { storage: size } } },
    ...(status === undefined ? {} : { status }),
  };
}

function volume(size: string, phase: string, policy = 'Delete', node = 'node-1'): Volume {
  return {
    metadata: {
      name: 'pvc-u1',
      uid: 'v1',
      resourceVersion: '1',
      annotations: { 'pv.kubernetes.io/provisioned-by': provisioner },
    },
    spec: {
      capacity: { storage: size },
      claimRef: { uid: 'u1' },
      persistentVolumeReclaimPolicy: policy,
      nodeAffinity: { required: { nodeSelectorTerms: [{ matchExpressions: [{ values: [node] }] }] } },
    },
    status: { phase },
  };
}

const kinds = (claims: Claim[], volumes: Volume[]) => plan('node-1', claims, volumes).map(({ kind }) => kind);

describe('local volumes', () => {
  test('a pending claim gets a volume on the node that the scheduler selected, and on no other', () => {
    expect(plan('node-1', [claim('1Gi', { phase: 'Pending' })], [])).toMatchObject([
      { kind: 'provision', volume: 'pvc-u1', size: '1Gi' },
    ]);
    expect(kinds([claim('1Gi', { phase: 'Pending' }, 'node-2')], [])).toEqual([]);
  });

  test('a claim with a volume gets no second one', () => {
    expect(kinds([claim('1Gi', { phase: 'Pending' })], [volume('1Gi', 'Available')])).toEqual([]);
    expect(
      kinds([claim('1Gi', { phase: 'Bound', capacity: { storage: '1Gi' } })], [volume('1Gi', 'Bound')]),
    ).toEqual([]);
  });

  test('a claim that has grown makes its volume grow, then its own capacity', () => {
    const grown = claim('2Gi', { phase: 'Bound', capacity: { storage: '1Gi' } });
    expect(kinds([grown], [volume('1Gi', 'Bound')])).toEqual(['grow volume', 'grow claim']);
    expect(kinds([grown], [volume('2Gi', 'Bound')])).toEqual(['grow claim']);
  });

  test('only a released volume of this node with policy Delete is removed', () => {
    expect(kinds([], [volume('1Gi', 'Released')])).toEqual(['remove']);
    expect(kinds([], [volume('1Gi', 'Bound')])).toEqual([]);
    expect(kinds([], [volume('1Gi', 'Released', 'Retain')])).toEqual([]);
    expect(kinds([], [volume('1Gi', 'Released', 'Delete', 'node-2')])).toEqual([]);
  });

  test('quantities are compared in bytes', () => {
    expect([bytes('1Gi'), bytes('1.5G'), bytes('1073741824'), bytes('1e9')]).toEqual([
      2 ** 30,
      1.5e9,
      2 ** 30,
      1e9,
    ]);
    expect(() => bytes('big')).toThrow(/Expected a quantity of bytes/);
  });
});
