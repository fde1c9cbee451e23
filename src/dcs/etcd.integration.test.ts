import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, expect, it, onTestFinished } from 'vitest';
import { Etcd, EtcdError } from './etcd.ts';
import { clusterKeys } from './keys.ts';
import { ClusterStore } from './store.ts';
import { type EtcdServer, startEtcd } from './testing/etcd-server.ts';

let server: EtcdServer;
let etcd: Etcd;
let n = 0;

beforeAll(async () => {
  server = await startEtcd();
  etcd = new Etcd({ endpoints: [server.endpoint], timeoutMs: 1_000 });
});
afterEach(() => {
  n += 1;
});
afterAll(async () => {
  etcd.close();
  await server.stop();
});

async function until(condition: () => boolean, what: string): Promise<void> {
  const deadline = performance.now() + 10_000;
  while (!condition()) {
    if (performance.now() > deadline) throw new Error(`timed out waiting until ${what}`);
    await sleep(10);
  }
}

it('runs a transaction only when every compared revision is still current', async () => {
  const key = `/t${n}/leader`;
  const created = await etcd.transact([{ key, modRevision: '0' }], [{ op: 'put', key, value: 'a' }]);
  expect(created.succeeded).toBe(true);
  const again = await etcd.transact(
    [{ key, modRevision: '0' }],
    [{ op: 'put', key, value: 'b' }],
    [{ op: 'get', key }],
  );
  expect(again.succeeded).toBe(false);
  expect(again.reads[0]).toEqual({ key, value: 'a', modRevision: created.revision });
  const swapped = await etcd.transact(
    [{ key, modRevision: created.revision }],
    [
      { op: 'put', key, value: 'b' },
      { op: 'get', key },
    ],
  );
  expect(swapped.succeeded).toBe(true);
  expect(swapped.reads[0]?.value).toBe('b');
});

it('reports a member that hangs as "unknown" within the deadline, and goes on when it answers again', async () => {
  server.signal('SIGSTOP');
  try {
    const started = performance.now();
    const error = await etcd
      .transact([], [{ op: 'put', key: `/t${n}/x`, value: '1' }], [], 500)
      .catch((e: unknown) => e);
    expect(error).toBeInstanceOf(EtcdError);
    expect((error as EtcdError).definite).toBe(false);
    expect(performance.now() - started).toBeLessThan(900);
  } finally {
    server.signal('SIGCONT');
  }
  await expect(etcd.readPrefix(`/t${n}/`)).resolves.toBeDefined();
});

it('moves on to the next endpoint when one refuses', async () => {
  const two = new Etcd({ endpoints: ['http://127.0.0.1:1', server.endpoint], timeoutMs: 500 });
  onTestFinished(() => two.close());
  await two.readPrefix('/').catch(() => undefined);
  await expect(two.readPrefix('/')).resolves.toBeDefined();
});

it('keeps a store in step through writes, deletions and a compaction of what it missed', async () => {
  const keys = clusterKeys('ns', `c${n}`, 'id');
  let changes = 0;
  const store = new ClusterStore({
    etcd,
    keys,
    now: () => performance.now(),
    silenceMs: 1_000,
    onChange: () => changes++,
  });
  onTestFinished(() => store.stop());
  store.start();
  await until(() => store.contactAt !== undefined, 'the first read');
  await etcd.transact(
    [],
    [{ op: 'put', key: keys.initialize, value: '{"systemIdentifier":"42","by":"c-1"}' }],
  );
  await until(() => store.view.initialize?.value.systemIdentifier === '42', 'the watch brings the value');

  server.signal('SIGSTOP');
  await until(() => performance.now() - (store.contactAt ?? 0) > 1_500, 'the store has noticed the silence');
  server.signal('SIGCONT');
  const { revision } = await etcd.transact([], [{ op: 'delete', key: keys.initialize }]);
  await etcd.administration.kv.compact({ revision });
  await until(() => store.view.initialize === undefined, 'the deletion is seen after the compaction');
  expect(changes).toBeGreaterThan(1);
});

it('forgets what a former etcd said when another one has taken its place', async () => {
  const former = await startEtcd();
  const client = new Etcd({ endpoints: [former.endpoint], timeoutMs: 1_000 });
  onTestFinished(() => client.close());
  const keys = clusterKeys('ns', 'replaced', 'id');
  const initialize = (systemIdentifier: string) =>
    client.transact(
      [],
      [{ op: 'put', key: keys.initialize, value: JSON.stringify({ systemIdentifier, by: 'c-1' }) }],
    );
  const problems: string[] = [];
  const store = new ClusterStore({
    etcd: client,
    keys,
    now: () => performance.now(),
    silenceMs: 1_000,
    onChange: () => {},
    onProblem: (problem) => problems.push(problem),
  });
  onTestFinished(() => store.stop());
  store.start();
  for (const each of ['1', '2', '3', '4']) await initialize(each);
  await until(() => store.view.initialize?.value.systemIdentifier === '4', 'the store knows it');

  await former.stop();
  const latter = await startEtcd(former.ports);
  onTestFinished(() => latter.stop());
  await until(() => store.view.initialize === undefined, 'it is forgotten');
  expect(problems.join('\n')).toMatch(/has lost its state/);
  await initialize('5');
  await until(() => store.view.initialize?.value.systemIdentifier === '5', 'the new one is watched');
});

it('lets a key on a lease vanish when the lease is not kept, and says when the lease is gone', async () => {
  const lease = await etcd.grantLease(2);
  await etcd.transact([], [{ op: 'put', key: `/t${n}/m`, value: '1', lease }]);
  expect(await etcd.keepLease(lease)).toBe(true);
  const deadline = performance.now() + 15_000;
  while ((await etcd.readPrefix(`/t${n}/`)).keys.length > 0) {
    expect(performance.now()).toBeLessThan(deadline);
    await sleep(200);
  }
  expect(await etcd.keepLease(lease)).toBe(false);
});
