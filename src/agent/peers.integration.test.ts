import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeAll, expect, it, vi } from 'vitest';
import { createAuthority, issueCertificate } from '../tls/certificates.ts';
import { createApi } from './api.ts';
import type { Certificates } from './certificates.ts';
import type { PeerAnswer, PromiseAnswer, PromiseRequest } from './ha/index.ts';
import { Peers } from './peers.ts';

const address = '127.0.0.1';
const host = 'shop-2.test';
const now = () => Math.round(performance.now());
let certificates: Certificates;
const open: { close(): void }[] = [];

beforeAll(async () => {
  const authority = await createAuthority({ commonName: 'test', validDays: 1, now: new Date() });
  const { cert, key } = await issueCertificate({
    authority,
    commonName: 'shop',
    dnsNames: [host],
    usages: ['server', 'client'],
    validDays: 1,
    now: new Date(),
  });
  certificates = { cert: Buffer.from(cert), key: Buffer.from(key), ca: Buffer.from(authority.cert) };
});
afterEach(() => {
  for (const { close } of open.splice(0)) close();
});

const answer = (state: PeerAnswer['state'], change: Partial<PeerAnswer> = {}): PeerAnswer => ({
  instance: 'shop-2',
  dataId: '2'.repeat(16),
  bootId: 'b',
  state,
  term: 3,
  openMs: 0,
  checkpointed: false,
  ancestors: [],
  ...change,
});

const question: PromiseRequest = {
  clusterId: 'c-1',
  leader: { instance: 'shop-1', dataId: '1'.repeat(16) },
  bootId: 'boot-of-shop-1',
  term: 3,
  ttlMs: 6_000,
  to: { instance: 'shop-2', dataId: '2'.repeat(16) },
};

/** A promise of what was asked for. */
function promised({ clusterId, bootId, term, ttlMs, to }: PromiseRequest): PromiseAnswer {
  return { by: to, clusterId, bootId, term, ttlMs, promised: true };
}

/** An agent's API on a free port, that answers with `state`. */
async function serve(
  state: () => PeerAnswer,
  heard: (said: PeerAnswer) => void = () => {},
  promise: (asked: PromiseRequest) => PromiseAnswer = promised,
) {
  const fine = { ok: true, why: '' };
  const source = {
    state: vi.fn(state),
    look: vi.fn(() => Promise.resolve(state())),
    live: () => fine,
    ready: () => fine,
    status: () => ({}),
    metrics: async () => '',
    heard,
    promise: vi.fn(promise),
  };
  const server: Server = createApi(source, certificates);
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  const close = () => {
    server.closeAllConnections();
    server.close();
  };
  open.push({ close });
  return { source, close, port: (server.address() as AddressInfo).port };
}

function ask(port: number, everyMs: number, look = false): Peers {
  const peers = new Peers({
    port,
    now,
    timeoutMs: 500,
    certificates: () => certificates,
    onAnswer: () => {},
  });
  peers.watch([{ instance: 'shop-2', address, host, everyMs, look }]);
  open.push({ close: () => peers.stop() });
  return peers;
}

function withoutAddresses(peers: Peers): Peers {
  peers.watch([]);
  return peers;
}

it('believes only that somebody has fenced; after anything else it asks at once', async () => {
  const { source, port } = await serve(() => answer('standby'));
  const peers = ask(port, 60_000);
  peers.start();
  await vi.waitFor(() => expect(peers.facts.get('shop-2')?.answer.state).toBe('standby'));
  expect(source.state).toHaveBeenCalledTimes(1);

  // What is said by way of somebody else's certificate is asked about at the address itself.
  peers.hear(answer('primary', { openMs: 4_000, receivedLsn: 99n }));
  expect(peers.facts.get('shop-2')?.answer.state).toBe('standby');
  await vi.waitFor(() => expect(source.state).toHaveBeenCalledTimes(2));

  peers.hear(answer('fenced'));
  expect(peers.facts.get('shop-2')?.answer.state).toBe('fenced');
  peers.hear(answer('fenced', { instance: 'stranger' }));
  expect(peers.facts.has('stranger')).toBe(false);
});

it('has a peer look at its Postgres before it answers', async () => {
  const { source, port } = await serve(() => answer('standby', { receivedLsn: 1n }));
  source.look.mockResolvedValue(answer('standby', { receivedLsn: 2n }));
  const peers = ask(port, 60_000, true);
  peers.start();
  await vi.waitFor(() => expect(peers.facts.get('shop-2')?.answer.receivedLsn).toBe(2n));
});

it('knows a peer that is turned away from one that is silent', async () => {
  const { close, port } = await serve(() => answer('standby'));
  const peers = ask(port, 20);
  peers.start();
  await vi.waitFor(() => expect(peers.facts.size).toBe(1));
  expect(peers.facts.get('shop-2')?.refused).toBeUndefined();
  close();
  await vi.waitFor(() => expect(peers.facts.get('shop-2')?.refused?.times).toBeGreaterThan(3));
  expect(peers.facts.get('shop-2')?.answer.state).toBe('standby');
});

it('tells its peers', async () => {
  const heard = vi.fn();
  const { port } = await serve(() => answer('standby'), heard);
  ask(port, 60_000).announce(answer('fenced', { instance: 'shop-1' }));
  await vi.waitFor(() => expect(heard).toHaveBeenCalledWith(expect.objectContaining({ instance: 'shop-1' })));
});

it('asks for promises, each as often as is due, and counts from before it asked', async () => {
  const { source, port } = await serve(() => answer('standby'));
  const peers = ask(port, 60_000);
  const before = now();
  peers.askPromises([question]);
  peers.askPromises([question]);
  await vi.waitFor(() => expect(peers.promises.get('shop-2')?.answer).toEqual(promised(question)));
  expect(source.promise).toHaveBeenCalledExactlyOnceWith(question);
  expect(peers.promises.get('shop-2')?.at).toBeLessThanOrEqual(before + 10);
  peers.askPromises([question]);
  expect(source.promise).toHaveBeenCalledTimes(1);
});

it.each<[string, (port: number) => Peers, string]>([
  ['is refused', (port) => ask(port, 60_000), 'it leads'],
  ['is not reached', () => ask(1, 60_000), 'ECONNREFUSED'],
  ['has no address', (port) => withoutAddresses(ask(port, 60_000)), 'no known address'],
])('takes no promise from who %s', async (_what, asking, because) => {
  const { port } = await serve(
    () => answer('standby'),
    undefined,
    (asked) => ({ ...promised(asked), promised: false, because: 'it leads' }),
  );
  const peers = asking(port);
  peers.askPromises([question]);
  await vi.waitFor(() =>
    expect(peers.promises.get('shop-2')?.answer).toMatchObject({
      promised: false,
      because: expect.stringContaining(because),
    }),
  );
});

it('takes no promise from an agent that does not know what it is', async () => {
  const server = createServer({ ...certificates }, (_request, response) => response.writeHead(404).end());
  await new Promise<void>((resolve) => server.listen(0, address, resolve));
  open.push({ close: () => server.close() });
  const peers = ask((server.address() as AddressInfo).port, 60_000);
  peers.askPromises([question]);
  await vi.waitFor(() =>
    expect(peers.promises.get('shop-2')?.answer).toMatchObject({
      promised: false,
      because: 'shop-2 answered 404',
    }),
  );
});

it('closes its connections to who is no longer asked', async () => {
  const { port } = await serve(() => answer('standby'));
  const peers = ask(port, 60_000);
  peers.start();
  await vi.waitFor(() => expect(peers.facts.size).toBe(1));
  expect(peers.connections).toBe(1);
  peers.watch([]);
  expect(peers.connections).toBe(0);
});
