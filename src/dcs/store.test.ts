import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import type { Etcd, WatchHandlers } from './etcd.ts';
import { clusterKeys } from './keys.ts';
import { ClusterStore } from './store.ts';

/** A fake of etcd that is empty, and ends each watch when it is told to. */
class FakeEtcd {
  reads = 0;
  readonly watches: WatchHandlers[] = [];
  onWatch: (handlers: WatchHandlers) => void = () => undefined;

  async readPrefix() {
    this.reads += 1;
    return { revision: '1', keys: [] };
  }

  watch(_prefix: string, _revision: string, handlers: WatchHandlers) {
    this.watches.push(handlers);
    this.onWatch(handlers);
    return () => undefined;
  }
}

function storeOf(fake: FakeEtcd, now = () => performance.now()) {
  return new ClusterStore({
    etcd: fake as unknown as Etcd,
    keys: clusterKeys('namespace', 'shop', 'an-id'),
    now,
    silenceMs: 60_000,
    onChange: () => undefined,
  });
}

it('does not begin a watch without pause that etcd ends at once', async () => {
  const fake = new FakeEtcd();
  fake.onWatch = (handlers) => setImmediate(() => handlers.onEnded('cancelled'));
  const store = storeOf(fake);
  store.start();
  await sleep(400);
  store.stop();
  // At 0, 100 and 300 ms.
  expect(fake.watches.length).toBeGreaterThan(1);
  expect(fake.watches.length).toBeLessThanOrEqual(3);
  expect(fake.reads).toBe(fake.watches.length);
});

it('begins a watch at once when one ends that has lived', async () => {
  const fake = new FakeEtcd();
  let now = 0;
  const store = storeOf(fake, () => now);
  store.start();
  await sleep(5);
  expect(fake.watches).toHaveLength(1);
  now += 10_000;
  fake.watches[0]?.onEnded('etcd closed the watch');
  await sleep(5);
  expect(fake.watches).toHaveLength(2);
  store.stop();
});
