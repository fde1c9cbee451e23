import { pino } from 'pino';
import { Registry } from 'prom-client';
import { expect, it } from 'vitest';
import { Manager, type Source, type Worker } from './manager.ts';
import { eventually } from './testing/eventually.ts';
import { settle } from './testing/fake-clock.ts';

const log = pino({ level: 'silent' });

function setup() {
  const steps: string[] = [];
  const synced = Promise.withResolvers<void>();
  let hasSynced = false;
  const source: Source = {
    name: 'pods',
    start: () => void steps.push('source started'),
    stop: async () => void steps.push('source stopped'),
    synced: synced.promise,
    get hasSynced() {
      return hasSynced;
    },
  };
  const ended = Promise.withResolvers<boolean>();
  const worker: Worker = {
    name: 'clusters',
    start: () => void steps.push('worker started'),
    stop: async (graceMs) => {
      steps.push(`worker told to stop within ${graceMs}`);
      const result = await ended.promise;
      steps.push('worker ended');
      return result;
    },
  };
  const manager = new Manager({
    log,
    registry: new Registry(),
    http: { host: '127.0.0.1', port: 0 },
    sources: [source],
    workers: [worker],
    close: async () => void steps.push('closed'),
  });
  const get = async (path: string) => (await fetch(`http://127.0.0.1:${manager.port}${path}`)).status;
  const sync = () => {
    hasSynced = true;
    synced.resolve();
  };
  return { steps, manager, get, sync, ended };
}

it('starts workers when the sources have synced, and closes after they have ended', async () => {
  const { steps, manager, get, sync, ended } = setup();
  const stop = new AbortController();
  const running = manager.run(stop.signal);
  await eventually('the source is started', () => steps.includes('source started'));
  expect(await get('/healthz')).toBe(200);
  expect(await get('/readyz')).toBe(503);
  expect(steps).not.toContain('worker started');
  sync();
  await settle();
  expect(steps).toContain('worker started');
  expect(await get('/readyz')).toBe(200);
  stop.abort();
  await settle();
  expect(await get('/readyz')).toBe(503);
  expect(steps).not.toContain('closed');
  ended.resolve(true);
  await running;
  expect(steps).toEqual([
    'source started',
    'worker started',
    'worker told to stop within 25000',
    'source stopped',
    'worker ended',
    'closed',
  ]);
  await expect(get('/healthz')).rejects.toThrow();
});

it('can be stopped before anything has synced', async () => {
  const { steps, manager, ended } = setup();
  ended.resolve(true);
  const stop = new AbortController();
  const running = manager.run(stop.signal);
  await eventually('the source is started', () => steps.includes('source started'));
  stop.abort();
  await running;
  expect(steps).not.toContain('worker started');
  expect(steps.at(-1)).toBe('closed');
});
