import { describe, expect, test } from 'vitest';
import { type ClusterFacts, healthProblems, type PodFacts, type ServerFacts } from './health.ts';

const wanted = { instances: 3, synchronous: 1 };

const pod = (ordinal: number, more: Partial<PodFacts> = {}): PodFacts => ({
  instance: `shop-${ordinal}`,
  uid: `uid-${ordinal}`,
  address: `10.0.0.${ordinal}`,
  node: `node-${ordinal}`,
  ready: true,
  terminating: false,
  role: ordinal === 1 ? 'primary' : 'standby',
  ...more,
});
const primary: ServerFacts = {
  inRecovery: false,
  timeline: 4,
  receiver: null,
  walsenders: [
    { address: '10.0.0.2', state: 'streaming', sync: 'sync' },
    { address: '10.0.0.3', state: 'streaming', sync: 'async' },
  ],
};
const standby: ServerFacts = { inRecovery: true, timeline: 4, receiver: 'streaming', walsenders: [] };
const good: ClusterFacts = {
  pods: [pod(1), pod(2), pod(3)],
  servers: new Map([
    ['shop-1', primary],
    ['shop-2', standby],
    ['shop-3', standby],
  ]),
  endpoints: [{ address: '10.0.0.1', podUid: 'uid-1' }],
  status: {
    generation: 2,
    observedGeneration: 2,
    primary: 'shop-1',
    phase: 'Running',
    ready: '3/3',
    readyCondition: 'True',
  },
};
const withServer = (name: string, server: ServerFacts | string): ClusterFacts => ({
  ...good,
  servers: new Map([...good.servers, [name, server]]),
});

describe('health', () => {
  test('has nothing to say about a good cluster', () => {
    expect(healthProblems(good, wanted)).toEqual([]);
  });

  test.each<[string, ClusterFacts, RegExp]>([
    ['a second primary', withServer('shop-2', primary), /one primary, found shop-1, shop-2/],
    ['no primary', withServer('shop-1', standby), /one primary, found none/],
    ['a silent server', withServer('shop-3', 'refused'), /shop-3 does not answer: refused/],
    [
      'a standby that does not stream',
      withServer('shop-2', { ...standby, receiver: null }),
      /does not stream/,
    ],
    ['a standby on another timeline', withServer('shop-2', { ...standby, timeline: 3 }), /timeline 3/],
    [
      'a synchronous set that is not full',
      withServer('shop-1', { ...primary, walsenders: primary.walsenders.slice(1) }),
      /0 synchronous standbys instead of 1/,
    ],
    ['a pod that is missing', { ...good, pods: good.pods.slice(0, 2) }, /2 pods instead of 3/],
    ['a pod that goes', { ...good, pods: [pod(1), pod(2), pod(3, { terminating: true })] }, /being deleted/],
    ['a pod that is not ready', { ...good, pods: [pod(1), pod(2), pod(3, { ready: false })] }, /not ready/],
    [
      'a wrong label',
      { ...good, pods: [pod(1), pod(2), pod(3, { role: 'primary' })] },
      /has the role primary/,
    ],
    ['a Service that leads nowhere', { ...good, endpoints: [] }, /leads to nobody/],
    [
      'a Service that leads to an older pod of the same address',
      { ...good, endpoints: [{ address: '10.0.0.1', podUid: 'uid-0' }] },
      /-rw Service/,
    ],
    [
      'a status of another primary',
      { ...good, status: { ...good.status, primary: 'shop-2' } },
      /primary shop-2/,
    ],
    ['an old status', { ...good, status: { ...good.status, observedGeneration: 1 } }, /observedGeneration 1/],
  ])('finds %s', (_, facts, problem) => {
    expect(healthProblems(facts, wanted).join('\n')).toMatch(problem);
  });
});
