import fc from 'fast-check';
import { expect, it } from 'vitest';
import { FakeClock, settle } from './testing/fake-clock.ts';
import { WorkQueue } from './workqueue.ts';

const setup = () => {
  const clock = new FakeClock();
  return { clock, queue: new WorkQueue({ name: 'test', clock, random: () => 0 }) };
};

it('hands out a key once however often it was added', async () => {
  const { queue } = setup();
  for (const key of ['a', 'b', 'a', 'a']) queue.add(key);
  expect(queue.size).toBe(2);
  expect([await queue.take(), await queue.take()]).toEqual(['a', 'b']);
  expect(queue.size).toBe(0);
});

it('hands out a key again that was added while it was worked on, but only after that', async () => {
  const { queue } = setup();
  queue.add('a');
  await queue.take();
  queue.add('a');
  expect(queue.size).toBe(0);
  queue.done('a');
  expect(await queue.take()).toBe('a');
});

it('gives a key to a worker that already waits', async () => {
  const { queue } = setup();
  const waiting = [queue.take(), queue.take()];
  queue.add('a');
  queue.add('b');
  expect(await Promise.all(waiting)).toEqual(['a', 'b']);
  expect(queue.active).toBe(2);
});

it('keeps the earliest of several delays', async () => {
  const { queue, clock } = setup();
  queue.addAfter('a', 500);
  queue.addAfter('a', 100);
  queue.addAfter('a', 900);
  expect(queue.delayed).toBe(1);
  await clock.advance(99);
  expect(queue.size).toBe(0);
  await clock.advance(1);
  expect(await queue.take()).toBe('a');
  queue.done('a');
  await clock.advance(10_000);
  expect(queue.size).toBe(0);
});

it('doubles the delay of a key with every failure, up to a minute, until it is forgotten', () => {
  const { queue } = setup();
  const delays = Array.from({ length: 11 }, () => queue.addAfterFailure('a'));
  expect(delays).toEqual([200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000]);
  expect(queue.addAfterFailure('b')).toBe(200);
  queue.forget('a');
  expect(queue.addAfterFailure('a')).toBe(200);
});

it('takes up to half of the delay off at random', () => {
  const queue = new WorkQueue({ name: 'test', clock: new FakeClock(), random: () => 0.999_999 });
  expect(queue.addAfterFailure('a')).toBeCloseTo(100, 2);
});

it('wakes all workers when it is closed, drops what waits and leaves no timer behind', async () => {
  const { queue, clock } = setup();
  const waiting = [queue.take(), queue.take()];
  queue.addAfter('later', 100);
  queue.close();
  expect(await Promise.all(waiting)).toEqual([undefined, undefined]);
  queue.add('a');
  expect(await queue.take()).toBeUndefined();
  expect(clock.timers).toBe(0);
});

it('refuses "done" for what nobody works on', () => {
  const { queue } = setup();
  expect(() => queue.done('a')).toThrow('is not being worked on');
});

it('whatever happens: one worker per key, and after the last add of a key a take of it', async () => {
  const key = fc.constantFrom('a', 'b', 'c');
  const operation = fc.oneof(
    fc.record({ do: fc.constant('add' as const), key }),
    fc.record({ do: fc.constant('addAfter' as const), key, ms: fc.integer({ min: 0, max: 1_000 }) }),
    fc.record({ do: fc.constant('fail' as const), key }),
    fc.record({ do: fc.constant('take' as const) }),
    fc.record({ do: fc.constant('done' as const), index: fc.nat(5) }),
    fc.record({ do: fc.constant('advance' as const), ms: fc.integer({ min: 0, max: 2_000 }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { maxLength: 60, size: 'max' }), async (operations) => {
      const { queue, clock } = setup();
      const active: string[] = [];
      /** Keys that were asked for since they were last taken. */
      const owed = new Set<string>();
      let takers = 0;
      const take = () => {
        takers += 1;
        void queue.take().then((taken) => {
          takers -= 1;
          if (taken === undefined) return;
          expect(active, 'two workers have the same key').not.toContain(taken);
          active.push(taken);
          owed.delete(taken);
        });
      };
      const done = (index: number) => {
        const [finished] = active.splice(index % Math.max(active.length, 1), 1);
        if (finished !== undefined) queue.done(finished);
      };
      for (const operation of operations) {
        if (operation.do === 'take') take();
        if (operation.do === 'done') done(operation.index);
        if (operation.do === 'advance') await clock.advance(operation.ms);
        if (operation.do === 'add') queue.add(operation.key);
        if (operation.do === 'addAfter') queue.addAfter(operation.key, operation.ms);
        if (operation.do === 'fail') queue.addAfterFailure(operation.key);
        if ('key' in operation) owed.add(operation.key);
        await settle();
        expect(queue.active).toBe(active.length);
      }
      await clock.advance(120_000);
      // Enough workers who finish everything: in the end nothing is owed.
      for (let round = 0; round < 10; round += 1) {
        while (takers < 3) take();
        await settle();
        while (active.length > 0) done(0);
        await settle();
      }
      expect([...owed]).toEqual([]);
      expect(queue.size + queue.active + queue.delayed).toBe(0);
      queue.close();
    }),
    { numRuns: 200 },
  );
});
