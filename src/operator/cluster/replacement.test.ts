import { describe, expect, it } from 'vitest';
import type { PgClusterSpecInput } from '../../api/pgcluster.ts';
import type { Action } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { Model, now } from '../testing/model.ts';
import type { Fleet } from './fleet.ts';
import { planCluster } from './plan.ts';

const minute = 60_000;
const ago = (ms: number) => new Date(now.getTime() - ms);
const spec = (
  synchronous: number,
  asynchronous: number,
  after = '30m',
  more: object = {},
): PgClusterSpecInput => ({
  storage: { size: '1Gi' },
  replicas: { synchronous, asynchronous },
  failover: { replaceLostInstanceAfter: after },
  ...more,
});

async function running(...args: Parameters<typeof spec>): Promise<Model> {
  const model = new Model(spec(...args));
  await model.converge();
  return model;
}

const roleOf = (model: Model) => {
  const leader = model.leader?.instance ?? '';
  const [sync = ''] = (model.sync?.names ?? []).map(({ instance }) => instance);
  const spare = [...model.instances.keys()].find((name) => name !== leader && name !== sync) ?? '';
  return { leader, sync, spare };
};
const lose = (model: Model, name: string, ms = 31 * minute) => {
  model.away.set(name, ago(ms));
  model.react();
};
const comeBack = (model: Model, name: string) => {
  model.away.delete(name);
  model.react();
};
const fleet = (ready: number, total: number, reach: Record<string, 'ready' | 'stranded' | 'elsewhere'>) => ({
  known: true as const,
  value: { nodes: { ready, total }, reach: new Map(Object.entries(reach)) } satisfies Fleet,
});
const marks = (actions: readonly Action[]) =>
  actions.flatMap((each) =>
    each.do === 'annotate' && each.annotations[operatorAnnotation.replacedSince] !== undefined
      ? [
          `${each.annotations[operatorAnnotation.replacedSince] === null ? 'cancel' : 'begin'} ${each.ref.name}`,
        ]
      : [],
  );
const condition = (model: Model, type: string) =>
  model.cluster.status?.conditions?.find((each) => each.type === type);
const planned = (model: Model) => marks(planCluster(model.snapshot).actions);

describe('an instance whose node is lost with its volume', () => {
  it('is replaced by one of another name; its volume stays, is marked and named, and is not used again', async () => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    lose(model, spare);
    await model.converge();
    expect([...model.instances.keys()].sort()).toEqual(
      ['shop-1', 'shop-2', 'shop-3', 'shop-4'].filter((name) => name !== spare),
    );
    expect(model.config?.members).toEqual([...model.instances.keys()].sort());
    expect(model.cluster.status).toMatchObject({
      phase: 'Running',
      ready: '3/3',
      detachedVolumes: [{ claim: spare, node: `node-of-${spare}`, since: now.toISOString() }],
    });
    expect(model.claims.get(spare)?.metadata.labels?.['koschei.dev/detached']).toBe('true');
    const deleted = model.done.flatMap((each) => (each.do === 'delete' ? [each.resource.kind] : []));
    expect(deleted).toEqual(['PgInstance']);

    // The node comes back with the volume: nothing happens, also when more instances are asked for.
    model.away.clear();
    model.edit(spec(1, 3));
    await model.converge();
    expect([...model.instances.keys()].sort()).not.toContain(spare);
    expect(model.instances.size).toBe(5);
    expect(model.cluster.status?.detachedVolumes).toHaveLength(1);
    // Its claim is deleted: there is nothing to tell any more, and the name is free.
    model.claims.delete(spare);
    await model.converge();
    expect(model.cluster.status?.detachedVolumes).toBeUndefined();
  });

  it('goes only when another one works in its place, and never before', async () => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    model.broken.add('shop-4');
    lose(model, spare);
    await model.converge();
    expect(model.instances.size).toBe(4);
    expect(model.config?.members).toContain(spare);
    expect(condition(model, 'Progressing')).toMatchObject({
      status: 'True',
      reason: 'ReplacingInstance',
      message: expect.stringContaining('shop-4 to work'),
    });
    model.broken.clear();
    model.react();
    await model.converge();
    expect([...model.instances.keys()]).not.toContain(spare);
    expect(model.cluster.status?.phase).toBe('Running');
  });

  it('goes on if its node comes back meanwhile, and the new one is taken away again', async () => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    model.broken.add('shop-4');
    lose(model, spare);
    await model.converge();
    comeBack(model, spare);
    await model.converge();
    expect([...model.instances.keys()].sort()).toEqual(['shop-1', 'shop-2', 'shop-3']);
    expect(model.claims.get(spare)?.metadata.annotations).not.toHaveProperty([operatorAnnotation.detached]);
    expect(model.instances.get(spare)?.metadata.annotations).not.toHaveProperty([
      operatorAnnotation.replacedSince,
    ]);
    expect(model.cluster.status?.detachedVolumes).toBeUndefined();
  });

  it('may have begun to be removed when its node comes back: its volume is taken back', async () => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    lose(model, spare);
    for (let n = 0; n < 20; n += 1) {
      const { actions } = planCluster(model.snapshot);
      const at = actions.findIndex((each) => each.do === 'delete');
      await model.pass(at < 0 ? undefined : at);
      if (at >= 0) break;
      model.react();
    }
    expect(model.claims.get(spare)?.metadata.annotations).toHaveProperty([operatorAnnotation.detached]);
    comeBack(model, spare);
    await model.pass();
    expect(model.claims.get(spare)?.metadata.annotations).not.toHaveProperty([operatorAnnotation.detached]);
    expect(model.claims.get(spare)?.metadata.labels).not.toHaveProperty(['koschei.dev/detached']);
  });

  it('is replaced when it is the only synchronous standby, for whom commits wait', async () => {
    const model = await running(1, 0);
    const { sync, leader } = roleOf(model);
    lose(model, sync);
    await model.converge();
    expect([...model.instances.keys()].sort()).toEqual([leader, 'shop-3']);
    expect(model.sync?.names.map(({ instance }) => instance)).toEqual(['shop-3']);
  });

  it('stays while etcd still names it as synchronous', async () => {
    const model = await running(1, 0);
    const { sync } = roleOf(model);
    lose(model, sync);
    const named = model.sync;
    for (let n = 0; n < 10; n += 1) {
      await model.pass();
      model.react();
      if (named !== undefined) model.sync = named;
    }
    expect([...model.instances.keys()]).toContain(sync);
    expect(condition(model, 'Progressing')?.message).toContain('synchronous set');
  });

  it('two of them are replaced one after the other', async () => {
    const model = await running(1, 2);
    const { leader, sync } = roleOf(model);
    const lost = [...model.instances.keys()].filter((name) => name !== leader && name !== sync);
    expect(lost).toHaveLength(2);
    for (const name of lost) lose(model, name);
    for (let n = 0; n < 40; n += 1) {
      await model.pass();
      model.react();
      expect(model.instances.size).toBeLessThanOrEqual(5);
      const marked = [...model.instances.values()].filter(
        ({ metadata }) => metadata.annotations?.[operatorAnnotation.replacedSince] !== undefined,
      );
      expect(marked.length).toBeLessThanOrEqual(1);
    }
    await model.converge();
    expect([...model.instances.keys()]).not.toEqual(expect.arrayContaining([lost[0]]));
    expect([...model.instances.keys()]).not.toEqual(expect.arrayContaining([lost[1]]));
    expect(model.cluster.status).toMatchObject({ phase: 'Running', ready: '4/4' });
    expect(model.cluster.status?.detachedVolumes).toHaveLength(2);
  });
});

describe('no replacement is begun', () => {
  it('before the time is over; the status says when it is', async () => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    lose(model, spare, 29 * minute);
    expect(planned(model)).toEqual([]);
    const plan = await model.pass();
    expect(condition(model, 'Degraded')?.message).toContain('is not back at 2026-01-01T00:01:00Z');
    expect(plan.requeueAfterMs).toBeLessThanOrEqual(minute);
  });

  it('when the spec says never', async () => {
    const model = await running(1, 1, '0');
    lose(model, roleOf(model).spare);
    await model.converge();
    expect(model.instances.size).toBe(3);
    expect(condition(model, 'Degraded')?.message).not.toContain('replaced');
  });

  /** Each is a reason for which a lost standby is not given up, with what the status says of it. */
  const guards: readonly [string, (model: Model, spare: string) => void, RegExp][] = [
    [
      'when half of the nodes are not ready',
      (model, spare) => {
        model.fleet = fleet(1, 2, { [spare]: 'stranded' });
      },
      /only 1 of 2 nodes are ready/,
    ],
    [
      'when nodes cannot be read',
      (model) => {
        model.fleet = { known: false, reason: 'Unknown', message: 'nodes cannot be read: forbidden' };
      },
      /nodes cannot be read/,
    ],
    [
      'when another node can mount the volume',
      (model, spare) => {
        model.fleet = fleet(2, 3, { [spare]: 'ready' });
      },
      /can be mounted on another node/,
    ],
    [
      'when the volume is tied to a zone rather than a node',
      (model, spare) => {
        model.fleet = fleet(2, 3, { [spare]: 'elsewhere' });
      },
      /not tied to one node/,
    ],
    [
      'when nothing is known of the volume',
      (model) => {
        model.fleet = fleet(2, 3, {});
      },
      /can be mounted on another node/,
    ],
    [
      'when the primary has fallen silent',
      (model) => {
        model.leaderSilentMs = 8_000;
      },
      /no primary works/,
    ],
    [
      'when the primary does not work',
      (model) => {
        model.members.delete(model.leader?.instance ?? '');
      },
      /no primary works/,
    ],
    [
      'when the primary has given up',
      (model) => {
        if (model.leader !== undefined) model.leader = { ...model.leader, phase: 'vacated' };
      },
      /no primary works/,
    ],
  ];
  it.each(guards)('%s', async (_, prepare, says) => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    lose(model, spare);
    prepare(model, spare);
    expect(planned(model)).toEqual([]);
    await model.pass();
    expect(condition(model, 'Degraded')?.message).toMatch(says);
    expect(model.instances.size).toBe(3);
  });

  it('of who leads, or led last, even when the only one that holds everything is lost', async () => {
    const model = await running(1, 0);
    const { leader, sync } = roleOf(model);
    // Both are away: nobody takes over.
    model.away.set(leader, ago(40 * minute)).set(sync, ago(40 * minute));
    model.react();
    expect(model.leader?.instance).toBe(leader);
    expect(planned(model)).toEqual([]);
    await model.pass();
    expect(condition(model, 'Degraded')?.message).toMatch(/a failover must come first/);
    expect(condition(model, 'Degraded')?.message).toMatch(/no primary works/);
    expect([...model.instances.keys()].sort()).toEqual([leader, sync].sort());
  });

  it('without etcd', async () => {
    const model = await running(1, 1);
    lose(model, roleOf(model).spare);
    model.etcdAnswers = false;
    expect(planned(model)).toEqual([]);
  });

  it('while automatic failover is paused', async () => {
    const until = new Date(now.getTime() + 60 * minute).toISOString();
    const model = await running(1, 1, '30m', { paused: { until } });
    lose(model, roleOf(model).spare);
    expect(planned(model)).toEqual([]);
    await model.pass();
    expect(condition(model, 'Degraded')?.message).toMatch(/failover is paused/);
  });

  it('while another instance is being filled', async () => {
    const model = await running(1, 1);
    const { spare, sync } = roleOf(model);
    lose(model, spare);
    const claim = model.claims.get(sync);
    if (claim === undefined) throw new Error('no claim');
    model.claims.set(sync, { ...claim, metadata: { ...claim.metadata, annotations: {} } });
    expect(planned(model)).toEqual([]);
  });

  it('of one that works again', async () => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    lose(model, spare);
    comeBack(model, spare);
    expect(planned(model)).toEqual([]);
  });
});

describe('what was begun is not finished', () => {
  /** A replacement whose new instance works, with only the removal of the lost one left to do. */
  const almost = async (): Promise<{ model: Model; spare: string }> => {
    const model = await running(1, 1);
    const { spare } = roleOf(model);
    lose(model, spare);
    for (let n = 0; n < 20; n += 1) {
      if (planCluster(model.snapshot).actions.some((each) => each.do === 'delete')) return { model, spare };
      await model.pass();
      model.react();
    }
    throw new Error('the removal never came');
  };

  it.each<[string, (model: Model, spare: string) => void]>([
    [
      'when most nodes are not ready by then',
      (model, spare) => {
        model.fleet = fleet(1, 3, { [spare]: 'stranded' });
      },
    ],
    [
      'when its node is back, although the instance does not work yet',
      (model, spare) => {
        model.fleet = fleet(3, 3, { [spare]: 'ready' });
      },
    ],
    [
      'when the primary is lost by then',
      (model) => {
        model.leaderSilentMs = 8_000;
      },
    ],
    [
      'when the new one does not work any more',
      (model) => {
        model.broken.add('shop-4');
        model.react();
      },
    ],
  ])('%s', async (_, prepare) => {
    const { model, spare } = await almost();
    prepare(model, spare);
    for (let n = 0; n < 5; n += 1) await model.pass();
    expect([...model.instances.keys()]).toContain(spare);
    expect(model.claims.get(spare)?.metadata.annotations).not.toHaveProperty([operatorAnnotation.detached]);
  });

  it('when the spec asks for none any more: then the one that is missed least goes, and no volume is detached', async () => {
    const { model } = await almost();
    model.edit(spec(1, 1, '0'));
    await model.converge();
    expect(model.instances.size).toBe(3);
    expect(model.cluster.status?.detachedVolumes).toBeUndefined();
  });
});
