import { describe, expect, it } from 'vitest';
import type { Action } from '../action.ts';
import { agentsPassedOn, askedFailover, askedReclone, askedSwitchover } from './asked.ts';
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

describe('a failover that may lose commits', () => {
  const removal = { do: 'annotate', annotations: { 'koschei.dev/failover': null } };
  const says = (instance: string, change: object = {}) => ({
    value: {
      instance,
      dataId: instance.slice(-1).repeat(16),
      bootId: `boot of ${instance}`,
      role: 'standby',
      timeline: 3,
      receivedLsn: '0/3000000',
      ...change,
    },
  });
  /** shop-1 led term 7 and shop-2 was synchronous: both are lost. */
  const world = {
    leader: { instance: 'shop-1', phase: 'leading', term: 7, timeline: 3, lsn: '0/3000400' },
    silentMs: 6_000,
    sync: ['shop-2'],
    members: [says('shop-3')],
    noFailover: [] as string[],
    request: undefined as string | undefined,
  };
  function asks(text: string, change: Partial<typeof world> = {}) {
    const { leader, silentMs, sync, members, noFailover, request } = { ...world, ...change };
    const base = snapshot({ 'koschei.dev/failover': text });
    const view = {
      leader: { value: leader, revision: '7' },
      sync: {
        value: {
          mode: 'sync',
          names: sync.map((instance) => ({ instance, dataId: instance.slice(-1).repeat(16) })),
        },
      },
      config: {
        value: {
          timing: { ttlMs: 6_000 },
          instances: Object.fromEntries(noFailover.map((name) => [name, { noFailover: true }])),
        },
      },
      members: new Map(members.map((each) => [each.value.instance, each])),
      ...(request === undefined ? {} : { request: { value: {}, revision: request } }),
    };
    return askedFailover({
      ...base,
      etcd: { known: true, value: { view, leaderSilentMs: silentMs } },
    } as unknown as ClusterSnapshot);
  }
  const refusedBecause = (actions: readonly Action[]) => {
    expect(actions).toMatchObject([{ ...removal, event: { type: 'Warning', reason: 'FailoverRefused' } }]);
    return actions[0]?.because;
  };

  it('is refused the first time, with what may be lost and the words that accept it', () => {
    const why = refusedBecause(asks('shop-3'));
    expect(why).toContain('had come to 0/3000400 at its last heartbeat');
    expect(why).toContain('shop-3 holds WAL up to 0/3000000 on timeline 3: 1024 bytes');
    expect(why).toContain("koschei.dev/failover='shop-3 acceptLoss=7 primaryIsOff'");
  });

  it('is asked for when its loss is accepted, by data, boot and term; another request gives way', () => {
    const expected = {
      do: 'request',
      value: {
        kind: 'failover',
        to: 'shop-3',
        dataId: '3333333333333333',
        bootId: 'boot of shop-3',
        term: 7,
        acceptLoss: true,
        primaryIsOff: true,
      },
    };
    expect(asks('shop-3 acceptLoss=7 primaryIsOff')).toMatchObject([expected, removal]);
    const [unsure] = asks('shop-3 acceptLoss=7', { request: '12' });
    expect(unsure).toMatchObject({ do: 'request', replaces: '12' });
    expect(unsure?.do === 'request' && 'primaryIsOff' in unsure.value).toBe(false);
  });

  it.each<[string, string, Partial<typeof world>, string]>([
    ['of another term', 'shop-3 acceptLoss=6 primaryIsOff', {}, 'is not about term 7'],
    ['with other words', 'shop-3 acceptLoss', {}, 'expected an instance'],
    ['to nobody', 'shop-9 acceptLoss=7', {}, 'expected an instance'],
    ['to any', 'any acceptLoss=7', {}, 'expected an instance'],
    ['to the lost primary', 'shop-1 acceptLoss=7', {}, 'leads again by itself'],
    ['while the primary lives', 'shop-3 acceptLoss=7', { silentMs: 5_999 }, 'use a switchover'],
    ['to an agent that is away', 'shop-3 acceptLoss=7', { members: [] }, 'does not say'],
    [
      'without Postgres',
      'shop-3 acceptLoss=7',
      { members: [says('shop-3', { role: 'none' })] },
      'does not say',
    ],
    ['to one that may not', 'shop-3 acceptLoss=7', { noFailover: ['shop-3'] }, 'noFailover'],
    [
      'while a synchronous standby lives',
      'shop-3 acceptLoss=7',
      { members: [says('shop-3'), says('shop-2')] },
      'shop-2 holds every acknowledged commit',
    ],
  ])('%s is refused', (_, text, change, why) => {
    expect(refusedBecause(asks(text, change))).toContain(why);
  });

  it('may be to a synchronous standby, or past one whose Postgres does not run', () => {
    const both = [says('shop-3'), says('shop-2')];
    const [request] = asks('shop-2', { members: both });
    expect(request).toMatchObject({
      do: 'request',
      because: expect.stringContaining('every acknowledged commit'),
    });
    expect(request?.do === 'request' && 'acceptLoss' in request.value).toBe(false);
    expect(asks('shop-2 acceptLoss=7', { members: both })).toHaveLength(2);
    expect(
      asks('shop-3 acceptLoss=7', { members: [says('shop-3'), says('shop-2', { role: 'none' })] }),
    ).toHaveLength(2);
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
