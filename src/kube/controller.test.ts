import { pino } from 'pino';
import { Registry } from 'prom-client';
import { describe, expect, it } from 'vitest';
import { Controller, type ControllerOptions, type Reconcile } from './controller.ts';
import { ApiError, TerminalError } from './errors.ts';
import { KubeMetrics } from './metrics.ts';
import { FakeClock, settle } from './testing/fake-clock.ts';

function setup(reconcile: Reconcile, more: Partial<ControllerOptions> = {}) {
  const clock = new FakeClock();
  const lines: Record<string, unknown>[] = [];
  const log = pino(
    { level: 'info' },
    { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const metrics = new KubeMetrics(new Registry());
  const controller = new Controller({
    name: 'test',
    reconcile,
    log,
    clock,
    metrics,
    random: () => 0,
    newId: () => 'id-1',
    ...more,
  });
  const count = async (result: string) =>
    (await metrics.reconciles.get()).values.find((value) => value.labels.result === result)?.value ?? 0;
  return { clock, controller, lines, count };
}

describe('a reconcile that', () => {
  it('succeeds is not repeated', async () => {
    const keys: string[] = [];
    const { clock, controller, count } = setup(async ({ namespace, name }) => {
      keys.push(`${namespace}|${name}`);
      return {};
    });
    controller.enqueue('ns/a');
    controller.enqueue('node');
    controller.start();
    await clock.advance(3_600_000);
    expect(keys).toEqual(['ns|a', '|node']);
    expect(await count('success')).toBe(2);
    expect(await controller.stop(0)).toBe(true);
  });

  it('asks for it is repeated after that time', async () => {
    const { clock, controller } = setup(async () => {
      times.push(clock.monotonic());
      return { requeueAfterMs: 5_000 };
    });
    const times: number[] = [];
    controller.enqueue('ns/a');
    controller.start();
    await clock.advance(11_000);
    expect(times).toEqual([0, 5_000, 10_000]);
    await controller.stop(0);
  });

  it('fails is repeated later and later, and from the start after a success', async () => {
    let healthy = false;
    const times: number[] = [];
    const { clock, controller, lines, count } = setup(async () => {
      times.push(clock.monotonic());
      if (!healthy) throw new Error('no');
      return {};
    });
    controller.enqueue('ns/a');
    controller.start();
    await clock.advance(1_500);
    expect(times).toEqual([0, 200, 600, 1_400]);
    expect(await count('error')).toBe(4);
    expect(lines[0]).toMatchObject({
      controller: 'test',
      namespace: 'ns',
      name: 'a',
      reconcileId: 'id-1',
      err: { message: 'no' },
      retryInMs: 200,
    });
    healthy = true;
    await clock.advance(10_000);
    healthy = false;
    times.length = 0;
    controller.enqueue('ns/a');
    await clock.advance(250);
    expect(times).toHaveLength(2);
    await controller.stop(0);
  });

  it('fails for good waits for a change', async () => {
    let runs = 0;
    const { clock, controller, count } = setup(async () => {
      runs += 1;
      throw new TerminalError('nothing to be done');
    });
    controller.enqueue('ns/a');
    controller.start();
    await clock.advance(3_600_000);
    expect(runs).toBe(1);
    controller.enqueue('ns/a');
    await settle();
    expect(runs).toBe(2);
    expect(await count('terminal')).toBe(2);
    await controller.stop(0);
  });

  it('meets a conflict is repeated soon, without an error in the log', async () => {
    let runs = 0;
    const { clock, controller, lines, count } = setup(async () => {
      runs += 1;
      if (runs === 1) throw new ApiError(409, 'Conflict', 'changed');
      return {};
    });
    controller.enqueue('ns/a');
    controller.start();
    await clock.advance(200);
    expect(runs).toBe(2);
    expect(lines).toEqual([]);
    expect(await count('conflict')).toBe(1);
    await controller.stop(0);
  });

  it('takes too long is told so', async () => {
    const { clock, controller, lines } = setup(
      async (_, { signal }) =>
        await new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
    );
    controller.enqueue('ns/a');
    controller.start();
    await clock.advance(59_000);
    expect(controller.longestRunningMs).toBe(59_000);
    await clock.advance(1_000);
    expect(lines[0]).toMatchObject({ timedOut: true, msg: 'reconcile failed' });
    expect(controller.longestRunningMs).toBe(0);
    await controller.stop(0);
  });
});

it('works on several objects at once, on each only once', async () => {
  const running: string[] = [];
  let most = 0;
  const { clock, controller } = setup(
    async ({ name }) => {
      expect(running).not.toContain(name);
      running.push(name);
      most = Math.max(most, running.length);
      await new Promise<void>((resolve) => clock.setTimer(100, resolve));
      running.splice(running.indexOf(name), 1);
      return {};
    },
    { workers: 3 },
  );
  controller.start();
  for (let round = 0; round < 5; round += 1) {
    for (const name of ['a', 'b', 'c', 'd']) controller.enqueue(`ns/${name}`);
    await clock.advance(70);
  }
  await clock.advance(1_000);
  expect(most).toBe(3);
  expect(controller.backlog).toBe(0);
  await controller.stop(0);
});

it('reconciles every key about every ten minutes', async () => {
  const times: number[] = [];
  const { clock, controller } = setup(
    async () => {
      times.push(clock.monotonic());
      return {};
    },
    { keys: () => ['ns/a'] },
  );
  controller.start();
  await clock.advance(1_900_000);
  expect(times).toEqual([540_000, 1_080_000, 1_620_000]);
  await controller.stop(0);
  expect(clock.timers).toBe(0);
});

describe('stop', () => {
  it('waits for the reconcile that runs and starts no other', async () => {
    const ended: string[] = [];
    const { clock, controller } = setup(
      async ({ name }, { signal }) => {
        await new Promise<void>((resolve) => clock.setTimer(5_000, resolve));
        ended.push(`${name} ${signal.aborted}`);
        return { requeueAfterMs: 1 };
      },
      { workers: 1 },
    );
    controller.start();
    controller.enqueue('ns/a');
    controller.enqueue('ns/b');
    await settle();
    const stopped = controller.stop(25_000);
    await clock.advance(5_000);
    expect(await stopped).toBe(true);
    expect(ended).toEqual(['a false']);
    await clock.advance(60_000);
    expect(ended).toHaveLength(1);
  });

  it('aborts what runs when the time is up, and says when something runs on', async () => {
    let aborted = false;
    const { clock, controller } = setup(async (_, { signal }) => {
      signal.addEventListener('abort', () => {
        aborted = true;
      });
      return await new Promise(() => {});
    });
    controller.start();
    controller.enqueue('ns/a');
    await settle();
    const stopped = controller.stop(25_000);
    await clock.advance(24_999);
    expect(aborted).toBe(false);
    await clock.advance(1_001);
    expect(aborted).toBe(true);
    expect(await stopped).toBe(false);
  });
});
