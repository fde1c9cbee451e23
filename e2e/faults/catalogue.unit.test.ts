import { describe, expect, test } from 'vitest';
import { faultNamed, faults } from './catalogue.ts';
import { unexpected } from './drill.ts';
import { between, drop, ruleOf } from './effects.ts';
import type { Facts, Instance } from './fault.ts';

const instance = (ordinal: number, role: Instance['role']): Instance => ({
  name: `shop-${ordinal}`,
  uid: `uid-${ordinal}`,
  address: `10.244.${ordinal}.9`,
  node: `koschei-node-${ordinal}`,
  role,
  disks: { data: `/disks/data-${ordinal}`, wal: `/disks/wal-${ordinal}` },
});
const facts: Facts = {
  namespace: 'test',
  cluster: 'shop',
  instances: [instance(1, 'asynchronous'), instance(2, 'primary'), instance(3, 'synchronous')],
  etcd: [1, 2, 3].map((number) => ({
    name: `koschei-etcd-${number - 1}`,
    uid: `etcd-${number}`,
    address: `10.244.${number}.2`,
    node: `koschei-node-${number}`,
    leads: number === 3,
  })),
};
const scripts = (name: string, side: 'apply' | 'undo') =>
  faultNamed(name)
    .plan(facts)
    .effects.map((effect) => effect[side]?.args.join(' ') ?? '');

describe('the catalogue', () => {
  test('has each name once, and describes each fault', () => {
    expect(new Set(faults.map(({ name }) => name)).size).toBe(faults.length);
    for (const { name, description } of faults) {
      expect(name).toMatch(/^[a-z-]+$/);
      expect(description.length).toBeGreaterThan(20);
    }
  });

  test('every fault that lasts undoes each of its effects but kills', () => {
    for (const fault of faults) {
      const { target, effects } = fault.plan(facts);
      expect(target, fault.name).not.toBe('');
      expect(effects.length, fault.name).toBeGreaterThan(0);
      for (const { apply, undo } of effects) {
        if (undo === undefined) expect(apply.what, fault.name).toMatch(/^(kill -9|delete the pod|ask for)/);
      }
    }
  });

  test('says what is missing instead of doing nothing', () => {
    const alone = { ...facts, instances: [instance(2, 'primary')] };
    expect(() => faultNamed('sync-isolated').plan(alone)).toThrow(
      'expected a synchronous instance, found none',
    );
    expect(() => faultNamed('primary-from-peers').plan(alone)).toThrow('nobody to cut shop-2 off from');
    const bare = { ...facts, instances: facts.instances.map((each) => ({ ...each, disks: {} })) };
    expect(() => faultNamed('disk-stall').plan(bare)).toThrow('no file system of its own for data');
    expect(() => faultNamed('tea-break')).toThrow('There is no fault tea-break');
  });

  test('cuts the primary off from exactly those that it says', () => {
    const [etcd = ''] = scripts('primary-from-etcd', 'apply');
    for (const each of facts.etcd) expect(etcd).toContain(`-s 10.244.2.9 -d ${each.address} `);
    expect(etcd).not.toContain('10.244.1.9');
    const [deaf = ''] = scripts('primary-deaf', 'apply');
    expect(deaf).toContain('-s 10.244.3.9 -d 10.244.2.9 ');
    expect(deaf).not.toContain('-s 10.244.2.9');
    const [mute = ''] = scripts('primary-mute', 'apply');
    expect(mute).toContain('-s 10.244.2.9 -d 10.244.3.9 ');
    expect(mute).not.toContain('-d 10.244.2.9');
  });

  test('hits the leader of etcd, or one that is not', () => {
    expect(faultNamed('etcd-leader-kill').plan(facts).target).toBe('koschei-etcd-2 on koschei-node-3');
    expect(faultNamed('etcd-kill').plan(facts).target).toBe('koschei-etcd-0 on koschei-node-1');
  });

  test('joins faults', () => {
    const both = faultNamed('etcd-leader-kill+node-freeze');
    const parts = ['etcd-leader-kill', 'node-freeze'].map(faultNamed);
    expect(both.plan(facts).effects).toEqual(parts.flatMap((part) => part.plan(facts).effects));
    expect(both.expects.failovers).toEqual([0, 1]);
    expect(both.expects.gap).toBe(parts.reduce((sum, { expects }) => sum + expects.gap, 0));
    expect(faultNamed('wal-disk-full+agent-kill').disks).toBe('wal');
  });
});

describe('rules of iptables', () => {
  test('name chain, packets and share', () => {
    expect(ruleOf({ from: '10.0.0.1', to: '10.0.0.2', port: 5432 })).toBe(
      'PREROUTING -s 10.0.0.1 -d 10.0.0.2 -p tcp --dport 5432 -j DROP',
    );
    expect(ruleOf({ chain: 'OUTPUT', to: '10.0.0.2', probability: 0.3 })).toBe(
      'OUTPUT -d 10.0.0.2 -m statistic --mode random --probability 0.3 -j DROP',
    );
  });

  test('are removed as they were put in', () => {
    const place = { uid: 'u', address: '10.0.0.1', node: 'koschei-node-1' };
    const { apply, undo } = drop(place.node, 'test', between(place, ['10.0.0.2'], 'both', 0.5));
    const rules = apply.args.join(' ').matchAll(/-t raw -I (.*?)(?: &&|$)/g);
    for (const [, rule] of rules) expect(undo?.args.join(' ')).toContain(`-t raw -D ${rule} `);
  });
});

describe('what is unexpected', () => {
  const gap = (milliseconds: number) => ({ from: 0, to: milliseconds, milliseconds });
  const gaps = { service: gap(900), 'multi-host': gap(400) };
  const expects = { failovers: [1, 1], gap: 1_000 } as const;

  test('nothing, when all is as it should be', () => {
    expect(unexpected(expects, 1, gaps)).toEqual([]);
  });

  test('a failover too many, or none', () => {
    expect(unexpected(expects, 2, gaps)).toEqual(['2 new terms instead of 1']);
    expect(unexpected({ ...expects, failovers: [1, 2] }, 0, gaps)).toEqual(['0 new terms instead of 1 to 2']);
  });

  test('a long gap, but only on a route that is judged', () => {
    const long = { ...gaps, service: gap(5_000) };
    expect(unexpected(expects, 1, long)).toEqual([
      'no acknowledgement on the route service for 5000 ms; at most 1000 expected',
    ]);
    expect(unexpected({ ...expects, routes: ['multi-host'] }, 1, long)).toEqual([]);
  });

  test('no acknowledgement at all', () => {
    expect(unexpected(expects, 1, { ...gaps, service: undefined })).toEqual([
      'nothing was acknowledged on the route service',
    ]);
  });
});
