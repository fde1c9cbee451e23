import { describe, expect, it } from 'vitest';
import { schedule } from './faults.ts';
import { shrink } from './shrink.ts';
import { story } from './story.ts';
import { run, type World } from './world.ts';

const schedules = Number(process.env.KOSCHEI_SCHEDULES ?? 20_000);
const first = Number(process.env.KOSCHEI_SEED ?? 1);
const part = 1_000;

describe('the shipped decisions', () => {
  const parts = Array.from({ length: Math.ceil(schedules / part) }, (_, i) => first + i * part);
  it.each(parts)('keep every invariant in the schedules from seed %i on', { timeout: 300_000 }, (from) => {
    for (let seed = from; seed < from + part; seed++) {
      const which = schedule(seed);
      const { violation } = run(which);
      if (violation === undefined) continue;
      const { invariant, message } = violation;
      expect.fail(`seed ${seed}: ${invariant}: ${message}\n${story(shrink(which, invariant)).join('\n')}`);
    }
  });

  it('change the leader only when something goes wrong', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const outcome = run({ ...schedule(seed), faults: [] });
      expect(outcome).toMatchObject({ terms: 1 });
      expect(outcome.acknowledged).toBeGreaterThan(3);
    }
  });
});

it('an asynchronous primary that is lost while its only standby is started anew is replaced by it', () => {
  const config = { synchronous: 0, durability: 'required', fencing: 'fast' } as const;
  const outcome = run(
    { noise: 3, instances: 2, config, ttlMs: 6_000, faults: [] },
    {
      untilMs: 60_000,
      prepare: (world) =>
        world.at(10_000, () => {
          const lost = world.machine(world.etcd.view.leader?.value.instance);
          const standby = world.machines.find((m) => m !== lost);
          if (lost === undefined || standby === undefined) throw new Error('there are not two instances');
          standby.endAgent(3_000);
          // The agent takes its key away when it ends, or its lease runs out.
          world.etcd.forget(standby.name);
          world.after(2_000, () => lost.losePower(10_000_000));
        }),
    },
  );
  expect(outcome).toMatchObject({ terms: 2 });
  expect(outcome.violation).toBeUndefined();
});

it('a person brings back a cluster that has lost its primary and the whole synchronous set', () => {
  const config = { synchronous: 1, durability: 'required', fencing: 'fast' } as const;
  const schedule = { noise: 5, instances: 4, config, ttlMs: 6_000, faults: [] };
  const lose = (world: World, ask: boolean) =>
    world.at(10_000, () => {
      const { leader, sync, members } = world.etcd.view;
      const lost = [leader?.value.instance, ...(sync?.value.names.map((m) => m.instance) ?? [])];
      for (const name of lost) world.machine(name)?.losePower(10_000_000);
      const to = [...members.values()].map((m) => m.value).find((m) => !lost.includes(m.instance));
      if (leader === undefined || to === undefined) throw new Error('there is nobody to ask');
      const { instance, dataId, bootId } = to;
      const about = {
        to: instance,
        dataId,
        bootId,
        term: leader.value.term,
        acceptLoss: true,
        primaryIsOff: true,
      };
      if (ask)
        world.after(8_000, () => world.etcd.request({ id: 'r', kind: 'failover', by: 'a person', ...about }));
    });
  const left = run(schedule, { untilMs: 60_000, prepare: (world) => lose(world, false) });
  expect(left).toMatchObject({ terms: 1 });
  const brought = run(schedule, { untilMs: 60_000, prepare: (world) => lose(world, true) });
  expect(brought).toMatchObject({ terms: 2 });
  expect(brought.violation).toBeUndefined();
  expect(brought.acknowledged).toBeGreaterThan(2 * left.acknowledged);
});

it.each([
  ['a shorter', 30_000, 6_000],
  ['a longer', 6_000, 30_000],
])('%s ttl is nothing to go by for a leader that has not heard of it', (_, ttlMs, toMs) => {
  const config = { synchronous: 0, durability: 'required', fencing: 'fast' } as const;
  const outcome = run(
    { noise: 1, instances: 3, config, ttlMs, faults: [] },
    {
      untilMs: 80_000,
      prepare: (world) =>
        world.at(10_000, () => {
          const { etcd, network } = world;
          const { config: stored, leader } = etcd.view;
          const primary = world.machine(leader?.value.instance);
          if (stored === undefined || primary === undefined) throw new Error('there is no primary');
          const timing = { ...stored.value.timing, ttlMs: toMs };
          network.cut(network.etcd, primary.number, 70_000);
          network.cut(primary.number, network.etcd, 70_000);
          // Else they would promise not to stand.
          for (const { number } of world.machines) network.cut(primary.number, number, 70_000);
          etcd.configure({ ...stored.value, generation: 2, timing });
        }),
    },
  );
  expect(outcome.violation).toBeUndefined();
  expect(outcome.terms).toBe(2);
});

describe('a schedule', () => {
  it('is the same story every time', () => {
    for (let seed = 1; seed <= 20; seed++) expect(story(schedule(seed))).toEqual(story(schedule(seed)));
  });

  it('survives being written down', () => {
    const which = schedule(7);
    expect(run(JSON.parse(JSON.stringify(which)))).toEqual(run(which));
  });
});
