import { describe, expect, it } from 'vitest';
import type { PgClusterSpecInput } from '../../api/pgcluster.ts';
import type { MemberValue } from '../../dcs/index.ts';
import { operatorAnnotation } from '../annotations.ts';
import { Model } from '../testing/model.ts';
import { newest } from './evidence.ts';
import { planCluster } from './plan.ts';

const spec: PgClusterSpecInput = { storage: { size: '1Gi' }, replicas: { synchronous: 1, asynchronous: 1 } };
const conditionOf = (model: Model, type: string) =>
  model.cluster.status?.conditions?.find((each) => each.type === type);
const did = (model: Model) => planCluster(model.snapshot).actions.map((each) => each.do);

/** A cluster of three that has lived, with what its agents say of their data. */
async function lived(data: Record<string, Partial<MemberValue>> = {}): Promise<Model> {
  const model = new Model(spec);
  await model.converge();
  for (const [name, says] of model.members)
    model.members.set(name, {
      ...says,
      systemIdentifier: '7000000000000000001',
      timeline: 1,
      promotedTerm: name === 'shop-1' ? 1 : 0,
      receivedLsn: '0/5000000',
      ...data[name],
    });
  return model;
}
/** etcd is made anew: only what the agents say is there. */
const wipe = (model: Model) => {
  model.initialized = false;
  model.config = undefined;
  model.leader = undefined;
  model.sync = undefined;
};
const decide = (model: Model, value: string) => {
  const { metadata } = model.cluster;
  const annotations = { ...metadata.annotations, 'koschei.dev/adopt-primary': value };
  model.cluster = { ...model.cluster, metadata: { ...metadata, annotations } };
};

describe('which instance holds every acknowledged commit', () => {
  it('is the one that was promoted last, whatever positions others are at', async () => {
    const model = await lived({
      'shop-2': { promotedTerm: 1, receivedLsn: '0/9000000' },
      'shop-1': { promotedTerm: 2 },
    });
    wipe(model);
    expect(newest(model.snapshot)).toEqual({ instance: 'shop-1', term: 2 });
  });

  it.each<[string, (model: Model) => void, RegExp]>([
    [
      'nothing is heard of one of them',
      (model) => model.members.delete('shop-3'),
      /nothing is heard of shop-3/,
    ],
    [
      'an agent is too old to tell',
      (model) => {
        const { promotedTerm: _, ...says } = model.members.get('shop-2') as MemberValue;
        model.members.set('shop-2', says);
      },
      /nothing is heard of shop-2/,
    ],
    [
      'an agent has no data',
      (model) => {
        const { systemIdentifier: _, ...says } = model.members.get('shop-2') as MemberValue;
        model.members.set('shop-2', says);
      },
      /nothing is heard of shop-2/,
    ],
    [
      'two say that they led the same term',
      (model) =>
        model.members.set('shop-2', { ...(model.members.get('shop-2') as MemberValue), promotedTerm: 1 }),
      /shop-1 and shop-2 both led term 1/,
    ],
    [
      'there has been a later term',
      (model) => {
        model.cluster = { ...model.cluster, status: { ...model.cluster.status, term: 4 } };
      },
      /there has been a term 4/,
    ],
    [
      'none has ever led',
      (model) =>
        model.members.set('shop-1', { ...(model.members.get('shop-1') as MemberValue), promotedTerm: 0 }),
      /none of them has ever led/,
    ],
    [
      'one is of another database',
      (model) =>
        model.members.set('shop-2', {
          ...(model.members.get('shop-2') as MemberValue),
          systemIdentifier: '8',
        }),
      /different databases/,
    ],
  ])('is not known when %s', async (_, prepare, says) => {
    const model = await lived();
    wipe(model);
    prepare(model);
    expect(newest(model.snapshot)).toEqual({ unknown: expect.stringMatching(says) });
  });
});

describe('etcd is made anew under a living cluster', () => {
  it('nothing is changed, and the status tells of each volume', async () => {
    const model = await lived({ 'shop-1': { role: 'none', heldLsn: '0/6000000' } });
    const { receivedLsn: _, ...stopped } = model.members.get('shop-1') as MemberValue;
    model.members.set('shop-1', stopped);
    wipe(model);
    const from = model.done.length;
    await model.pass();
    await model.pass();
    expect(model.done.slice(from)).toEqual([]);
    expect(model.cluster.status).toMatchObject({
      phase: 'WaitingForDecision',
      volumes: [
        {
          instance: 'shop-1',
          timeline: 1,
          lsn: '0/6000000',
          term: 1,
          note: expect.stringMatching(/stopped/),
        },
        {
          instance: 'shop-2',
          timeline: 1,
          lsn: '0/5000000',
          term: 0,
          note: expect.stringMatching(/never led/),
        },
        { instance: 'shop-3', timeline: 1, lsn: '0/5000000', term: 0 },
      ],
    });
    expect(conditionOf(model, 'Ready')?.message).toContain('koschei.dev/adopt-primary=auto');
  });

  it('with "auto" the one that led last goes on, and no other although it falls silent', async () => {
    const model = await lived();
    wipe(model);
    decide(model, 'auto');
    await model.pass();
    expect(model.config).toMatchObject({ members: ['shop-1'], adopt: { instance: 'shop-1', term: 1 } });
    const written = model.config;
    model.members.clear();
    await model.pass();
    expect(model.config).toEqual(written);
    expect(conditionOf(model, 'Ready')?.message).toMatch(/shop-1 founds the cluster anew/);
  });

  it('"auto" does nothing while it cannot be proved, and says why', async () => {
    const model = await lived();
    wipe(model);
    model.members.delete('shop-3');
    decide(model, 'auto');
    expect(did(model)).toEqual([]);
    await model.pass();
    expect(conditionOf(model, 'Ready')).toMatchObject({ reason: 'WaitingForDecision' });
    expect(conditionOf(model, 'Ready')?.message).toMatch(/nothing is heard of shop-3/);
  });

  it('a name that is no instance with data does nothing, and that is said', async () => {
    const model = await lived();
    wipe(model);
    decide(model, 'shop-9');
    expect(did(model)).toEqual([]);
    await model.pass();
    expect(conditionOf(model, 'Ready')?.message).toMatch(/expected an instance .*shop-1.*found "shop-9"/);
  });

  it('the new term is greater than any that is known of', async () => {
    const model = await lived({ 'shop-2': { promotedTerm: 6 } });
    wipe(model);
    decide(model, 'shop-1');
    await model.pass();
    expect(model.config?.adopt).toMatchObject({ instance: 'shop-1', term: 6 });
  });
});

describe('etcd is restored from an old copy', () => {
  const restored = async () => {
    const model = await lived({ 'shop-2': { promotedTerm: 3, timeline: 3 } });
    model.cluster = { ...model.cluster, status: { ...model.cluster.status, term: 3 } };
    // Agents do not obey it, so nobody leads.
    model.leaderSilentMs = 60_000;
    return model;
  };

  it.each(['the status', 'what the agents say', 'both'])(
    'it is noticed by %s, and nothing is changed',
    async (known) => {
      const model = await restored();
      if (known === 'what the agents say')
        model.cluster = { ...model.cluster, status: { ...model.cluster.status, term: 1 } };
      if (known === 'the status') model.members.clear();
      model.edit({ ...spec, logLevel: 'debug' });
      const from = model.done.length;
      await model.pass();
      expect(model.done.slice(from)).toEqual([]);
      expect(model.cluster.status?.phase).toBe('WaitingForDecision');
      expect(conditionOf(model, 'EtcdReachable')).toMatchObject({
        status: 'False',
        reason: 'EtcdStateStale',
        message: expect.stringMatching(/shop-1 leads term 1, while there has been a term 3/),
      });
      expect(conditionOf(model, 'Ready')).toMatchObject({ status: 'False', reason: 'WaitingForDecision' });
      expect(model.cluster.status?.volumes).toHaveLength(3);
      // It stays so: the term is not forgotten.
      const { term } = model.cluster.status ?? {};
      await model.pass();
      expect(model.cluster.status).toMatchObject({ phase: 'WaitingForDecision', term });
    },
  );

  it('a decision clears what etcd says, but for what the agents announce, and then founds the cluster anew', async () => {
    const model = await restored();
    decide(model, 'auto');
    expect(did(model)).toEqual(['clear-state']);
    await model.pass();
    expect(model.members.size).toBe(3);
    await model.pass();
    expect(model.config).toMatchObject({ members: ['shop-2'], adopt: { instance: 'shop-2', term: 3 } });
    expect(model.config?.adopt?.timeline).toBeGreaterThan(3);
  });

  it('within one term it is noticed by who should lead, and does not', async () => {
    const model = await lived();
    const says = model.members.get('shop-1') as MemberValue;
    const problem = { reason: 'StateOlderThanData', message: 'the revision went back' };
    model.members.set('shop-1', { ...says, role: 'none', problem });
    await model.pass();
    expect(model.cluster.status?.phase).toBe('WaitingForDecision');
    expect(conditionOf(model, 'EtcdReachable')).toMatchObject({
      reason: 'EtcdStateStale',
      message: expect.stringMatching(/shop-1 leads term 1, which its agent denies: the revision went back/),
    });
    decide(model, 'auto');
    expect(did(model)).toEqual(['clear-state']);
  });

  it('an instance that comes back with data nobody knew of does not stop a cluster that works', async () => {
    const model = await lived({ 'shop-3': { promotedTerm: 7 } });
    await model.pass();
    expect(conditionOf(model, 'EtcdReachable')).toMatchObject({ status: 'True' });
    expect(conditionOf(model, 'Ready')).toMatchObject({ status: 'True' });
  });

  it('a state that lacks its leader is one, too', async () => {
    const model = await lived();
    model.leader = undefined;
    await model.pass();
    expect(conditionOf(model, 'EtcdReachable')).toMatchObject({ reason: 'EtcdStateStale' });
  });
});

it('what was noted of a volume when it was stopped is forgotten when its instance works again', async () => {
  const model = await lived();
  const claim = model.claims.get('shop-2');
  if (claim === undefined) throw new Error('no claim');
  const annotations = { ...claim.metadata.annotations, [operatorAnnotation.lastSeen]: '{"timeline":1}' };
  model.claims.set('shop-2', { ...claim, metadata: { ...claim.metadata, annotations } });
  await model.pass();
  expect(model.claims.get('shop-2')?.metadata.annotations).not.toHaveProperty([operatorAnnotation.lastSeen]);
});
