import { pino } from 'pino';
import { expect, it } from 'vitest';
import { ApiError, NoAnswerError, ProtocolError } from './errors.ts';
import { type Change, type ListWatch, Reflector } from './reflector.ts';
import { FakeClock, settle } from './testing/fake-clock.ts';
import type { KubeObject, ObjectList, WatchEvent } from './types.ts';

const log = pino({ level: 'silent' });
const object = (name: string, resourceVersion: string, uid = `uid-${name}`): KubeObject => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { namespace: 'ns', name, uid, resourceVersion },
});
const gone = new ApiError(410, 'Expired', 'too old resource version');
const broken = new NoAnswerError('connection reset', false);

/** A server whose answers the test decides, one by one. */
class ScriptedServer implements ListWatch<KubeObject> {
  lists = 0;
  readonly watches: string[] = [];
  listed: ObjectList<KubeObject> | Error = { items: [], resourceVersion: '1' };
  refuse: Error | undefined;
  #queue: (WatchEvent<KubeObject> | Error | 'end')[] = [];
  #wake: (() => void) | undefined;

  async list(): Promise<ObjectList<KubeObject>> {
    this.lists += 1;
    if (this.listed instanceof Error) throw this.listed;
    return this.listed;
  }

  async watch(resourceVersion: string, signal: AbortSignal): Promise<AsyncIterable<WatchEvent<KubeObject>>> {
    this.watches.push(resourceVersion);
    if (this.refuse !== undefined) throw this.refuse;
    return this.#events(signal);
  }

  async send(...events: (WatchEvent<KubeObject> | Error | 'end')[]): Promise<void> {
    this.#queue.push(...events);
    this.#wake?.();
    await settle();
  }

  async *#events(signal: AbortSignal): AsyncGenerator<WatchEvent<KubeObject>> {
    for (;;) {
      signal.throwIfAborted();
      const next = this.#queue.shift();
      if (next === 'end') return;
      if (next instanceof Error) throw next;
      if (next !== undefined) yield next;
      else {
        await new Promise<void>((resolve) => {
          this.#wake = resolve;
          signal.addEventListener('abort', () => resolve());
        });
      }
    }
  }
}

function setup() {
  const server = new ScriptedServer();
  const clock = new FakeClock();
  const reflector = new Reflector<KubeObject>({ name: 'pods', source: server, log, clock, random: () => 0 });
  const changes: string[] = [];
  reflector.subscribe((change: Change<KubeObject>) => {
    changes.push(`${change.type} ${change.key} ${change.object.metadata.resourceVersion}`);
  });
  return { server, clock, reflector, changes };
}

it('lists, then watches from there; the version moves with events and bookmarks', async () => {
  const { server, clock, reflector, changes } = setup();
  server.listed = { items: [object('a', '5')], resourceVersion: '7' };
  reflector.start();
  await reflector.synced;
  await settle();
  expect(reflector.hasSynced).toBe(true);
  await clock.advance(5_000);
  await server.send({ type: 'ADDED', object: object('b', '8') });
  await server.send({ type: 'MODIFIED', object: object('a', '9') });
  await server.send({ type: 'DELETED', object: object('b', '10') });
  await server.send({ type: 'BOOKMARK', resourceVersion: '40' });
  await server.send('end');
  expect(changes).toEqual(['set ns/a 5', 'set ns/b 8', 'set ns/a 9', 'delete ns/b 10']);
  expect(reflector.store.get('ns/a')?.metadata.resourceVersion).toBe('9');
  expect(reflector.store.size).toBe(1);
  expect(server.watches).toEqual(['7', '40']);
  expect(server.lists).toBe(1);
  await reflector.stop();
});

it('after 410 lists again, reports what vanished meanwhile and nothing that is as it was', async () => {
  const { server, clock, reflector, changes } = setup();
  server.listed = { items: [object('a', '1'), object('b', '2'), object('c', '3')], resourceVersion: '3' };
  reflector.start();
  await settle();
  changes.length = 0;
  await clock.advance(5_000);
  server.listed = { items: [object('a', '1'), object('c', '30', 'reborn')], resourceVersion: '31' };
  await server.send(gone);
  expect(changes).toEqual(['set ns/c 30', 'delete ns/b 2']);
  expect(server.watches).toEqual(['3', '31']);
  await reflector.stop();
});

it('goes on from the same version after a broken connection, later and later, without end', async () => {
  const { server, clock, reflector } = setup();
  reflector.start();
  await settle();
  server.refuse = broken;
  await server.send(broken);
  const times: number[] = [];
  for (let n = server.watches.length; times.length < 8; ) {
    await clock.advance(100);
    if (server.watches.length > n) times.push(clock.monotonic());
    n = server.watches.length;
  }
  const gaps = times.map((time, i) => time - (times[i - 1] ?? 0));
  expect(gaps).toEqual([800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]);
  expect(server.lists).toBe(1);
  server.refuse = undefined;
  await clock.advance(10_000);
  await server.send({ type: 'ADDED', object: object('a', '2') });
  expect(reflector.store.size).toBe(1);
  expect(new Set(server.watches)).toEqual(new Set(['1']));
  await reflector.stop();
});

it('does not flood a server that ends every watch at once', async () => {
  const { server, clock, reflector } = setup();
  reflector.start();
  await settle();
  for (let second = 0; second < 60; second += 1) {
    await server.send('end');
    await clock.advance(1_000);
  }
  expect(server.watches.length).toBeLessThan(15);
  await reflector.stop();
});

it('starts the series of delays over after two healthy minutes', async () => {
  const { server, clock, reflector } = setup();
  server.listed = new ApiError(500, '', 'down');
  reflector.start();
  await clock.advance(60_000);
  server.listed = { items: [], resourceVersion: '1' };
  await clock.advance(10_000);
  expect(reflector.hasSynced).toBe(true);
  await clock.advance(120_000);
  await server.send(broken);
  expect(clock.nextTimerMs).toBe(800);
  await reflector.stop();
});

it('lists again when it cannot tell what it missed', async () => {
  const { server, clock, reflector } = setup();
  reflector.start();
  await clock.advance(5_000);
  await server.send(new ProtocolError('not JSON'));
  await clock.advance(1_000);
  expect(server.lists).toBe(2);
  await reflector.stop();
});

it('doubts its version when the server refuses it three times', async () => {
  const { server, clock, reflector } = setup();
  reflector.start();
  await settle();
  server.refuse = new ApiError(504, 'Timeout', 'Too large resource version');
  await server.send('end');
  await clock.advance(30_000);
  expect(server.lists).toBeGreaterThan(1);
  await reflector.stop();
});

it('waits as long as the server asks', async () => {
  const { server, clock, reflector } = setup();
  server.listed = new ApiError(429, 'TooManyRequests', 'slow down', 5_000);
  reflector.start();
  await settle();
  expect(clock.nextTimerMs).toBe(5_000);
  await reflector.stop();
});

it('one failing handler costs neither the others nor the watch anything', async () => {
  const { server, reflector, changes } = setup();
  reflector.subscribe(() => {
    throw new Error('a bug');
  });
  reflector.start();
  await settle();
  await server.send({ type: 'ADDED', object: object('a', '2') }, { type: 'ADDED', object: object('b', '3') });
  expect(changes).toHaveLength(2);
  expect(server.watches).toEqual(['1']);
  await reflector.stop();
});

it('tells a late subscriber what is there already', async () => {
  const { server, reflector } = setup();
  server.listed = { items: [object('a', '1')], resourceVersion: '1' };
  reflector.start();
  await reflector.synced;
  const keys: string[] = [];
  const end = reflector.subscribe((change) => keys.push(change.key));
  expect(keys).toEqual(['ns/a']);
  end();
  await server.send({ type: 'ADDED', object: object('b', '2') });
  expect(keys).toEqual(['ns/a']);
  await reflector.stop();
});

it('opens no watch when it was stopped during the list, and reports nothing', async () => {
  const { server, reflector, changes } = setup();
  server.listed = { items: [object('a', '1')], resourceVersion: '1' };
  reflector.start();
  await reflector.stop();
  await settle();
  expect(server.watches).toEqual([]);
  expect(changes).toEqual([]);
});

it('knows how long it has heard nothing', async () => {
  const { server, clock, reflector } = setup();
  reflector.start();
  await settle();
  await clock.advance(30_000);
  expect(reflector.silentMs).toBe(30_000);
  await server.send({ type: 'BOOKMARK', resourceVersion: '2' });
  expect(reflector.silentMs).toBe(0);
  server.refuse = broken;
  await server.send(broken);
  await clock.advance(60_000);
  expect(reflector.silentMs).toBe(60_000);
  expect(reflector.stuckMs).toBeLessThan(15_000);
  await reflector.stop();
});
