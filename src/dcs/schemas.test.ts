import { describe, expect, it } from 'vitest';
import { clusterKeys } from './keys.ts';
import { checkTiming, defaultTiming, leaderGraceMs } from './schemas.ts';
import { parseView } from './view.ts';

const keys = clusterKeys('default', 'shop', 'abc');

describe('timing', () => {
  it('leaves the leader a grace that ends a fence budget before any observer has counted a ttl', () => {
    expect(leaderGraceMs(defaultTiming)).toBe(4440);
    expect(leaderGraceMs(defaultTiming) + defaultTiming.fenceBudgetMs).toBeLessThan(defaultTiming.ttlMs);
  });

  it('refuses a ttl whose grace is shorter than a heartbeat and a request that runs into its deadline', () => {
    expect(checkTiming(defaultTiming)).toBeUndefined();
    expect(
      checkTiming({ ...defaultTiming, ttlMs: 4000, heartbeatMs: 2000, requestTimeoutMs: 1000 }),
    ).toContain('raise the ttl');
  });
});

describe('parseView', () => {
  const leader = {
    instance: 'shop-1',
    dataId: '0123456789abcdef',
    bootId: 'boot-0001',
    term: 3,
    timeline: 3,
    phase: 'leading',
    beat: 7,
    address: '10.0.0.1',
    members: [],
  };

  it('reads each key into its place with its revision', () => {
    const view = parseView(keys, '12', [
      { key: keys.leader, value: JSON.stringify(leader), modRevision: '11' },
      { key: keys.sync, value: '{"term":3,"mode":"sync","names":[]}', modRevision: '9' },
    ]);
    expect(view.leader).toEqual({ value: leader, revision: '11' });
    expect(view.sync?.value.mode).toBe('sync');
    expect(view.invalid).toEqual([]);
  });

  it('keeps a value that does not fit apart from a value that is not there', () => {
    const view = parseView(keys, '12', [
      { key: keys.leader, value: '{"instance":"shop-1"}', modRevision: '11' },
      { key: keys.member('shop-2'), value: 'not json', modRevision: '10' },
    ]);
    expect(view.leader).toBeUndefined();
    expect(view.invalid.map((i) => i.key)).toEqual([keys.leader, keys.member('shop-2')]);
  });

  it('ignores keys of a newer version', () => {
    const view = parseView(keys, '12', [{ key: `${keys.prefix}novelty`, value: '{}', modRevision: '1' }]);
    expect(view.invalid).toEqual([]);
  });
});
