import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { type ClusterView, clusterKeys, emptyView, type MemberValue } from '../dcs/index.ts';
import { createLogger } from '../log/logger.ts';
import { Agent } from './agent.ts';
import type { Observation, PostgresFacts, StorageFacts, Volume } from './ha/index.ts';

/** A fake: only what is asked of it here. */
const fake = <T>(part: NoInfer<Partial<T>>): T => part as T;

const ready: Volume = {
  state: 'ready',
  dataId: '1111111111111111',
  systemIdentifier: '7',
  bootstrap: false,
  promotedTerm: 0,
  timeline: 1,
};
const streaming: Observation = {
  at: 0,
  inRecovery: true,
  timeline: 1,
  receiver: { status: 'streaming', senderHost: 'shop-2' },
  walsenders: [],
  commitWaitMs: 0,
  pendingRestart: [],
  overridden: [],
};

let now = 0;
let postgres: PostgresFacts;
let volume: Volume;
let storage: StorageFacts[];
let view: ClusterView;
let published: MemberValue | undefined;
let agent: Agent;

beforeEach(() => {
  vi.useFakeTimers();
  now = 1_000_000;
  postgres = { process: 'none', since: now, walLost: false };
  volume = ready;
  storage = [];
  view = emptyView;
  published = undefined;
  agent = new Agent({
    me: {
      clusterId: 'id',
      instance: 'shop-1',
      bootId: 'boot',
      address: '10.0.0.1',
      node: 'node-1',
      podUid: 'pod',
      agentVersion: '1',
      postgresVersion: '17',
    },
    now: () => now,
    wallClock: () => new Date(0),
    // etcd and Kubernetes are away: nothing of them ever answers.
    etcd: fake({ transact: () => new Promise(() => undefined) }),
    keys: clusterKeys('ns', 'shop', 'id'),
    store: fake({
      get view() {
        return view;
      },
      readAt: undefined,
      refresh: () => new Promise(() => undefined),
    }),
    database: fake({
      get facts() {
        return postgres;
      },
      get volume() {
        return volume;
      },
      ancestors: [],
      checkpointed: false,
      lowered: [],
      operate: () => new Promise(() => undefined),
      observe: () => new Promise(() => undefined),
      tendSlots: async () => undefined,
      forgetOldData: async () => undefined,
    }),
    storage: fake({
      get facts() {
        return storage;
      },
    }),
    peers: fake({
      facts: new Map(),
      promises: new Map(),
      watch: () => undefined,
      askPromises: () => undefined,
      announce: () => undefined,
    }),
    guard: { postmaster: () => undefined, deadline: () => undefined },
    membership: fake({
      publish: async (value: MemberValue) => {
        published = value;
      },
    }),
    routing: fake({ want: () => undefined }),
    hostOf: (instance) => instance,
    log: createLogger({ name: 'test', level: 'silent' }),
    onExit: () => undefined,
  });
});
afterEach(() => {
  vi.useRealTimers();
});

const stalled = (): StorageFacts[] => [{ volume: 'data', goodAt: now - 60_000, lookedAt: now }];

/** The loop turns for this long. */
function turn(ms: number): void {
  for (const end = now + ms; now < end; now += 100) agent.tick();
}

describe('liveness', () => {
  it.each<[string, () => void]>([
    ['etcd and Kubernetes are away', () => undefined],
    ['Postgres recovers', () => Object.assign(postgres, { process: 'starting', startedAs: 'primary' })],
    ['its disk is stalled', () => (storage = stalled())],
    ['its volume cannot be read', () => (volume = { state: 'unknown' })],
  ])('is no matter of whether %s, however long', (_what, happen) => {
    happen();
    turn(60_000);
    expect(agent.live()).toEqual({ ok: true, why: 'ok' });
  });

  it('is a matter of whether the loop turns', () => {
    turn(1_000);
    now += 9_800;
    expect(agent.live().ok).toBe(true);
    now += 100;
    expect(agent.live().ok).toBe(false);
  });
});

describe('readiness', () => {
  it('is a standby that streams and whose disk takes in what it receives', () => {
    expect(agent.ready().ok).toBe(false);
    postgres = {
      ...postgres,
      process: 'running',
      startedAs: 'standby',
      observation: { ...streaming, at: now },
    };
    expect(agent.ready()).toEqual({ ok: true, why: 'standby: streaming' });
    storage = stalled();
    expect(agent.ready()).toEqual({ ok: false, why: 'nothing written to the data volume becomes durable' });
  });
});

describe('the member key', () => {
  it('says that the disk is stalled', () => {
    storage = stalled();
    turn(300);
    expect(published?.problem?.reason).toBe('DiskStalled');
  });

  it('keeps the data id that was announced last until the volume has been read', () => {
    turn(300);
    expect(published?.dataId).toBe('1111111111111111');
    const member = published;
    if (member === undefined) throw new Error('nothing was published');
    volume = { state: 'unknown' };
    turn(300);
    expect(published?.dataId).toBe('0000000000000000');
    view = { ...emptyView, members: new Map([['shop-1', { value: member, revision: '5' }]]) };
    turn(300);
    expect(published?.dataId).toBe('1111111111111111');
    volume = { state: 'empty' };
    turn(300);
    expect(published?.dataId).toBe('0000000000000000');
  });
});
