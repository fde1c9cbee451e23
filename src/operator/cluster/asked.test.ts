import { describe, expect, it } from 'vitest';
import { agentsPassedOn, askedReclone, askedSwitchover } from './asked.ts';
import type { ClusterSnapshot } from './snapshot.ts';

interface World {
  readonly leader?: string | undefined;
  readonly request?: boolean;
  readonly ordered?: string;
  readonly agents?: readonly string[];
  readonly barred?: string;
}

/** Only what the rules look at: shop-1 leads shop-2 and shop-3. */
function snapshot(annotations: Record<string, string>, world: World = {}): ClusterSnapshot {
  const { leader = 'shop-1', request = false, ordered, agents = [], barred = '' } = world;
  return {
    cluster: { metadata: { name: 'shop', namespace: 'ns', annotations } },
    instances: ['shop-1', 'shop-2', 'shop-3'].map((name, at) => ({
      metadata: { name },
      spec: { agentImage: agents[at] ?? 'koschei:2' },
    })),
    installation: { agentImage: 'koschei:2' },
    etcd: {
      known: true,
      value: {
        view: {
          ...(leader === 'nobody'
            ? {}
            : { leader: { value: { instance: leader, phase: 'leading' }, revision: '7' } }),
          config: { value: { instances: { [barred]: { noFailover: true } } }, revision: '6' },
          ...(request ? { request: { value: {}, revision: '8' } } : {}),
          commands: new Map(ordered === undefined ? [] : [[ordered, {}]]),
        },
      },
    },
    random: { requestId: 'r1' },
  } as unknown as ClusterSnapshot;
}

describe('a switchover', () => {
  const asks = (value: string, world: World = {}) =>
    askedSwitchover(snapshot({ 'koschei.dev/switchover': value }, world));
  const removal = { do: 'annotate', annotations: { 'koschei.dev/switchover': null } };

  it('is not asked for without the annotation', () => {
    expect(askedSwitchover(snapshot({}))).toEqual([]);
  });

  it('to a named instance is passed on, then the annotation goes', () => {
    expect(asks('shop-2')).toMatchObject([
      { do: 'request', value: { id: 'r1', kind: 'switchover', to: 'shop-2' } },
      removal,
    ]);
  });

  it('to any leaves the choice to the primary', () => {
    const [request] = asks('any');
    expect(request?.do === 'request' && request.value.to).toBeUndefined();
  });

  it('waits for an earlier request', () => {
    expect(asks('shop-2', { request: true })).toEqual([]);
  });

  it('to an instance that may not become the primary is refused with a Warning', () => {
    const actions = asks('shop-2', { barred: 'shop-2' });
    expect(actions).toMatchObject([{ ...removal, event: { type: 'Warning', reason: 'SwitchoverRefused' } }]);
    expect(actions[0]?.because).toContain('noFailover');
  });

  it.each(['shop-1', 'shop-9', 'other-1', 'shop-x', ''])('to %j is refused with a Warning', (asked) => {
    const actions = asks(asked);
    expect(actions).toMatchObject([{ ...removal, event: { type: 'Warning', reason: 'SwitchoverRefused' } }]);
    expect(actions[0]?.because).toMatch(/^no switchover: /);
  });
});

describe('a clone of a standby', () => {
  const asks = (value: string, world: World = {}) =>
    askedReclone(snapshot({ 'koschei.dev/reclone': value }, world));
  const removal = { do: 'annotate', annotations: { 'koschei.dev/reclone': null } };

  it('is not asked for without the annotation', () => {
    expect(askedReclone(snapshot({}))).toEqual([]);
  });

  it('becomes an order to its agent, then the annotation goes', () => {
    expect(asks('shop-2')).toMatchObject([
      { do: 'command', instance: 'shop-2', value: { id: 'r1', do: 'reclone' } },
      removal,
    ]);
  });

  it('waits for an earlier order to the same instance, and for no other', () => {
    expect(asks('shop-2', { ordered: 'shop-2' })).toEqual([]);
    expect(asks('shop-2', { ordered: 'shop-3' })).toHaveLength(2);
  });

  it.each([
    ['of the primary', 'shop-1', {}],
    ['of no instance', 'shop-9', {}],
    ['of any', 'any', {}],
    ['while nobody has led', 'shop-2', { leader: 'nobody' }],
  ])('%s is refused with a Warning', (_, asked, world) => {
    expect(asks(asked, world)).toMatchObject([
      { ...removal, event: { type: 'Warning', reason: 'RecloneRefused' } },
    ]);
  });
});

describe('an upgrade of the agents', () => {
  const asked = { 'koschei.dev/upgrade-agents': 'now' };

  it('is over when every instance has the image of the operator', () => {
    expect(agentsPassedOn(snapshot({}))).toEqual([]);
    expect(agentsPassedOn(snapshot(asked, { agents: ['koschei:2', 'koschei:1'] }))).toEqual([]);
    expect(agentsPassedOn(snapshot(asked))).toMatchObject([
      {
        do: 'annotate',
        annotations: { 'koschei.dev/upgrade-agents': null },
        event: { type: 'Normal', reason: 'AgentsUpgrading' },
      },
    ]);
  });
});
