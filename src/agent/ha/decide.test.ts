import { describe, expect, it } from 'vitest';
import {
  type ClusterView,
  type ConfigValue,
  defaultTiming,
  emptyView,
  type LeaderValue,
  leaderGraceMs,
  type MemberRef,
  type MemberValue,
  type Stamped,
  type SyncValue,
} from '../../dcs/index.ts';
import { placeholderName, replicationName } from '../../postgres/replication-names.ts';
import { replayPatienceMs } from './candidate.ts';
import { decide, initialState } from './decide.ts';
import type {
  Command,
  Decision,
  Facts,
  HaState,
  LeaderWrite,
  Observation,
  Operation,
  OperationOutcome,
  PeerAnswer,
  PeerFacts,
  PostgresFacts,
  Reign,
  StorageFacts,
  TransactionOutcome,
  Volume,
  Walsender,
} from './facts.ts';
import { fenceDeadline } from './fence.ts';
import { noDataId } from './names.ts';
import { answerProbe } from './probe.ts';
import { divergence } from './rejoin.ts';
import { wantedSettings } from './settings.ts';
import { storageProblem } from './storage.ts';

const now = 1_000_000;
const ref = (i: number): MemberRef => ({ instance: `shop-${i}`, dataId: String(i).repeat(16) });
/** A decides in every test. */
const [A, B, C] = [ref(1), ref(2), ref(3)] as const;
const name = (m: MemberRef) => replicationName(m.dataId);
const boot = (m: MemberRef) => `boot-of-${m.instance}`;
const grace = leaderGraceMs(defaultTiming);
const stamp = <T>(value: T, revision: string): Stamped<T> => ({ value, revision });

function config(change: Partial<ConfigValue> = {}): ConfigValue {
  return {
    generation: 1,
    synchronous: 1,
    durability: 'required',
    fencing: 'fast',
    timing: defaultTiming,
    members: [A, B, C].map((m) => m.instance),
    parameters: {},
    hba: [],
    logLevel: 'info',
    ...change,
  };
}

function leaderOf(m: MemberRef, change: Partial<LeaderValue> = {}): LeaderValue {
  return {
    ...m,
    bootId: boot(m),
    term: 3,
    timeline: 3,
    phase: 'leading',
    beat: 7,
    address: `address of ${m.instance}`,
    members: [A, B, C],
    ...change,
  };
}

function memberOf(m: MemberRef): MemberValue {
  return {
    ...m,
    bootId: boot(m),
    address: `address of ${m.instance}`,
    node: `node of ${m.instance}`,
    podUid: 'x',
    role: 'none',
    state: 'waiting',
    agentVersion: '1',
  };
}

interface Stored {
  readonly leader?: LeaderValue | undefined;
  readonly sync?: Partial<SyncValue>;
  readonly config?: ConfigValue | undefined;
  readonly view?: Partial<ClusterView>;
}

function stored(s: Stored): ClusterView {
  const settings = 'config' in s ? s.config : config();
  return {
    ...emptyView,
    revision: '50',
    initialize: stamp({ systemIdentifier: '77', by: 'shop-1' }, '2'),
    ...(settings === undefined ? {} : { config: stamp(settings, '1') }),
    ...(s.leader === undefined ? {} : { leader: stamp(s.leader, '40') }),
    sync: stamp({ term: 3, mode: 'sync', names: [], ...s.sync }, '30'),
    members: new Map([A, B, C].map((m) => [m.instance, stamp(memberOf(m), '5')])),
    ...s.view,
  };
}

function volume(change: Partial<Extract<Volume, { state: 'ready' }>> = {}): Volume {
  return {
    state: 'ready',
    dataId: A.dataId,
    systemIdentifier: '77',
    bootstrap: false,
    promotedTerm: 0,
    timeline: 3,
    ...change,
  };
}

function standby(change: Partial<Observation> = {}): PostgresFacts {
  return {
    process: 'running',
    startedAs: 'standby',
    since: now - 60_000,
    walLost: false,
    observation: {
      at: now - 50,
      inRecovery: true,
      timeline: 3,
      receivedLsn: 1_000n,
      replayedLsn: 1_000n,
      walsenders: [],
      commitWaitMs: 0,
      pendingRestart: [],
      overridden: [],
      ...change,
    },
  };
}

function primary(walsenders: readonly Walsender[] = [], change: Partial<Observation> = {}): PostgresFacts {
  return {
    ...standby({ inRecovery: false, flushLsn: 2_000n, walsenders, ...change }),
    startedAs: 'primary',
  };
}

const down: PostgresFacts = { process: 'none', since: now - 100, walLost: false };

function walsender(m: MemberRef, change: Partial<Walsender> = {}): Walsender {
  return { applicationName: name(m), state: 'streaming', syncPriority: 1, flushLsn: 2_000n, ...change };
}

function answer(m: MemberRef, change: Partial<PeerAnswer> = {}, at = now - 50): [string, PeerFacts] {
  const value: PeerAnswer = {
    ...m,
    bootId: boot(m),
    state: 'standby',
    term: 0,
    openMs: 0,
    timeline: 3,
    receivedLsn: 1_000n,
    replayedLsn: 1_000n,
    checkpointed: true,
    ancestors: [],
    ...change,
  };
  return [m.instance, { at, answer: value }];
}

/** B leads now and proves it. */
const proof = (change: Partial<PeerAnswer> = {}) =>
  answer(B, { state: 'primary', term: 3, openMs: 3_000, ...change });

interface World extends Stored {
  readonly now?: number;
  readonly volume?: Volume;
  readonly postgres?: PostgresFacts;
  readonly peers?: readonly [string, PeerFacts][];
  readonly applied?: readonly string[];
  readonly storage?: readonly StorageFacts[];
  readonly stopRequested?: boolean;
  readonly readAt?: number | undefined;
}

function facts(w: World): Facts {
  return {
    now: w.now ?? now,
    me: {
      clusterId: 'c',
      instance: A.instance,
      bootId: boot(A),
      address: 'address of shop-1',
      node: 'node of shop-1',
    },
    volume: w.volume ?? volume(),
    storage: w.storage ?? [],
    dcs: { view: stored(w), readAt: 'readAt' in w ? w.readAt : now - 10 },
    postgres: w.postgres ?? standby(),
    peers: new Map(w.peers ?? []),
    promises: new Map(),
    ...(w.applied === undefined
      ? {}
      : { applied: { synchronousNames: w.applied, clientsAllowed: true, generation: 1 } }),
    stopRequested: w.stopRequested ?? false,
  };
}

/** An agent that has run for a while. */
function follower(change: Partial<HaState> = {}): HaState {
  return { ...initialState(now - 60_000), leaderSeen: { revision: '40', at: now - 500 }, ...change };
}

function leader(reign: Partial<Reign> = {}, change: Partial<HaState> = {}): HaState {
  return {
    ...follower(),
    syncNames: [name(B)],
    reign: {
      term: 3,
      timeline: 3,
      revision: '40',
      barrier: false,
      deadline: now + 4_000,
      goodAt: now - 300,
      timing: defaultTiming,
      written: { members: [A, B, C], names: [B], async: false, ttlMs: defaultTiming.ttlMs },
      beat: 7,
      sync: { term: 3, mode: 'sync', names: [B] },
      stage: 'leading',
      since: now - 2_000,
      open: true,
      why: 'a test',
      ...reign,
    },
    ...change,
  };
}

/** A leads with B in the set, and all is well. */
const leading: World = {
  leader: leaderOf(A),
  sync: { names: [B] },
  volume: volume({ promotedTerm: 3 }),
  postgres: primary([walsender(B)]),
  peers: [answer(B), answer(C)],
  applied: [name(B)],
};

const tick = (state: HaState, world: World) => decide(state, { kind: 'tick' }, facts(world));

function write(d: Decision): LeaderWrite | undefined {
  const found = d.commands.find((c) => c.kind === 'transact');
  return found?.kind === 'transact' ? found.write : undefined;
}

function operation(d: Decision): Operation | undefined {
  const found = d.commands.find((c) => c.kind === 'operate');
  return found?.kind === 'operate' ? found.operation : undefined;
}

const kinds = (d: Decision): Command['kind'][] => d.commands.map((c) => c.kind);

/** The answer to the write that is outstanding. */
function answered(state: HaState, outcome: TransactionOutcome, world: World): Decision {
  return decide(state, { kind: 'transaction', id: state.transaction?.id ?? -1, outcome }, facts(world));
}

/** The end of the operation under way. */
function ended(state: HaState, outcome: OperationOutcome, world: World): Decision {
  return decide(state, { kind: 'operation', id: state.operation?.id ?? -1, outcome }, facts(world));
}

const doing = (o: Operation): Pick<HaState, 'operation'> => ({
  operation: { id: 99, operation: o, since: now - 100 },
});

const sent = (w: Partial<LeaderWrite> = {}): Pick<HaState, 'transaction'> => ({
  transaction: {
    id: 98,
    sentAt: now - 200,
    write: { kind: 'heartbeat', leader: leaderOf(A, { beat: 8 }), expectLeader: '40', ...w },
  },
});

const settings = { synchronousNames: [name(B)], clientsAllowed: true };
/** A candidate that has begun to stop its receiver. */
const cuttingOff: Partial<HaState> = {
  takeover: {
    phase: 'stop-receiver',
    since: now,
    leaderRevision: '40',
    syncRevision: '30',
    why: '',
    level: true,
  },
  ...doing({ do: 'stop-receiver', settings }),
};
const done = (sync: Partial<SyncValue> = { names: [B] }): TransactionOutcome => ({
  kind: 'done',
  revision: '60',
  sync: stamp({ term: 3, mode: 'sync', names: [], ...sync }, '60'),
});
const unknown: TransactionOutcome = { kind: 'unknown', message: 'deadline' };
const failure = (reason = 'Failed', more: { needsClone?: boolean } = {}): OperationOutcome => ({
  ok: false,
  reason,
  message: 'it failed',
  ...more,
});

describe('bootstrap', () => {
  const fresh: World = {
    postgres: down,
    volume: volume({ bootstrap: true, timeline: 1 }),
    view: { ...emptyView, config: stamp(config(), '1') },
  };

  function nothingStored(world: World): Facts {
    return {
      ...facts(world),
      dcs: { view: { ...emptyView, ...world.view }, readAt: world.readAt ?? now - 10 },
    };
  }

  it('is begun by whoever holds the data made for it, with nobody in the set', () => {
    const d = decide(initialState(now), { kind: 'tick' }, nothingStored(fresh));
    expect(write(d)).toMatchObject({
      kind: 'bootstrap',
      expectLeader: '0',
      expectSync: '0',
      leader: { term: 1, timeline: 1, members: [A] },
      sync: { term: 1, mode: 'sync', names: [] },
      initialize: { systemIdentifier: '77' },
    });
  });

  it('starts Postgres as primary only when etcd has said yes, without clients', () => {
    const asked = decide(initialState(now), { kind: 'tick' }, nothingStored(fresh));
    const d = decide(
      asked.state,
      { kind: 'transaction', id: asked.state.transaction?.id ?? 0, outcome: done({ names: [] }) },
      nothingStored(fresh),
    );
    expect(operation(d)).toEqual({
      do: 'start',
      as: 'primary',
      settings: { synchronousNames: [placeholderName], clientsAllowed: false },
      term: 1,
      timeline: 1,
    });
  });

  it('happens once: data that were started before found nothing by themselves when the state in etcd is gone', () => {
    const started = { ...fresh, volume: volume({ bootstrap: true, timeline: 1, promotedTerm: 1 }) };
    const d = decide(initialState(now), { kind: 'tick' }, nothingStored(started));
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('WaitingForLeader');
  });

  it('goes on with the instance that a person chose, in a new term, on a timeline above all others', () => {
    const lost = (instance: string): World => ({
      ...fresh,
      volume: volume({ bootstrap: false, timeline: 5, promotedTerm: 4 }),
      view: { ...emptyView, config: stamp({ ...config(), adopt: { instance, timeline: 7 } }, '1') },
    });
    const asked = decide(initialState(now), { kind: 'tick' }, nothingStored(lost(A.instance)));
    expect(write(asked)).toMatchObject({ kind: 'bootstrap', leader: { term: 5, timeline: 8 } });
    const d = decide(
      asked.state,
      { kind: 'transaction', id: asked.state.transaction?.id ?? 0, outcome: done({ names: [] }) },
      nothingStored(lost(A.instance)),
    );
    expect(d.state.reign).toMatchObject({ stage: 'promote', lossAccepted: true });
    expect(decide(initialState(now), { kind: 'tick' }, nothingStored(lost(B.instance))).commands).toEqual([]);
    // A later leader than this volume knows of has written the Service's slice.
    const adopt = { instance: A.instance, timeline: 7, term: 9 };
    const later = { ...lost(A.instance), view: { ...emptyView, config: stamp({ ...config(), adopt }, '1') } };
    const above = decide(initialState(now), { kind: 'tick' }, nothingStored(later));
    expect(write(above)?.leader.term).toBe(10);
  });

  it('is left to the one with that data', () => {
    const d = decide(initialState(now), { kind: 'tick' }, nothingStored({ ...fresh, volume: volume() }));
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('WaitingForLeader');
  });

  it('is for a person when etcd knows the cluster but no leader', () => {
    const d = tick(follower(), { ...fresh, leader: undefined, view: {} });
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('StateIncomplete');
  });

  it('waits for the configuration', () => {
    const d = tick(follower(), { leader: leaderOf(B), config: undefined, postgres: down });
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('WaitingForConfiguration');
  });
});

describe('the restart of a leader', () => {
  const restarted: World = {
    leader: leaderOf(A, { bootId: 'an older boot' }),
    sync: { names: [B] },
    postgres: down,
    volume: volume({ promotedTerm: 3 }),
    peers: [answer(B, { state: 'unknown' })],
  };
  const won = (world: World) => {
    const asked = tick(initialState(now - 50), world);
    return answered(asked.state, done(), world);
  };

  it('begins with a write of its own, which keeps the set, and starts nothing before (R2, R10)', () => {
    const d = tick(initialState(now - 50), restarted);
    expect(kinds(d)).toEqual(['transact']);
    expect(write(d)).toMatchObject({
      kind: 'resume',
      expectLeader: '40',
      expectSync: '30',
      leader: { term: 3, timeline: 3, bootId: boot(A) },
      sync: { names: [B] },
    });
  });

  it('waits for a first read of etcd', () => {
    expect(tick(initialState(now), { ...restarted, readAt: undefined }).commands).toEqual([]);
  });

  it('starts as primary on data of its own term, requiring every name of the set (R3)', () => {
    expect(operation(won(restarted))).toMatchObject({
      do: 'start',
      as: 'primary',
      settings: { synchronousNames: [name(B)], clientsAllowed: false },
    });
  });

  it('starts as standby on other data, and promotes under a new term if this one is used up (R5)', () => {
    const unpromoted = { ...restarted, volume: volume({ promotedTerm: 3, timeline: 2 }) };
    const d = won(unpromoted);
    expect(operation(d)).toMatchObject({ do: 'start', as: 'standby' });
    const up = ended(d.state, { ok: true }, { ...unpromoted, postgres: standby({ timeline: 2 }) });
    expect(write(up)).toMatchObject({
      kind: 'new-term',
      expectLeader: '60',
      leader: { term: 4, timeline: 4 },
      sync: { term: 4, names: [B] },
    });
  });

  it('goes on with a Postgres whose start was not seen to end', () => {
    const restart = leader(
      { stage: 'start' },
      doing({ do: 'start', as: 'primary', settings, term: 3, timeline: 3 }),
    );
    const d = ended(restart, failure('NotSeen'), leading);
    expect(tick(d.state, { ...leading, now: now + 1_000 }).state.reign?.stage).toBe('history');
  });

  it('is not simply started where its promotion came from another timeline than was meant (R6)', () => {
    const strayed = { ...restarted, volume: volume({ promotedTerm: 3, wrongParent: true }) };
    expect(operation(won(strayed))).toMatchObject({ do: 'start', as: 'standby' });
  });

  it('promotes in its own term when it never did', () => {
    const world = { ...restarted, volume: volume({ promotedTerm: 2, timeline: 2 }) };
    const d = ended(won(world).state, { ok: true }, { ...world, postgres: standby({ timeline: 2 }) });
    expect(operation(d)).toMatchObject({ do: 'promote', term: 3, timeline: 3 });
  });

  it('is nobody else’s: other data under the same name do not resume', () => {
    const d = tick(follower(), { ...restarted, volume: volume({ dataId: 'f'.repeat(16) }) });
    expect(operation(d)).toMatchObject({ do: 'start', as: 'standby' });
  });

  it('after a hand-over leaves the others the way for a while', () => {
    const vacated = { ...restarted, leader: leaderOf(A, { phase: 'vacated', successor: 'shop-2' }) };
    const seen = (at: number) => follower({ leaderSeen: { revision: '40', at } });
    expect(tick(seen(now - 2_900), vacated).commands).toEqual([]);
    expect(write(tick(seen(now - 3_000), vacated))?.kind).toBe('resume');
    // In async mode anybody on the list may stand.
    const async_ = { ...vacated, sync: { mode: 'async' as const, names: [] } };
    expect(tick(seen(now - 2_900), async_).commands).toEqual([]);
    const alone = { ...async_, leader: leaderOf(A, { phase: 'vacated', members: [A] }) };
    expect(write(tick(seen(now), alone))?.kind).toBe('resume');
  });

  it('of which this boot knows nothing leaves a living member of the set the way, and waits to hear of one', () => {
    const seen = (at: number) => ({ ...initialState(at), leaderSeen: { revision: '40', at } });
    const living = { ...restarted, peers: [answer(B)] };
    expect(tick(seen(now - 2_900), living).commands).toEqual([]);
    expect(write(tick(seen(now - 3_000), living))?.kind).toBe('resume');
    expect(tick(seen(now - 500), { ...restarted, peers: [] }).commands).toEqual([]);
    expect(write(tick(seen(now - 600), { ...restarted, peers: [] }))?.kind).toBe('resume');
    // Whoever has no key in etcd is not there to answer.
    expect(write(tick(seen(now), { ...restarted, peers: [], view: { members: new Map() } }))?.kind).toBe(
      'resume',
    );
    // A Postgres that runs has nobody to wait for.
    expect(write(tick(seen(now), { ...living, postgres: standby() }))?.kind).toBe('resume');
  });

  it('after it had to be fenced leaves a living member of the set the way for a while', () => {
    const fenced = follower({
      fencedTerm: 3,
      fencedAt: now - 1_000,
      leaderSeen: { revision: '40', at: now - 9_000 },
    });
    expect(tick(fenced, { ...restarted, peers: [answer(B)] }).commands).toEqual([]);
    expect(write(tick(fenced, restarted))?.kind).toBe('resume');
    expect(
      write(tick({ ...fenced, fencedAt: now - 3_000 }, { ...restarted, peers: [answer(B)] }))?.kind,
    ).toBe('resume');
  });
});

describe('heartbeats', () => {
  it('compare the revision that this boot wrote last, and carry the member list', () => {
    const d = tick(leader({ goodAt: now - 1_000 }), leading);
    expect(write(d)).toMatchObject({
      kind: 'heartbeat',
      expectLeader: '40',
      leader: { beat: 8, term: 3, timeline: 3, phase: 'leading', members: [A, B, C], lsn: '0/7D0' },
    });
    expect(write(d)?.sync).toBeUndefined();
  });

  it('say how far the leader is, or was last known to be', () => {
    const due = leader({ goodAt: now - 1_000 });
    expect(write(tick(due, leading))?.leader.lsn).toBe('0/7D0');
    const known = { ...leading, postgres: down, leader: leaderOf(A, { lsn: '0/700' }) };
    expect(write(tick(due, known))?.leader.lsn).toBe('0/700');
    const earlier = { ...known, leader: leaderOf(A, { lsn: '0/700', term: 2 }) };
    expect(write(tick(due, earlier))?.leader.lsn).toBeUndefined();
  });

  it('keep whom they listed and who is away for a moment, until newer data are announced or it is configured no more', () => {
    const before = leaderOf(A, { members: [A, { ...B, dataId: '8'.repeat(16) }, C, ref(4)] });
    const here = new Map([A, B].map((m) => [m.instance, stamp(memberOf(m), '5')]));
    const d = tick(leader({ goodAt: now - 1_000 }), { ...leading, leader: before, view: { members: here } });
    expect(write(d)?.leader.members).toEqual([A, B, C]);
  });

  it('are not due before the interval, and never two at a time', () => {
    expect(tick(leader({ goodAt: now - 999 }), leading).commands).toEqual([]);
    expect(tick(leader({ goodAt: now - 2_000 }, sent()), leading).commands).toEqual([]);
  });

  it('move the deadline from their sending, not from their answer', () => {
    const d = answered(leader({}, sent()), done(), leading);
    expect(d.state.reign).toMatchObject({
      revision: '60',
      deadline: now - 200 + grace,
      goodAt: now - 200,
      beat: 8,
    });
    expect(fenceDeadline(d.state, facts(leading))).toBe(now - 200 + grace);
  });

  it('say the ttl, and the deadline goes by what was said', () => {
    const ttl = (ttlMs: number) => ({ config: config({ timing: { ...defaultTiming, ttlMs } }) });
    const longer = tick(leader({ goodAt: now - 1_000 }), { ...leading, ...ttl(30_000) });
    expect(write(longer)?.leader.ttlMs).toBe(30_000);
    // Configured after the sending: observers have not been told.
    const before = tick(leader({ goodAt: now - 1_000 }), leading);
    expect(write(before)?.leader.ttlMs).toBe(6_000);
    const d = answered(before.state, done(), { ...leading, ...ttl(30_000) });
    expect(d.state.reign?.deadline).toBe(now + grace);
  });

  it('that say a shorter ttl move the deadline back at once: they may land without an answer', () => {
    const long = leader({
      goodAt: now - 1_000,
      deadline: now + 20_000,
      timing: { ...defaultTiming, ttlMs: 30_000 },
    });
    const d = tick(long, leading);
    expect(write(d)?.leader.ttlMs).toBe(6_000);
    expect(d.state.reign?.deadline).toBe(now + grace);
    expect(answered(d.state, unknown, leading).state.reign?.deadline).toBe(now + grace);
  });

  it('go on without a readable configuration', () => {
    const d = tick(leader({ goodAt: now - 1_000 }), { ...leading, config: undefined });
    expect(write(d)?.kind).toBe('heartbeat');
    expect(answered(d.state, done(), { ...leading, config: undefined }).state.reign?.deadline).toBe(
      now + grace,
    );
  });

  it('that fail at once are not repeated at once', () => {
    const d = answered(
      leader({ goodAt: now - 3_000 }, { ...sent(), lastWriteAt: now - 20 }),
      unknown,
      leading,
    );
    expect(d.commands).toEqual([]);
    expect(write(tick(d.state, { ...leading, now: now + 80 }))?.kind).toBe('heartbeat');
  });

  it('fall silent when Postgres cannot be started, unless it is starting', () => {
    const state = leader(
      { stage: 'start', goodAt: now - 2_000 },
      { attempts: { start: 3, rewind: 0, clone: 0, promote: 0 } },
    );
    const world = { ...leading, postgres: down };
    expect(write(tick({ ...state, retryAt: now + 1_000 }, world))).toBeUndefined();
    expect(
      write(
        tick({ ...state, ...doing({ do: 'start', as: 'primary', settings, term: 3, timeline: 3 }) }, world),
      )?.kind,
    ).toBe('heartbeat');
  });
});

describe('after a write without a definite answer (R2)', () => {
  it('nothing is decided before a new write succeeded', () => {
    const state = leader({}, { ...sent({ kind: 'sync', sync: { term: 3, mode: 'sync', names: [] } }) });
    const d = answered(state, unknown, leading);
    expect(d.state.reign?.barrier).toBe(true);
    expect(write(d)).toMatchObject({ kind: 'heartbeat', expectLeader: '40' });
    const crashed = { ...leading, postgres: down };
    expect(tick(d.state, crashed).commands).toEqual([]);
  });

  it('the set is what the new write has read', () => {
    const state = leader({ barrier: true }, sent());
    const d = answered(state, done({ names: [] }), leading);
    expect(d.state.reign).toMatchObject({ barrier: false, sync: { names: [] } });
  });

  it('an abandoned write of this boot that landed is taken in, and the barrier stays', () => {
    const refused: TransactionOutcome = {
      kind: 'refused',
      leader: stamp(leaderOf(A, { term: 4, timeline: 9 }), '55'),
      sync: stamp({ term: 4, mode: 'sync', names: [C] }, '55'),
    };
    const d = answered(leader({ barrier: true }, sent()), refused, leading);
    expect(d.state.reign).toMatchObject({
      revision: '55',
      barrier: true,
      term: 4,
      timeline: 9,
      sync: { names: [C] },
    });
    expect(write(d)).toMatchObject({
      kind: 'heartbeat',
      expectLeader: '55',
      leader: { term: 4, timeline: 9 },
    });
  });

  it('somebody else’s write ends the reign, and Postgres is fenced at once', () => {
    const refused: TransactionOutcome = {
      kind: 'refused',
      leader: stamp(leaderOf(B, { term: 4 }), '55'),
      sync: stamp({ term: 4, mode: 'sync', names: [A] }, '55'),
    };
    const d = answered(leader({}, sent()), refused, leading);
    expect(d.state.reign).toBeUndefined();
    expect(operation(d)?.do).toBe('fence');
    const older: TransactionOutcome = { ...refused, leader: stamp(leaderOf(A, { bootId: 'another' }), '55') };
    expect(operation(answered(leader({}, sent()), older, leading))?.do).toBe('fence');
  });

  it('the answer to an abandoned write is ignored', () => {
    const state = leader();
    const d = decide(state, { kind: 'transaction', id: 12, outcome: done() }, facts(leading));
    expect(d.state.reign).toEqual(state.reign);
  });
});

describe('fencing', () => {
  it('begins at the deadline, whatever is under way, and nothing else is decided', () => {
    for (const o of [undefined, { do: 'checkpoint' as const }, { do: 'configure' as const, settings }]) {
      const d = tick(leader({ deadline: now }, o === undefined ? {} : doing(o)), leading);
      expect(kinds(d)).toEqual(['operate']);
      expect(operation(d)?.do).toBe('fence');
    }
    expect(operation(tick(leader({ deadline: now + 1 }), leading))).toBeUndefined();
  });

  it('interrupts a promotion and a start as primary', () => {
    const opening: Operation[] = [
      { do: 'start', as: 'primary', settings, term: 3, timeline: 3 },
      { do: 'promote', term: 3, timeline: 3, settings, slots: [] },
    ];
    for (const o of opening) {
      const d = tick(leader({ deadline: now, stage: 'promote' }, doing(o)), {
        ...leading,
        postgres: standby(),
      });
      expect(operation(d)?.do).toBe('fence');
    }
  });

  it('ends every Postgres that could write without leadership, and leftovers', () => {
    const follow = { ...leading, leader: leaderOf(B) };
    expect(operation(tick(follower(), follow))?.do).toBe('fence');
    expect(
      operation(tick(follower(), { ...follow, postgres: { ...standby({ inRecovery: false }) } }))?.do,
    ).toBe('fence');
    const leftovers: PostgresFacts = { process: 'leftovers', since: now, walLost: false };
    expect(operation(tick(follower(), { ...follow, postgres: leftovers }))?.do).toBe('fence');
  });

  it('that fails is tried again a second later, and nothing else meanwhile', () => {
    const due = { ...leading, leader: leaderOf(B) };
    const d = ended(follower(doing({ do: 'fence', why: '' })), failure(), due);
    expect(d.commands).toEqual([]);
    expect(tick(d.state, { ...due, now: now + 999 }).commands).toEqual([]);
    expect(operation(tick(d.state, { ...due, now: now + 1_000 }))?.do).toBe('fence');
  });

  it('ends a takeover whose first step it interrupts: nobody will hear of the end of that', () => {
    const candidate = follower({
      ...cuttingOff,
    });
    const leftovers: PostgresFacts = { process: 'leftovers', since: now, walLost: false };
    const d = tick(candidate, { ...leading, leader: leaderOf(B), postgres: leftovers });
    expect(operation(d)?.do).toBe('fence');
    const after = ended(d.state, { ok: true }, { ...leading, leader: leaderOf(B), postgres: down });
    expect(operation(after)).toMatchObject({ do: 'start', as: 'standby' });
  });

  it('is told to the peers afterwards', () => {
    const d = ended(
      leader({ deadline: now }, doing({ do: 'fence', why: '' })),
      { ok: true },
      { ...leading, postgres: down },
    );
    expect(d.state.reign).toBeUndefined();
    expect(answerProbe(d.state, facts({ ...leading, postgres: down }))).toMatchObject({
      state: 'fenced',
      term: 3,
    });
  });

  it('gives up a database that does not answer', () => {
    const silent = primary([walsender(B)], { at: now - 5_001 });
    expect(operation(tick(leader(), { ...leading, postgres: silent }))?.do).toBe('fence');
    expect(
      operation(tick(leader(), { ...leading, postgres: primary([walsender(B)], { at: now - 4_900 }) })),
    ).toBeUndefined();
  });

  it.each<Operation>([{ do: 'configure', settings }, { do: 'prove-wait' }, { do: 'checkpoint' }])(
    'gives up a database that does not answer while something is done to it: $do',
    (busy) => {
      const silent = primary([walsender(B)], { at: now - 5_001 });
      expect(operation(tick(leader({}, doing(busy)), { ...leading, postgres: silent }))?.do).toBe('fence');
      // Slow is not silent.
      expect(operation(tick(leader({}, { ...doing(busy) }), leading))).toBeUndefined();
    },
  );

  it('leaves a Postgres alone that is being stopped', () => {
    const silent = primary([walsender(B)], { at: now - 5_001 });
    expect(
      operation(tick(leader({}, doing({ do: 'stop' })), { ...leading, postgres: silent })),
    ).toBeUndefined();
  });

  it('that fails leaves the place to others: no heartbeat is sent until one has succeeded', () => {
    const due = { goodAt: now - 1_000 };
    const stalled = { ...leading, postgres: { ...primary(), process: 'starting' as const, since: now } };
    const d = ended(leader(due, doing({ do: 'fence', why: '' })), failure('OperationHangs'), stalled);
    const later = tick(d.state, { ...stalled, now: now + 1_000 });
    expect(write(later)).toBeUndefined();
    expect(later.state.problem?.reason).toBe('OperationHangs');
    // koschei-init makes sure.
    expect(fenceDeadline(later.state, facts(stalled))).toBe(now + 4_000);
    const again = tick(later.state, { ...stalled, now: now + 4_000 });
    expect(operation(again)?.do).toBe('fence');
    const after = ended(again.state, { ok: true }, { ...leading, postgres: down, now: now + 4_100 });
    expect(after.state.fenceAfter).toBeUndefined();
  });

  it('past the deadline nothing is started: a reign without Postgres just ends (R10)', () => {
    const d = tick(leader({ deadline: now, stage: 'start' }), { ...leading, postgres: down });
    expect(d.state.reign).toBeUndefined();
    expect(operation(d)).toBeUndefined();
    expect(write(d)?.kind ?? 'resume').toBe('resume');
  });

  it('has no deadline when nothing could write', () => {
    expect(fenceDeadline(leader({ stage: 'promote' }), facts({ ...leading, postgres: standby() }))).toBe(0);
    const promoting = doing({ do: 'promote', term: 3, timeline: 3, settings, slots: [] });
    expect(
      fenceDeadline(leader({ stage: 'promote' }, promoting), facts({ ...leading, postgres: standby() })),
    ).toBe(now + 4_000);
  });

  it('has its deadline until Postgres is down, also when the reign has ended', () => {
    const refused: TransactionOutcome = {
      kind: 'refused',
      leader: stamp(leaderOf(B, { term: 4 }), '61'),
      sync: undefined,
    };
    const lost = { ...leading, leader: leaderOf(B, { term: 4 }) };
    const d = answered(leader({}, sent()), refused, lost);
    expect(d.state.reign).toBeUndefined();
    expect(operation(d)?.do).toBe('fence');
    expect(fenceDeadline(d.state, facts(lost))).toBe(now + 4_000);

    // What a promotion that was interrupted has come to, no observation says.
    const promoting = leader(
      { stage: 'promote' },
      { ...sent(), ...doing({ do: 'promote', term: 3, timeline: 3, settings, slots: [] }) },
    );
    const open = { ...lost, postgres: standby() };
    const interrupted = answered(promoting, refused, open);
    expect(operation(interrupted)?.do).toBe('fence');
    expect(fenceDeadline(interrupted.state, facts(open))).toBe(now + 4_000);

    const fenced = ended(interrupted.state, { ok: true }, { ...lost, postgres: down });
    expect(fenceDeadline(fenced.state, facts({ ...lost, postgres: down }))).toBe(0);
    expect(fenced.state.lastDeadline).toBeUndefined();
  });
});

describe('a stalled disk', () => {
  const silentFor = (ms: number, lookedAt = now): StorageFacts[] => [
    { volume: 'data', goodAt: now - 100, lookedAt: now },
    { volume: 'WAL', goodAt: lookedAt - ms, lookedAt },
  ];

  it('of the leader is a dead disk: it is fenced for a living member of the set', () => {
    const d = tick(leader(), { ...leading, storage: silentFor(5_001) });
    expect(operation(d)).toMatchObject({ do: 'fence' });
    expect(operation(tick(leader(), { ...leading, storage: silentFor(5_000) }))).toBeUndefined();
    // Also while it is being stopped, which would take as long as the disk does.
    const stopping = leader({}, doing({ do: 'stop' }));
    expect(operation(tick(stopping, { ...leading, storage: silentFor(5_001) }))?.do).toBe('fence');
  });

  it('is waited for where nobody can take the place, or everybody waits for a disk', () => {
    for (const peers of [[], [answer(B, { state: 'unknown', storageStalled: true }), answer(C)]])
      expect(operation(tick(leader(), { ...leading, peers, storage: silentFor(9_000) }))?.do).not.toBe(
        'fence',
      );
    const paused = config({ paused: { until: '2026-01-01T02:00:00Z', forMs: 60_000 } });
    const inPause = { ...leading, config: paused, storage: silentFor(9_000) };
    expect(operation(tick(leader(), inPause))?.do).not.toBe('fence');
    const asynchronous = {
      ...leading,
      sync: { mode: 'async' as const, names: [] },
      config: config({ synchronous: 0 }),
      applied: [],
      storage: silentFor(9_000),
    };
    const reign = { sync: { term: 3, mode: 'async' as const, names: [] } };
    expect(operation(tick(leader(reign, { syncNames: [] }), asynchronous))?.do).toBe('fence');
    expect(operation(tick(leader(reign, { syncNames: [] }), { ...asynchronous, peers: [] }))?.do).not.toBe(
      'fence',
    );
  });

  it('counts as such for as long as it was looked at, not for as long as the agent stood still', () => {
    const late = silentFor(3_000, now - 10_000);
    expect(operation(tick(leader(), { ...leading, storage: late }))).toBeUndefined();
  });

  it('after the fence is left alone, and the peers are told that this instance has fenced', () => {
    const stalled: World = {
      ...leading,
      storage: silentFor(7_000),
      postgres: { process: 'ended', since: now, walLost: false },
    };
    const d = ended(leader({}, doing({ do: 'fence', why: '' })), { ok: true }, stalled);
    expect(d.commands).toEqual([]);
    expect(d.state.reign).toBeUndefined();
    expect(fenceDeadline(d.state, facts(stalled))).toBe(0);
    expect(answerProbe(d.state, facts(stalled))).toMatchObject({ state: 'fenced', term: 3 });
    const later = { ...stalled, now: now + 60_000, postgres: down };
    const told = later.storage?.map((v) => ({ ...v, lookedAt: now + 60_000 })) ?? [];
    expect(tick(d.state, { ...later, storage: told }).commands).toEqual([]);
    expect(operation(tick(d.state, { ...later, leader: leaderOf(B, { term: 4 }), storage: [] }))?.do).toBe(
      'start',
    );
  });

  it('of a standby keeps it from standing, and it says so', () => {
    const silent: World = {
      leader: leaderOf(B),
      sync: { names: [A] },
      peers: [],
      applied: [placeholderName],
    };
    const suspicious = follower({ proofAt: now - 1_000, leaderSeen: { revision: '40', at: now - 1_250 } });
    expect(operation(tick(suspicious, { ...silent, storage: silentFor(2_500) }))?.do).toBe('stop-receiver');
    const stalled = { ...silent, storage: silentFor(2_501) };
    expect(tick(suspicious, stalled).commands).toEqual([]);
    expect(answerProbe(suspicious, facts(stalled))).toMatchObject({ state: 'unknown', storageStalled: true });
  });

  it('of a synchronous standby has it replaced as soon as a commit waits for it', () => {
    const stalled = [answer(B, { state: 'unknown', storageStalled: true }), answer(C)];
    const waiting: World = {
      ...leading,
      peers: stalled,
      postgres: primary([walsender(B), walsender(C, { syncPriority: 0 })], { commitWaitMs: 500 }),
    };
    expect(operation(tick(leader(), waiting))).toMatchObject({
      do: 'configure',
      settings: { synchronousNames: [name(C), name(B)] },
    });
    expect(operation(tick(leader(), { ...waiting, peers: [answer(B), answer(C)] }))).toBeUndefined();
  });

  it('lets this instance leave', () => {
    const stopped: World = {
      leader: leaderOf(B),
      stopRequested: true,
      volume: { state: 'unknown' },
      postgres: { process: 'ended', since: now, walLost: false },
    };
    expect(kinds(tick(follower(), stopped))).toEqual(['exit']);
    expect(tick(follower(), { ...stopped, stopRequested: false }).commands).toEqual([]);
  });

  it('is told as long as it lasts, in words that stay the same', () => {
    const problem = (ms: number) =>
      storageProblem(
        facts({ storage: [{ volume: 'WAL', goodAt: now - ms, lookedAt: now, failure: 'EIO' }] }),
      );
    expect(problem(5_000)).toBeUndefined();
    expect(problem(5_001)).toMatchObject({
      reason: 'DiskStalled',
      message: expect.stringContaining('EIO'),
    });
    expect(problem(99_000)).toEqual(problem(5_001));
    const free = (freeBytes: number) =>
      storageProblem(facts({ storage: [{ volume: 'data', goodAt: now, lookedAt: now, freeBytes }] }));
    expect(free(32 << 20)).toBeUndefined();
    expect(free((32 << 20) - 1)?.reason).toBe('DiskFull');
  });
});

describe('standing for election', () => {
  /** B leads, A is in the set, and B has been silent on both clocks. */
  const silent: World = { leader: leaderOf(B), sync: { names: [A] }, peers: [], applied: [placeholderName] };
  const suspicious = (change: Partial<HaState> = {}) =>
    follower({ proofAt: now - 1_000, leaderSeen: { revision: '40', at: now - 1_250 }, ...change });
  const stands = (state: HaState, world: World) => operation(tick(state, world))?.do === 'stop-receiver';

  it('needs both clocks: no proof for 1 s and no heartbeat for 1.25 s', () => {
    expect(stands(suspicious(), silent)).toBe(true);
    expect(stands(suspicious({ proofAt: now - 999 }), silent)).toBe(false);
    expect(stands(suspicious({ leaderSeen: { revision: '40', at: now - 1_249 } }), silent)).toBe(false);
    expect(stands(suspicious({ leaderSeen: { revision: '39', at: now - 9_000 } }), silent)).toBe(false);
  });

  it('is vetoed only by a proof of leadership', () => {
    expect(stands(suspicious(), { ...silent, peers: [proof()] })).toBe(false);
    const useless: Partial<PeerAnswer>[] = [
      { state: 'unknown' },
      { state: 'standby' },
      { term: 2 },
      { openMs: 0 },
      { bootId: 'another boot' },
      { dataId: C.dataId },
    ];
    for (const change of useless)
      expect(stands(suspicious(), { ...silent, peers: [proof(change)] }), JSON.stringify(change)).toBe(true);
  });

  it('need not wait for a leader that says that it has fenced itself in this term', () => {
    const state = follower({ proofAt: now - 10 });
    const says = (term: number) => [answer(B, { state: 'fenced', term })];
    expect(stands(state, { ...silent, peers: says(3) })).toBe(true);
    expect(stands(state, { ...silent, peers: says(2) })).toBe(false);
  });

  it('is for members of the set only, by data id; an empty set means nobody (R9)', () => {
    const late = suspicious({ leaderSeen: { revision: '40', at: now - 50_000 } });
    for (const names of [[], [C], [{ ...A, dataId: C.dataId }]])
      expect(stands(late, { ...silent, sync: { names } })).toBe(false);
  });

  it('with strict fencing waits for the ttl', () => {
    const strict = { ...silent, config: config({ fencing: 'strict' }) };
    expect(stands(suspicious({ leaderSeen: { revision: '40', at: now - 5_999 } }), strict)).toBe(false);
    expect(stands(suspicious({ leaderSeen: { revision: '40', at: now - 6_000 } }), strict)).toBe(true);
    const young = { bootedAt: now - 5_999, leaderSeen: { revision: '40', at: now - 5_999 } };
    expect(stands(suspicious(young), strict)).toBe(false);
  });

  it('waits for the ttl that the leader goes by, if that is the longer one', () => {
    const strict = { ...silent, config: config({ fencing: 'strict' }) };
    const at = (ms: number) => suspicious({ leaderSeen: { revision: '40', at: now - ms } });
    const of = (ttlMs: number) => ({ ...strict, leader: leaderOf(B, { ttlMs }) });
    expect(stands(at(29_999), of(30_000))).toBe(false);
    expect(stands(at(30_000), of(30_000))).toBe(true);
    expect(stands(at(5_999), of(4_000))).toBe(false);
    expect(stands(at(6_000), of(4_000))).toBe(true);
  });

  it('in async mode waits for the ttl, is on the list, and holds no less than others', () => {
    const async_ = {
      ...silent,
      sync: { mode: 'async' as const, names: [] },
      config: config({ synchronous: 0 }),
    };
    const state = suspicious({ leaderSeen: { revision: '40', at: now - 6_000 } });
    expect(stands(state, async_)).toBe(true);
    expect(stands(suspicious(), async_)).toBe(false);
    expect(stands(state, { ...async_, leader: leaderOf(B, { members: [B, C] }) })).toBe(false);
    expect(stands(state, { ...async_, peers: [answer(C, { receivedLsn: 1_001n })] })).toBe(false);
    expect(stands(state, { ...async_, peers: [answer(C, { timeline: 4, receivedLsn: 1n })] })).toBe(false);
    expect(stands(state, { ...async_, peers: [answer(C)] })).toBe(true);
    // What C holds is not known before it has replayed it; it is not waited for without end.
    const replaying = {
      ...async_,
      peers: [answer(C, { replayedLsn: 1n, receivedLsn: 1n, replaysLocalWal: true })],
    };
    expect(stands(state, replaying)).toBe(false);
    const long = now - 6_000 - replayPatienceMs;
    const patient = { ...state, bootedAt: long, leaderSeen: { revision: '40', at: long } };
    expect(stands(patient, replaying)).toBe(true);
    const successor = leaderOf(B, { phase: 'vacated', successor: A.instance });
    expect(stands(state, { ...replaying, leader: successor })).toBe(true);
  });

  it('is for a Postgres that answers as a standby of this cluster', () => {
    const unfit: World[] = [
      { postgres: standby({ at: now - 1_501 }) },
      { postgres: down },
      { volume: { state: 'tainted', why: 'x' } },
      { volume: volume({ systemIdentifier: '78' }) },
      { stopRequested: true },
      { config: config({ members: ['shop-2', 'shop-3'] }) },
    ];
    for (const change of unfit) expect(stands(suspicious(), { ...silent, ...change })).toBe(false);
  });

  it('rests on a linearizable read sent after the suspicion', () => {
    const d = tick(suspicious(), { ...silent, readAt: now - 501 });
    expect(kinds(d)).toEqual(['read']);
  });

  it('after a hand-over goes first if named, and else leaves the way for a while', () => {
    const vacated = (successor: string) => ({
      ...silent,
      leader: leaderOf(B, { phase: 'vacated', successor }),
    });
    const seen = (ms: number) => follower({ leaderSeen: { revision: '40', at: now - ms } });
    expect(stands(seen(0), vacated('shop-1'))).toBe(true);
    expect(stands(seen(1_499), vacated('shop-3'))).toBe(false);
    expect(stands(seen(1_500), vacated('shop-3'))).toBe(true);
  });

  it('leaves living members that are named earlier in the set a head start', () => {
    const second = { ...silent, sync: { names: [C, A] } };
    expect(stands(suspicious(), { ...second, peers: [answer(C)] })).toBe(false);
    expect(stands(suspicious(), second)).toBe(true);
  });

  it('is not for an instance that may not lead, and nobody waits for what only such a one holds', () => {
    const barring = (m: MemberRef) => ({ instances: { [m.instance]: { noFailover: true } } });
    const late = suspicious({ leaderSeen: { revision: '40', at: now - 6_000 } });
    expect(stands(late, { ...silent, config: config(barring(A)) })).toBe(false);
    const vacated = { ...silent, leader: leaderOf(B, { phase: 'vacated', successor: A.instance }) };
    expect(stands(late, { ...vacated, config: config(barring(A)) })).toBe(false);
    const both = { ...silent, sync: { names: [C, A] }, peers: [answer(C)] };
    expect(stands(suspicious(), { ...both, config: config(barring(C)) })).toBe(true);
    for (const more of [{ receivedLsn: 9_000n }, { replaysLocalWal: true }]) {
      const async_ = { ...silent, sync: { mode: 'async' as const, names: [] }, peers: [answer(C, more)] };
      expect(stands(late, { ...async_, config: config({ synchronous: 0 }) })).toBe(false);
      expect(stands(late, { ...async_, config: config({ synchronous: 0, ...barring(C) }) })).toBe(true);
    }
  });

  it('is first for a member of the set with a higher priority', () => {
    const priority = (m: MemberRef, to: number) => config({ instances: { [m.instance]: { priority: to } } });
    const peers = [answer(C)];
    expect(stands(suspicious(), { ...silent, peers, sync: { names: [C, A] }, config: priority(A, 51) })).toBe(
      true,
    );
    expect(stands(suspicious(), { ...silent, peers, sync: { names: [A, C] }, config: priority(C, 51) })).toBe(
      false,
    );
    expect(stands(suspicious(), { ...silent, sync: { names: [A, C] }, config: priority(C, 51) })).toBe(true);
    const late = suspicious({ leaderSeen: { revision: '40', at: now - 60_000 } });
    expect(stands(late, { ...silent, peers, sync: { names: [A, C] }, config: priority(C, 51) })).toBe(true);
  });

  it('in async mode is first for a higher priority among those that hold as much, and never before one that holds more', () => {
    const late = suspicious({ leaderSeen: { revision: '40', at: now - 6_000 } });
    const asynchronously = (lsn: bigint, mine: number, other: number): World => ({
      ...silent,
      sync: { mode: 'async', names: [] },
      peers: [answer(C, { receivedLsn: lsn, replayedLsn: lsn })],
      config: config({
        synchronous: 0,
        instances: { [A.instance]: { priority: mine }, [C.instance]: { priority: other } },
      }),
    });
    expect(stands(late, asynchronously(1_000n, 50, 51))).toBe(false);
    expect(stands(late, asynchronously(1_000n, 51, 50))).toBe(true);
    expect(stands(late, asynchronously(999n, 0, 100))).toBe(true);
    expect(stands(late, asynchronously(1_001n, 100, 0))).toBe(false);
  });

  it('in async mode is for who lacks no more than the bound of what the leader was known to have', () => {
    const late = suspicious({ leaderSeen: { revision: '40', at: now - 6_000 } });
    const bounded = (maximumLagBytes: number, change: Partial<LeaderValue> = {}, timeline = 3): World => ({
      ...silent,
      leader: leaderOf(B, { lsn: '0/400', ...change }),
      sync: { mode: 'async', names: [] },
      postgres: standby({ timeline }),
      config: config({ synchronous: 0, maximumLagBytes }),
    });
    // It holds 0/3E8, 24 bytes less.
    expect(stands(late, bounded(24))).toBe(true);
    expect(stands(late, bounded(23))).toBe(false);
    expect(stands(late, bounded(1_000, {}, 2))).toBe(false);
    expect(stands(late, bounded(0, { phase: 'vacated', successor: A.instance }))).toBe(true);
    expect(stands(late, bounded(0, { phase: 'vacated' }))).toBe(false);
    const { lsn: _, ...silentLeader } = leaderOf(B);
    expect(stands(late, { ...bounded(0), leader: silentLeader })).toBe(true);
    // Whoever is in the synchronous set lacks nothing that was acknowledged.
    expect(stands(late, { ...bounded(0), sync: { names: [A] } })).toBe(true);
  });

  it('is not tried again at once after a failure', () => {
    const trying = suspicious({
      ...cuttingOff,
    });
    const d = ended(trying, failure(), silent);
    expect(operation(d)?.do).not.toBe('stop-receiver');
    expect(stands({ ...suspicious(), standAfter: now }, silent)).toBe(true);
  });
});

describe('a pause of automatic failover', () => {
  const paused = { until: '2026-01-01T02:00:00Z', forMs: 60_000 };
  const lost: World = {
    leader: leaderOf(B),
    sync: { names: [A] },
    applied: [placeholderName],
    config: config({ paused }),
  };
  const waiting = (change: Partial<HaState> = {}) =>
    follower({ leaderSeen: { revision: '40', at: now - 60_000 }, proofAt: now - 60_000, ...change });
  const stands = (state: HaState, world: World) => operation(tick(state, world))?.do === 'stop-receiver';

  it('keeps standbys from standing, but for the one that the leader handed over to', () => {
    expect(stands(waiting(), lost)).toBe(false);
    expect(stands(waiting(), { ...lost, config: config() })).toBe(true);
    const vacated = (successor?: string) =>
      leaderOf(B, { phase: 'vacated', ...(successor === undefined ? {} : { successor }) });
    expect(stands(waiting(), { ...lost, leader: vacated('shop-1') })).toBe(true);
    expect(stands(waiting(), { ...lost, leader: vacated('shop-3') })).toBe(false);
    expect(stands(waiting(), { ...lost, leader: vacated() })).toBe(false);
  });

  it('ends by itself so long after this agent saw it first, and another one begins anew', () => {
    const seen = (ms: number, until = paused.until) => waiting({ pause: { until, since: now - ms } });
    expect(tick(waiting(), lost).state.pause).toEqual({ until: paused.until, since: now });
    expect(stands(seen(59_999), lost)).toBe(false);
    expect(stands(seen(60_000), lost)).toBe(true);
    expect(stands(seen(60_000, 'an earlier one'), lost)).toBe(false);
    expect(tick(seen(5), { ...lost, config: config() }).state.pause).toBeUndefined();
    // A configuration that cannot be read takes nothing back.
    expect(tick(seen(5), { ...lost, config: undefined }).state.pause).toBeDefined();
  });

  it('keeps a leader whose Postgres crashed from handing over, and not from fencing', () => {
    const crashed: World = { ...leading, postgres: down, peers: [answer(B)], config: config({ paused }) };
    const d = tick(leader(), crashed);
    expect(write(d)).toBeUndefined();
    expect(d.state.reign?.stage).toBe('start');
    const late = tick(leader({ deadline: now }), { ...leading, config: config({ paused }) });
    expect(operation(late)?.do).toBe('fence');
  });

  it('lets a leader that was fenced lead again at once: nobody else is to go first', () => {
    const back: World = {
      leader: leaderOf(A, { bootId: 'an earlier boot' }),
      sync: { names: [B] },
      postgres: down,
      peers: [answer(B)],
      config: config({ paused }),
    };
    expect(write(tick(follower(), back))?.kind).toBe('resume');
    expect(
      write(tick(follower({ leaderSeen: { revision: '40', at: now } }), { ...back, config: config() })),
    ).toBeUndefined();
  });
});

describe('a standby that may not stand', () => {
  /** B leads, C is in the set, and B, which had proved that it leads, has been silent for as long as A bears with. */
  const silent: World = {
    leader: leaderOf(B),
    sync: { names: [C] },
    peers: [answer(C)],
  };
  const suspicious = (change: Partial<HaState> = {}) =>
    follower({
      provedTerm: 3,
      proofAt: now - 500,
      leaderSeen: { revision: '40', at: now - 1_150 },
      ...change,
    });
  const receives = (state: HaState, world: World) =>
    wantedSettings(state, facts(world)).upstream !== undefined;

  it('stops receiving before others may stand, and goes on when the leader proves itself or its ttl is over', () => {
    const d = tick(suspicious(), {
      ...silent,
      postgres: standby({ receiver: { status: 'streaming', senderHost: 'address of shop-2' } }),
    });
    expect(operation(d)).toMatchObject({
      do: 'configure',
      settings: { synchronousNames: [placeholderName] },
    });
    expect(receives(suspicious(), silent)).toBe(false);
    expect(receives(suspicious({ proofAt: now - 499 }), silent)).toBe(true);
    expect(receives(suspicious({ leaderSeen: { revision: '40', at: now - 1_149 } }), silent)).toBe(true);
    expect(tick(suspicious(), { ...silent, peers: [proof()] }).state.proofAt).toBe(now - 50);
    expect(receives(suspicious({ leaderSeen: { revision: '40', at: now - 6_000 } }), silent)).toBe(true);
  });

  it('goes on receiving from a standby, which stops by itself', () => {
    const from = { instance: C.instance, address: 'address of shop-3', cascades: true } as const;
    const options = config({ instances: { [A.instance]: { streamFrom: C.instance } } });
    const cascades = suspicious({
      cascade: { instance: C.instance, since: now - 9_000, goodAt: now - 50, wholeAt: now - 50 },
    });
    const world = facts({ ...silent, config: options, peers: [answer(C, { streamsFrom: B.instance })] });
    expect(wantedSettings(cascades, world).upstream).toEqual(from);
    // Once that one has stopped for a second, it would be the primary's turn.
    const late = { ...world, now: now + 1_500, peers: new Map() };
    expect(wantedSettings(cascades, late).upstream).toBeUndefined();
  });

  it('goes on receiving where nobody may stand before the ttl is over, and from whom it has had no proof', () => {
    expect(receives(suspicious(), { ...silent, sync: { mode: 'async', names: [] } })).toBe(true);
    expect(receives(suspicious(), { ...silent, config: config({ fencing: 'strict' }) })).toBe(true);
    expect(receives(suspicious({ provedTerm: 2 }), silent)).toBe(true);
    const paused = config({ paused: { until: '2026-01-01T02:00:00Z', forMs: 60_000 } });
    expect(receives(suspicious(), { ...silent, config: paused })).toBe(true);
  });

  it('for now, because another member goes first, stops receiving when that one does', () => {
    const second = { ...silent, sync: { names: [C, A] } };
    expect(receives(suspicious(), second)).toBe(true);
    const late = { proofAt: now - 1_000, leaderSeen: { revision: '40', at: now - 1_250 } };
    expect(operation(tick(suspicious(late), second))?.do).toBe('configure');
  });
});

describe('a failover that a person asks for', () => {
  const asked = (change: object = {}) => ({
    request: stamp(
      {
        ...{ id: 'r', kind: 'failover' as const, by: 'kubectl', to: A.instance, dataId: A.dataId },
        ...{ bootId: boot(A), term: 3, acceptLoss: true, primaryIsOff: true, ...change },
      },
      '45',
    ),
  });
  /** B led, C was in the set, both are lost, and A is asynchronous. */
  const lost: World = {
    leader: leaderOf(B, { lsn: '0/500' }),
    sync: { names: [C] },
    applied: [placeholderName],
    view: asked(),
  };
  const silent = (ms: number) =>
    follower({ leaderSeen: { revision: '40', at: now - ms }, proofAt: now - ms });
  const refusal = (world: World, state = silent(6_000)) => {
    const [command] = tick(state, world).commands;
    return command?.kind === 'refuse-request' ? command.because : undefined;
  };

  it('waits until the leader has been silent for its ttl, cuts off, takes, and says what may be lost', () => {
    expect(operation(tick(silent(5_999), lost))?.do).not.toBe('stop-receiver');
    expect(tick(silent(5_999), lost).state.problem?.reason).toBe('WaitingForTtl');
    const first = tick(silent(6_000), lost);
    expect(operation(first)?.do).toBe('stop-receiver');
    const d = ended(first.state, { ok: true }, { ...lost, postgres: standby({ at: now }) });
    const taking = write(d);
    expect(taking).toMatchObject({
      kind: 'take',
      leader: { term: 4, timeline: 4 },
      sync: { names: [C, B] },
      expectLeader: '40',
      expectSync: '30',
      expectRequest: '45',
      deleteRequest: true,
    });
    const said = taking?.leader.accepted ?? '';
    expect(said).toContain('asked for by kubectl');
    expect(said).toContain('flushed 0/500 on timeline 3');
    expect(said).toContain('shop-1 holds 0/3E8 on timeline 3');
  });

  it('is recorded with the term, by a restarted agent, too', () => {
    const accepted = 'commits of shop-2 may be lost';
    const mine = leaderOf(A, { bootId: 'an earlier boot', accepted });
    const world: World = { leader: mine, sync: { names: [B] }, postgres: standby(), volume: volume() };
    const state = follower({ leaderSeen: { revision: '40', at: now - 60_000 } });
    const resumed = answered(tick(state, world).state, done(), world);
    expect(resumed.state.reign).toMatchObject({ lossAccepted: true, why: accepted });
    // Until it is written, every write says it.
    const waiting = leader({ stage: 'promote', lossAccepted: true, why: accepted, goodAt: now - 2_000 });
    expect(write(tick(waiting, { ...leading, postgres: standby() }))?.leader.accepted).toBe(accepted);
    const leads = leader({ lossAccepted: true, why: accepted, goodAt: now - 2_000 });
    expect(write(tick(leads, leading))?.leader.accepted).toBeUndefined();
  });

  it('is about these data, this boot and this term, and older than no sign of life', () => {
    expect(refusal({ ...lost, view: asked({ dataId: C.dataId }) })).toContain('other data');
    expect(refusal({ ...lost, view: asked({ bootId: 'another boot' }) })).toContain('started anew');
    expect(refusal({ ...lost, view: asked({ term: 2 }) })).toContain('this is term 3');
    expect(refusal({ ...lost, view: asked({ acceptLoss: false }) })).toContain('acceptLoss');
    expect(refusal({ ...lost, config: config({ instances: { 'shop-1': { noFailover: true } } }) })).toContain(
      'noFailover',
    );
    const alive = { ...lost, view: { ...asked(), leader: stamp(leaderOf(B), '46') } };
    expect(refusal(alive)).toContain('sign of life');
    const another = tick(silent(6_000), { ...lost, view: asked({ to: C.instance }) });
    expect(kinds(another)).not.toContain('refuse-request');
    expect(operation(another)?.do).not.toBe('stop-receiver');
  });

  it('is refused while the primary proves that it leads, and while somebody lives who holds everything', () => {
    expect(refusal({ ...lost, peers: [proof()] })).toContain('use a switchover');
    expect(refusal({ ...lost, peers: [answer(C)] })).toContain('shop-3 holds every acknowledged commit');
    expect(refusal({ ...lost, peers: [answer(C, { state: 'unknown' })] })).toBeUndefined();
    expect(refusal({ ...lost, peers: [answer(C, { dataId: B.dataId })] })).toBeUndefined();
    const d = tick(leader(), { ...leading, view: asked() });
    expect(d.commands[0]).toMatchObject({
      kind: 'refuse-request',
      because: 'shop-1 leads: use a switchover',
    });
  });

  it('needs to know that the old primary does not serve on without etcd', () => {
    const unsure = { ...lost, view: asked({ primaryIsOff: false }) };
    const says = (change: Partial<PeerAnswer>) => refusal({ ...unsure, peers: [answer(B, change)] });
    expect(refusal(unsure)).toContain('primaryIsOff');
    expect(says({ state: 'unknown' })).toContain('primaryIsOff');
    expect(says({ state: 'fenced', term: 2 })).toContain('primaryIsOff');
    expect(says({ state: 'fenced', term: 3 })).toBeUndefined();
    expect(says({ state: 'standby' })).toBeUndefined();
    expect(says({ state: 'unknown', bootId: 'a later boot' })).toBeUndefined();
    expect(refusal({ ...unsure, leader: leaderOf(B, { phase: 'vacated' }) })).toBeUndefined();
    // It would have been asked for a promise itself.
    expect(refusal({ ...unsure, sync: { mode: 'async', names: [] } })).toBeUndefined();
  });

  it('to a member of the synchronous set loses nothing, and need not be accepted: for pauses', () => {
    const paused = config({ paused: { until: 'tonight', forMs: 60_000 } });
    const member: World = {
      ...lost,
      sync: { names: [A] },
      config: paused,
      view: asked({ acceptLoss: false, primaryIsOff: false }),
    };
    const first = tick(silent(6_000), member);
    const taking = write(ended(first.state, { ok: true }, { ...member, postgres: standby({ at: now }) }));
    expect(taking).toMatchObject({ kind: 'take', expectRequest: '45', deleteRequest: true });
    expect(taking?.leader.accepted).toBeUndefined();
  });

  it('works in a pause', () => {
    const paused = { ...lost, config: config({ paused: { until: 'tonight', forMs: 60_000 } }) };
    expect(operation(tick(silent(6_000), paused))?.do).toBe('stop-receiver');
  });

  it('that cannot be carried out is given up, and told until the term is over', () => {
    const unable = { ...lost, postgres: standby({ at: now - 2_000 }) };
    const seen = (ms: number) => ({ ...silent(60_000), asked: { revision: '45', at: now - ms } });
    expect(refusal(unable, seen(36_000))).toBeUndefined();
    const d = tick(seen(36_001), unable);
    expect(d.state.refusedRequest).toMatchObject({ revision: '45', kind: 'failover', term: 3 });
    expect(d.state.refusedRequest?.because).toContain('does not answer');
    // It may still be there for a while.
    const { operation: _, ...idle } = d.state;
    expect(refusal(lost, idle)).toContain('does not answer');
  });

  it('that is withdrawn meanwhile is not carried out', () => {
    const first = tick(silent(6_000), lost);
    const d = ended(first.state, { ok: true }, lost);
    expect(tick(d.state, { ...lost, view: {} }).state.takeover).toBeUndefined();
  });
});

describe('taking the leadership', () => {
  const taking: World = {
    leader: leaderOf(B, { timeline: 5 }),
    sync: { names: [A, C] },
    postgres: standby({ at: now }),
    applied: [placeholderName],
  };
  const takeover = {
    phase: 'take',
    since: now - 100,
    leaderRevision: '40',
    syncRevision: '30',
    why: 'silence',
    level: false,
  } as const;
  const ready = follower({ takeover });
  /** What B had flushed is all that this one has, and nobody else is in the set. */
  const level = follower({ takeover: { ...takeover, heldBy: B, level: true } });

  it('is nothing for a volume that has become unusable meanwhile', () => {
    const d = tick(ready, { ...taking, volume: { state: 'tainted', why: 'a test' } });
    expect(write(d)).toBeUndefined();
    expect(d.state.takeover).toBeUndefined();
    expect(d.state.problem?.reason).toBe('WaitingForPrimary');
  });

  it('compares both revisions, allots a new timeline, and names the old set and the old leader (R4, R6)', () => {
    expect(write(tick(ready, taking))).toEqual({
      kind: 'take',
      leader: {
        ...A,
        bootId: boot(A),
        term: 4,
        timeline: 6,
        phase: 'leading',
        beat: 0,
        address: 'address of shop-1',
        ttlMs: defaultTiming.ttlMs,
        members: [A, B, C],
      },
      expectLeader: '40',
      expectSync: '30',
      sync: { term: 4, mode: 'sync', names: [C, B] },
    });
  });

  it('is done by a standby without upstream', () => {
    expect(wantedSettings(ready, facts(taking)).upstream).toBeUndefined();
    expect(wantedSettings(follower(), facts(taking)).upstream?.instance).toBe('shop-2');
  });

  it('waits until a look from after the stop shows no receiver', () => {
    const receiver = { status: 'streaming', senderHost: 'b' };
    expect(tick(ready, { ...taking, postgres: standby({ at: now, receiver }) }).commands).toEqual([]);
    expect(tick(ready, { ...taking, postgres: standby({ at: now - 101 }) }).commands).toEqual([]);
  });

  it('is given up when the leader or the set has changed', () => {
    const moved = { ...taking, view: { leader: stamp(leaderOf(B), '41') } };
    const d = tick(ready, moved);
    expect(d.state.takeover).toBeUndefined();
    expect(write(d)).toBeUndefined();
    const set = { ...taking, view: { sync: stamp({ term: 3, mode: 'sync' as const, names: [C] }, '31') } };
    expect(tick(ready, set).state.takeover).toBeUndefined();
  });

  const taken = (state: HaState = ready, world: World = taking) =>
    answered(tick(state, world).state, done({ term: 4, names: [C, B] }), world);

  it('is followed by the promotion, with the names of the set (R3) and the candidate to come in place', () => {
    const d = taken(ready, { ...taking, sync: { names: [A] }, peers: [answer(C)] });
    expect(operation(d)).toMatchObject({ do: 'promote', term: 4, timeline: 6, slots: [name(B), name(C)] });
    const o = operation(d);
    const names = o?.do === 'promote' ? o.settings.synchronousNames : [];
    expect(names).toEqual(expect.arrayContaining([name(B), name(C)]));
  });

  it('names nobody who has no data yet', () => {
    const cloning = { ...memberOf(C), dataId: noDataId };
    const members = new Map([memberOf(B), cloning].map((m) => [m.instance, stamp(m, '5')]));
    const peers = [answer(C, { dataId: undefined, state: 'unknown' })];
    const d = taken(ready, { ...taking, sync: { names: [A] }, peers, view: { members } });
    expect(d.state.syncNames).toContain(name(B));
    expect(d.state.syncNames).not.toContain(replicationName(noDataId));
  });

  it('without proof that commits wait keeps a placeholder and lets nobody in', () => {
    const d = taken({ ...ready, waitProved: false });
    expect(operation(d)).toMatchObject({
      do: 'promote',
      settings: { synchronousNames: [placeholderName, name(C), name(B)], clientsAllowed: false },
    });
  });

  it('lets nobody in from the stop of the receiver on, if they could not be let in after the promotion', () => {
    expect(wantedSettings(level, facts(taking)).clientsAllowed).toBe(true);
    expect(wantedSettings({ ...level, waitProved: false }, facts(taking)).clientsAllowed).toBe(false);
    expect(wantedSettings(ready, facts(taking)).clientsAllowed).toBe(false);
    const asynchronous: World = { ...taking, sync: { mode: 'async', names: [] } };
    expect(wantedSettings(ready, facts(asynchronous)).clientsAllowed).toBe(true);
  });

  it('lets clients in at once if only the old leader is left, which holds all that this instance has', () => {
    const opens = (world: World) => {
      const silence = { proofAt: now - 60_000, leaderSeen: { revision: '40', at: now - 60_000 } };
      const began = tick(follower(silence), { ...taking, ...world }).state;
      expect(began.takeover?.phase).toBe('stop-receiver');
      const took = tick(ended(began, { ok: true }, taking).state, { ...taking, ...world }).state;
      const names = write(tick(ready, { ...taking, ...world }))?.sync?.names ?? [];
      return answered(took, done({ term: 4, names }), { ...taking, ...world }).state.reign?.open;
    };
    const alone: World = { sync: { names: [A] }, leader: leaderOf(B) };
    expect(opens(alone)).toBe(true);
    // What was received of an earlier timeline, B may never have had.
    expect(opens({ ...alone, leader: leaderOf(B, { timeline: 5 }) })).toBe(false);
    // C may be behind: it would be promoted without what clients had read here.
    expect(opens({ ...alone, sync: { names: [A, C] } })).toBe(false);
  });

  it('lets clients in when everybody but the old leader has confirmed where this primary began', () => {
    const sync = { term: 3, mode: 'sync' as const, names: [C, B] };
    const opens = (flushLsn: bigint, reign: Partial<Reign>) =>
      tick(leader({ open: false, beginLsn: 1_900n, sync, ...reign }, { syncNames: [name(C), name(B)] }), {
        ...leading,
        sync,
        config: config({ synchronous: 2 }),
        postgres: primary([walsender(C, { flushLsn })]),
        applied: [name(C), name(B)],
      }).state.reign?.open;
    expect(opens(1_900n, { heldBy: B })).toBe(true);
    expect(opens(1_899n, { heldBy: B })).toBe(false);
    expect(opens(1_900n, {})).toBe(false);
    expect(opens(1_900n, { heldBy: { ...B, dataId: '9'.repeat(16) } })).toBe(false);
  });

  it('after a restart in place waits for the old leader, too', () => {
    const state = leader({ heldBy: B }, { ...doing({ do: 'stop' }) });
    expect(ended(state, { ok: true }, { ...leading, postgres: down }).state.reign).toMatchObject({
      open: false,
      heldBy: undefined,
    });
  });

  it('does not wait for what a clone that failed waits for', () => {
    expect(operation(taken({ ...ready, retryAt: now + 20_000 }))?.do).toBe('promote');
  });

  it('when lost is not repeated on the same knowledge', () => {
    const asked = tick(ready, taking).state;
    const d = answered(asked, { kind: 'refused', leader: stamp(leaderOf(C), '44'), sync: undefined }, taking);
    expect(d.state.takeover).toBeUndefined();
    expect(operation(d)?.do).not.toBe('stop-receiver');
  });

  it('when unknown is found out by a new write', () => {
    const asked = tick(ready, taking).state;
    const open = answered(asked, unknown, taking);
    expect(open.state.reign).toBeUndefined();
    const landed = { ...taking, leader: leaderOf(A, { term: 4, timeline: 6 }), now: now + 200 };
    const free = ended(open.state, { ok: true }, landed);
    expect(write(free)).toMatchObject({
      kind: 'resume',
      leader: { term: 4, timeline: 6 },
    });
  });
});

describe('promotion', () => {
  const promoting: World = {
    ...leading,
    volume: volume({ promotedTerm: 2, timeline: 2 }),
    postgres: standby({ timeline: 2, at: now }),
  };
  const next = (reign: Partial<Reign>, world: Partial<World> = {}) =>
    tick(leader({ stage: 'promote', ...reign }), { ...promoting, ...world });

  it('needs a leader key that was ours just now', () => {
    expect(operation(next({}))?.do).toBe('promote');
    expect(operation(next({ goodAt: now - 1_501 }))).toBeUndefined();
    expect(operation(next({ barrier: true }))).toBeUndefined();
  });

  it('happens once in a term and onto a timeline of its own (R5, R6)', () => {
    expect(write(next({}, { volume: volume({ promotedTerm: 3 }) }))?.kind).toBe('new-term');
    expect(write(next({}, { postgres: standby({ timeline: 7, at: now }) }))).toMatchObject({
      kind: 'new-term',
      leader: { term: 4, timeline: 8 },
      sync: { term: 4, names: [B] },
    });
  });

  it('that fails ends in a fence', () => {
    const state = leader(
      { stage: 'promote' },
      doing({ do: 'promote', term: 3, timeline: 3, settings, slots: [] }),
    );
    expect(operation(ended(state, failure(), promoting))?.do).toBe('fence');
  });

  it('that fails is told, and tried again ever later, so that others may lead meanwhile', () => {
    const reign = { stage: 'promote' as const, term: 3 };
    const promote: Operation = { do: 'promote', term: 3, timeline: 3, settings, slots: [] };
    const alone = { ...promoting, sync: { names: [] }, peers: [], postgres: down };
    const failedAfter = (before: number) => {
      const attempts = { start: 0, rewind: 0, clone: 0, promote: before };
      const d = ended(leader(reign, { ...doing(promote), attempts }), failure('HistoryAhead'), promoting);
      return ended(d.state, { ok: true }, alone);
    };
    const once = failedAfter(0);
    expect(once.state).toMatchObject({
      problem: { reason: 'HistoryAhead' },
      attempts: { promote: 1 },
      retryAt: now + 500,
    });
    expect(failedAfter(3).state.retryAt).toBe(now + 4_000);
    expect(once.commands).toEqual([]);
    expect(write(tick(once.state, { ...alone, now: now + 499, readAt: now + 490 }))).toBeUndefined();
    const again = tick(once.state, { ...alone, now: now + 500, readAt: now + 490 });
    expect(write(again)?.kind).toBe('resume');

    // The start that leads to the next attempt does not hide why there is one; a promotion that succeeds does.
    const ready = { ...promoting, now: now + 600, readAt: now + 590 };
    const start: Operation = { do: 'start', as: 'standby', settings };
    const { problem, problemOf, attempts } = once.state;
    const known = { ...(problem && { problem }), ...(problemOf && { problemOf }), attempts };
    const started = ended(leader(reign, { ...known, ...doing(start) }), { ok: true }, ready);
    expect(started.state.problem?.reason).toBe('HistoryAhead');
    const promoted = ended(leader(reign, { ...known, ...doing(promote) }), { ok: true, lsn: 1n }, ready);
    expect(promoted.state.problem).toBeUndefined();
    expect(promoted.state.attempts.promote).toBe(0);
    // So does somebody else's leadership, once this one follows it.
    const receiver = { status: 'streaming', senderHost: 'x' };
    const world = {
      leader: leaderOf(B, { term: 4 }),
      postgres: standby({ receiver }),
      peers: [proof({ term: 4 })],
    };
    const upstream = { instance: B.instance, address: `address of ${B.instance}` };
    const applied = { synchronousNames: [placeholderName], clientsAllowed: true, generation: 1, upstream };
    const following = decide(follower(known), { kind: 'tick' }, { ...facts(world), applied });
    expect(following.commands).toEqual([]);
    expect(following.state.problem).toBeUndefined();
    expect(following.state.attempts.promote).toBe(0);
  });

  const promoted = () =>
    ended(
      leader({ stage: 'promote' }, doing({ do: 'promote', term: 3, timeline: 3, settings, slots: [] })),
      { ok: true, lsn: 1_500n },
      leading,
    );

  it('is written into the history before it leads', () => {
    const d = promoted();
    expect(write(d)).toMatchObject({
      kind: 'history',
      expectLeader: '40',
      history: { lsn: 1_500n, why: 'a test' },
    });
    expect(answerProbe(d.state, facts(leading)).state).not.toBe('primary');
    const after = answered(d.state, done(), leading);
    expect(answerProbe(after.state, facts(leading))).toMatchObject({
      state: 'primary',
      term: 3,
      openMs: grace,
    });
  });

  it('has the set prepared while that is being written', () => {
    const walsenders = [walsender(C, { syncPriority: 1 })];
    const world: World = { ...leading, postgres: primary(walsenders), applied: [name(C), name(B)] };
    const state = leader(
      { stage: 'history' },
      { syncNames: [name(C), name(B)], ...sent({ kind: 'history' }) },
    );
    expect(tick(state, world).state.joining).toMatchObject({ settledAt: now - 50 });
  });

  it('is not written twice when Postgres is restarted in the same term', () => {
    const history = new Map([
      [3, stamp({ ...A, term: 3, timeline: 3, lsn: '0/1', why: '', at: '', lossAccepted: false }, '9')],
    ]);
    const d = tick(leader({ stage: 'history' }), { ...leading, view: { history } });
    expect(write(d)).toBeUndefined();
    expect(d.state.reign?.stage).toBe('leading');
  });
});

describe('letting clients in', () => {
  const closed = (state: Partial<HaState> = {}) => leader({ open: false, beginLsn: 1_900n }, state);
  const opens = (w: Partial<World>, state: HaState = closed()) =>
    tick(state, { ...leading, ...w }).state.reign?.open;

  it('waits until every name of the set holds what this primary began with', () => {
    expect(opens({ postgres: primary([walsender(B, { flushLsn: 1_899n })]) })).toBe(false);
    expect(opens({ postgres: primary([]) })).toBe(false);
    expect(opens({})).toBe(true);
  });

  it('is also waited for after a restart that promotes', () => {
    const state = leader({ open: false, stage: 'promote' });
    expect(wantedSettings(state, facts(leading)).clientsAllowed).toBe(false);
  });

  it('waits until commits are seen to wait', () => {
    expect(opens({}, closed({ waitProved: false }))).toBe(false);
  });
});

describe('the synchronous set while a change of it is open (R3)', () => {
  it('leaves the names alone until it is known what happened', () => {
    // {B} -> {C} is on its way when C goes away: dropping C's name now would be wrong if the write lands.
    const state = leader(
      {},
      {
        ...sent({ kind: 'sync', sync: { term: 3, mode: 'sync', names: [C] } }),
        syncNames: [name(C), name(B)],
      },
    );
    const d = tick(state, { ...leading, applied: [name(C), name(B)] });
    expect(d.commands).toEqual([]);
    expect(d.state.syncNames).toEqual([name(C), name(B)]);
  });

  it('takes an emptied setting that failed half-way for an empty one (R8)', () => {
    const state = leader({ sync: { term: 3, mode: 'sync', names: [] } });
    const world = { ...leading, config: config({ durability: 'preferred' }), postgres: primary([]) };
    const emptied = tick(state, world);
    expect(operation(emptied)).toMatchObject({ do: 'configure', settings: { synchronousNames: [] } });
    expect(ended(emptied.state, failure(), world).state.waitProved).toBe(false);
  });
});

describe('a crash of Postgres on the leader', () => {
  const crashed: World = { ...leading, postgres: down };

  it('hands over to a living member of the set', () => {
    const d = tick(leader(), crashed);
    expect(write(d)).toMatchObject({ kind: 'vacate', leader: { phase: 'vacated', successor: 'shop-2' } });
    expect(operation(d)).toBeUndefined();
    const after = answered(d.state, done(), crashed);
    expect(after.state.reign).toBeUndefined();
    expect(after.state.fencedTerm).toBe(3);
  });

  it('is not held up by an operation that failed with it', () => {
    expect(write(tick(leader({}, { retryAt: now + 1_000 }), crashed))?.kind).toBe('vacate');
  });

  it('without one starts again in place, with the same names and without clients', () => {
    for (const peers of [[], [answer(B, { dataId: C.dataId })], [answer(B, {}, now - 2_000)]]) {
      const d = tick(leader(), { ...crashed, peers });
      expect(d.state.reign?.stage).toBe('start');
      expect(operation(tick(d.state, { ...crashed, peers }))).toMatchObject({
        do: 'start',
        as: 'primary',
        settings: { synchronousNames: [name(B)], clientsAllowed: false },
      });
    }
  });

  it('that is not ready for long goes silent for a level standby, each time after double the patience', () => {
    const start = doing({ do: 'start', as: 'primary', settings, term: 3, timeline: 3 });
    const starting = (ms: number, change: Partial<HaState> = {}, world: Partial<World> = {}) =>
      tick(leader({ stage: 'start', since: now - ms, goodAt: now - 1_000 }, { ...start, ...change }), {
        ...crashed,
        postgres: { process: 'starting', startedAs: 'primary', since: now - ms, walLost: false },
        ...world,
      });
    expect(write(starting(5_000))?.kind).toBe('heartbeat');
    expect(starting(5_001).commands).toEqual([]);
    expect(starting(5_001).state.problem?.reason).toBe('SlowStart');
    expect(write(starting(10_000, { yielded: 1 }))?.kind).toBe('heartbeat');
    expect(starting(10_001, { yielded: 1 }).commands).toEqual([]);
    // Nobody, or nobody who could be faster.
    for (const peer of [
      answer(B, {}, now - 2_000),
      answer(B, { state: 'unknown' }),
      answer(B, { receivedLsn: 17_000_000n, replayedLsn: 0n }),
    ])
      expect(write(starting(60_000, {}, { peers: [peer] }))?.kind).toBe('heartbeat');
    // It counts when the reign ends, and no more when Postgres leads.
    const fenced = starting(5_001, {}, { now: now + 4_000 });
    expect(operation(fenced)?.do).toBe('fence');
    expect(ended(fenced.state, { ok: true }, crashed).state).toMatchObject({ yielded: 1, fencedTerm: 3 });
    const ready = leader({ stage: 'history' }, { yielded: 2 });
    const history = new Map([[3, stamp({} as never, '41')]]);
    expect(tick(ready, { ...leading, view: { history } }).state.yielded).toBe(0);
  });

  it('after which the volume cannot be looked at goes silent, too', () => {
    const ending = (ms: number): World => ({
      ...leading,
      postgres: { process: 'starting', startedAs: 'primary', since: now - ms, walLost: false },
    });
    expect(write(tick(leader({ goodAt: now - 1_000 }), ending(5_000)))?.kind).toBe('heartbeat');
    expect(tick(leader({ goodAt: now - 1_000 }), ending(5_001)).commands).toEqual([]);
    expect(write(tick(leader({ goodAt: now - 1_000 }), { ...ending(9_000), peers: [] }))?.kind).toBe(
      'heartbeat',
    );
  });

  it('that cannot be started goes silent, ends its reign, and tries again much later', () => {
    const failing = leader(
      { stage: 'start', goodAt: now - 1_500 },
      {
        ...doing({ do: 'start', as: 'primary', settings, term: 3, timeline: 3 }),
        attempts: { start: 2, rewind: 0, clone: 0, promote: 0 },
      },
    );
    const world = { ...crashed, peers: [] };
    const d = ended(failing, failure(), world);
    expect(d.commands).toEqual([]);
    const over = tick(d.state, { ...world, now: now + 5_000 });
    expect(over.state.reign).toBeUndefined();
    expect(over.commands).toEqual([]);
    const later = now + 40_000;
    expect(write(tick(over.state, { ...world, now: later, readAt: later }))?.kind).toBe('resume');
  });
});

describe('switchover', () => {
  const request = (to?: string) => ({
    request: stamp(
      { id: 'r', kind: 'switchover' as const, by: 'kubectl', ...(to === undefined ? {} : { to }) },
      '45',
    ),
  });
  const phase = (
    p: NonNullable<HaState['handover']>['phase'],
    more: Partial<NonNullable<HaState['handover']>> = {},
  ) =>
    leader(
      {},
      {
        handover: { reason: 'asked', requestRevision: '45', phase: p, since: now - 100, target: B, ...more },
      },
    );
  const asked: World = { ...leading, view: request('shop-2') };
  const stopped: World = { ...asked, postgres: down };

  it('is prepared: a member of the set that is near, then a checkpoint', () => {
    const d = tick(leader(), asked);
    expect(d.state.handover).toMatchObject({ phase: 'prepare', target: B });
    const next = tick(d.state, asked);
    expect(next.state.handover?.phase).toBe('checkpoint');
    expect(operation(next)?.do).toBe('checkpoint');
  });

  it('waits for the copies of failover slots, but not for ever', () => {
    const handover = (copies: readonly string[] | undefined, since = now - 100) =>
      tick(phase('prepare', { since }), {
        ...asked,
        postgres: primary([walsender(B, { syncPriority: 1 })], { failoverSlots: ['feed'] }),
        peers: [answer(B, copies === undefined ? {} : { failoverSlots: copies })],
      }).state.handover?.phase;
    expect(handover(undefined)).toBe('prepare');
    expect(handover(['other'])).toBe('prepare');
    expect(handover(['other', 'feed'])).toBe('checkpoint');
    expect(handover(undefined, now - 7_000)).toBe('checkpoint');
  });

  it('first makes the wished standby synchronous, even if the set is complete', () => {
    const both = {
      ...asked,
      view: request('shop-3'),
      postgres: primary([walsender(B), walsender(C, { syncPriority: 0 })]),
    };
    const d = tick(tick(leader(), both).state, both);
    expect(operation(d)).toMatchObject({
      do: 'configure',
      settings: { synchronousNames: [name(C), name(B)] },
    });
  });

  it('apart, the standby of another zone becomes synchronous in place of one of the primary’s', () => {
    const zones = { 'node of shop-1': 'a', 'node of shop-2': 'a', 'node of shop-3': 'b' };
    const both: World = { ...leading, postgres: primary([walsender(B), walsender(C, { syncPriority: 0 })]) };
    expect(operation(tick(leader(), { ...both, config: config({ zones }) }))).toMatchObject({
      do: 'configure',
      settings: { synchronousNames: [name(C), name(B)] },
    });
    const { 'node of shop-1': _, ...unknown } = zones;
    expect(operation(tick(leader(), { ...both, config: config({ zones: unknown }) }))).toBeUndefined();
  });

  it('waits for a target that is far behind', () => {
    const far = { ...asked, postgres: primary([walsender(B, { flushLsn: 0n })], { flushLsn: 1n << 30n }) };
    expect(operation(tick(phase('prepare'), far))).toBeUndefined();
  });

  it('stops Postgres, and goes on only when the target holds the last record', () => {
    const state = ended({ ...phase('checkpoint'), ...doing({ do: 'checkpoint' }) }, { ok: true }, asked);
    expect(operation(state)?.do).toBe('stop');
    const down_ = ended(state.state, { ok: true, lsn: 1_000n }, stopped);
    expect(down_.state.handover).toMatchObject({ phase: 'verify', stoppedAt: 1_000n });
    expect(write(down_)).toBeUndefined();
    const level = { ...stopped, peers: [answer(B, { receivedLsn: 1_001n })] };
    expect(write(tick(down_.state, level))).toMatchObject({
      kind: 'vacate',
      leader: { phase: 'vacated', successor: 'shop-2', reason: 'asked' },
      deleteRequest: true,
    });
  });

  it('does not believe a target of other data, nor an end of WAL that it does not know', () => {
    const level = (more: Partial<PeerAnswer>) => ({
      ...stopped,
      peers: [answer(B, { receivedLsn: 1_001n, ...more })],
    });
    expect(write(tick(phase('verify', { stoppedAt: 1_000n }), level({ dataId: C.dataId })))).toBeUndefined();
    expect(write(tick(phase('verify'), level({})))).toBeUndefined();
  });

  it('after an unknown answer and the barrier verifies again', () => {
    expect(tick(phase('vacate'), stopped).state.handover?.phase).toBe('verify');
    const barrier = { ...phase('vacate'), ...leader({ barrier: true }), handover: phase('vacate').handover };
    expect(tick(barrier as HaState, stopped).state.handover?.phase).toBe('vacate');
  });

  const backAfter = { prepare: 10_001, checkpoint: 300_001, verify: 5_001, vacate: 5_001 } as const;
  it.each(Object.entries(backAfter))('has a way back from %s', (p, ms) => {
    const isUp = p === 'prepare' || p === 'checkpoint';
    const world = isUp ? asked : stopped;
    const d = tick(phase(p as keyof typeof backAfter, { since: now - ms }), world);
    expect(d.state.handover).toBeUndefined();
    expect(d.commands).toContainEqual(expect.objectContaining({ kind: 'refuse-request', revision: '45' }));
    expect(d.state.problem?.reason).toBe('SwitchoverFailed');
    expect(d.state.refusedRequest).toMatchObject({
      revision: '45',
      because: expect.stringContaining('the primary stays'),
      term: d.state.reign?.term,
    });
    if (!isUp) expect(operation(tick(d.state, stopped))).toMatchObject({ do: 'start', as: 'primary' });
    // The request may still be there: it is not begun anew.
    else expect(tick(d.state, asked).state.handover).toBeUndefined();
  });

  it.each(['checkpoint', 'stop'] as const)('has a way back when the %s fails', (step) => {
    const d = ended({ ...phase(step), ...doing({ do: step }) }, failure(), asked);
    expect(d.state.handover).toBeUndefined();
    expect(d.state.reign?.stage).toBe('leading');
  });

  it('to itself or to nobody known is refused, and nothing else is held up', () => {
    for (const to of ['shop-1', 'shop-9']) {
      const world = { ...leading, view: request(to), applied: [name(C)] };
      const d = tick(leader(), world);
      expect(d.commands[0]).toMatchObject({ kind: 'refuse-request', revision: '45' });
      expect(d.state.refusedRequest?.because).toContain(to);
      expect(operation(d)?.do).toBe('configure');
    }
  });

  it('to an instance that may not lead is refused', () => {
    const barred = config({ instances: { 'shop-2': { noFailover: true } } });
    const d = tick(leader(), { ...leading, view: request('shop-2'), config: barred });
    expect(d.commands[0]).toMatchObject({ kind: 'refuse-request', revision: '45' });
    expect(d.state.refusedRequest?.because).toContain('noFailover');
  });

  it('in async mode goes to a standby that streams', () => {
    const world: World = {
      ...asked,
      config: config({ synchronous: 0 }),
      sync: { mode: 'async', names: [] },
      postgres: primary([walsender(C)]),
      view: request(),
    };
    const d = tick(leader({ sync: { term: 3, mode: 'async', names: [] } }, { syncNames: [] }), world);
    expect(tick(d.state, world).state.handover).toMatchObject({ phase: 'checkpoint', target: C });
  });
});

describe('SIGTERM', () => {
  const stop = { stopRequested: true };

  it('on a leader hands over', () => {
    expect(tick(leader(), { ...leading, ...stop }).state.handover).toMatchObject({ phase: 'prepare' });
  });

  it('on a leader without a living standby stops, gives the place up, and leaves', () => {
    const world = { ...leading, ...stop, peers: [], postgres: primary([]) };
    const d = tick(leader(), world);
    expect(operation(d)?.do).toBe('stop');
    const off = { ...world, postgres: down };
    const next = ended(d.state, { ok: true, lsn: 5n }, off);
    expect(write(next)).toMatchObject({ kind: 'vacate', leader: { phase: 'vacated' } });
    expect(kinds(answered(next.state, done(), off))).toEqual(['exit']);
  });

  it('on a leader whose hand-over fails stops all the same', () => {
    const state = leader({}, { handover: { reason: '', phase: 'prepare', since: now - 10_001 } });
    expect(operation(tick(state, { ...leading, ...stop }))?.do).toBe('stop');
  });

  it('on a standby stops it and leaves', () => {
    const world = { leader: leaderOf(B), ...stop };
    expect(operation(tick(follower(), world))?.do).toBe('stop');
    expect(kinds(tick(follower(), { ...world, postgres: down }))).toEqual(['exit']);
  });
});

describe('what takes long', () => {
  const from = (m: MemberRef) => ({ instance: m.instance, address: `address of ${m.instance}` });
  const following = (m: MemberRef) => ({ ...settings, upstream: from(m) });
  const starting: PostgresFacts = {
    process: 'starting',
    startedAs: 'standby',
    since: now - 100,
    walLost: false,
  };
  const world: World = { leader: leaderOf(B), postgres: starting, peers: [proof()] };
  const upstreamOps = (m: MemberRef): Operation[] => [
    { do: 'start', as: 'standby', settings: following(m) },
    { do: 'clone', upstream: from(m) },
    { do: 'rewind', upstream: from(m) },
  ];

  it('goes on while its source leads', () => {
    for (const o of upstreamOps(B)) expect(tick(follower(doing(o)), world).commands).toEqual([]);
  });

  it('ends when somebody else leads, and an order to clone is not done by that', () => {
    for (const o of upstreamOps(C)) {
      const d = tick(follower({ ...doing(o), commandId: 'order' }), world);
      expect(operation(d)).toEqual({ do: 'stop' });
      const after = ended(d.state, { ok: true }, { ...world, postgres: down });
      expect(kinds(after)).toEqual(['operate']);
      expect(operation(after)).toMatchObject({ do: 'start', settings: { upstream: from(B) } });
    }
    const moved = { ...world, leader: leaderOf(B, { address: 'elsewhere' }) };
    for (const o of upstreamOps(B)) expect(operation(tick(follower(doing(o)), moved))?.do).toBe('stop');
  });

  it('of a standby that is to stream from another one goes on from either, not from a third', () => {
    const cascading = follower({
      cascade: { instance: C.instance, since: now - 10_000, goodAt: now - 100, wholeAt: now - 100 },
    });
    const options = config({ instances: { [A.instance]: { streamFrom: C.instance } } });
    const streams: World = {
      ...world,
      config: options,
      peers: [proof(), answer(C, { streamsFrom: B.instance })],
    };
    const begun = (m: MemberRef) => ({
      ...cascading,
      ...doing({ do: 'start', as: 'standby', settings: following(m) }),
    });
    for (const m of [B, C]) expect(tick(begun(m), streams).commands).toEqual([]);
    expect(operation(tick(begun(ref(4)), streams))).toEqual({ do: 'stop' });
    expect(operation(tick(begun(C), { ...streams, leader: leaderOf(B), peers: [proof()] }))).toBeUndefined();
    const gone = { ...streams, now: now + 1_500, peers: [proof()] };
    expect(operation(tick(begun(C), gone))).toEqual({ do: 'stop' });
  });

  it('ends when this instance is to stop', () => {
    for (const o of upstreamOps(B)) {
      const d = tick(follower(doing(o)), { ...world, stopRequested: true });
      expect(operation(d)?.do).toBe('stop');
      expect(tick(d.state, { ...world, stopRequested: true }).commands).toEqual([]);
      const after = ended(d.state, { ok: true }, { ...world, postgres: down, stopRequested: true });
      expect(kinds(after)).toEqual(['exit']);
    }
    for (const as of ['primary', 'standby'] as const) {
      const start: Operation = { do: 'start', as, settings, term: 3, timeline: 3 };
      const stage = as === 'primary' ? 'start' : 'promote';
      const stopping = { ...leading, postgres: { ...starting, startedAs: as }, stopRequested: true };
      const d = tick(leader({ stage }, doing(start)), stopping);
      expect(operation(d)?.do).toBe('stop');
      const after = ended(d.state, { ok: true }, { ...stopping, postgres: down });
      expect(write(after)?.leader.phase).toBe('vacated');
    }
  });

  it('does not keep a reign past its deadline: the next leader is followed', () => {
    const start: Operation = { do: 'start', as: 'standby', settings };
    const d = tick(leader({ stage: 'promote', deadline: now }, doing(start)), {
      ...leading,
      postgres: starting,
    });
    expect(d.state.reign).toBeUndefined();
    expect(d.commands).toEqual([]);
    expect(operation(tick(d.state, { ...world, leader: leaderOf(B, { term: 4 }) }))?.do).toBe('stop');
  });

  it('is told', () => {
    const start: Operation = { do: 'start', as: 'standby', settings: following(B) };
    const early = tick(follower(doing(start)), { ...world, now: now + 59_000 });
    expect(early.state.problem).toBeUndefined();
    const late = tick(follower(doing(start)), { ...world, now: now + 60_000 });
    expect(late.state.problem?.reason).toBe('StartIsSlow');
    expect(ended(late.state, { ok: true }, { ...world, postgres: standby() }).state.problem).toBeUndefined();
  });

  it('and cannot even be stopped is fenced', () => {
    const stopping = follower({ ...doing({ do: 'stop' }), attempts: follower().attempts });
    const d = ended(stopping, failure('StopTimeout'), world);
    expect(d.commands).toEqual([]);
    expect(operation(tick(d.state, { ...world, now: now + 5_000 }))?.do).toBe('fence');
  });
});

describe('a standby that is to replay late', () => {
  const options = config({ instances: { [A.instance]: { noFailover: true, applyDelaySeconds: 3_600 } } });
  const delay = (w: World) => wantedSettings(follower(), facts(w)).applyDelaySeconds;

  it('does, but not while it confirms commits', () => {
    expect(delay({ config: options, leader: leaderOf(B) })).toBe(3_600);
    expect(delay({ config: options, leader: leaderOf(B), sync: { names: [A] } })).toBeUndefined();
    expect(delay({ config: config(), leader: leaderOf(B) })).toBeUndefined();
    expect(wantedSettings(leader(), facts({ config: options })).applyDelaySeconds).toBeUndefined();
  });

  it('is not started anew for not streaming while it waits with what it has', () => {
    const world = (waitsToApply: boolean): World => ({
      config: options,
      leader: leaderOf(B),
      peers: [proof()],
      applied: [placeholderName],
      postgres: { ...standby(waitsToApply ? { waitsToApply } : {}), since: now - 120_000 },
    });
    const silent = follower({ streamedAt: now - 61_000 });
    expect(operation(tick(silent, world(false)))?.do).toBe('stop');
    expect(operation(tick(silent, world(true)))?.do).not.toBe('stop');
  });
});

describe('rejoining', () => {
  const forked = { timeline: 2, receivedLsn: 1_200n, replayedLsn: 1_200n };
  const ancestors = [{ timeline: 2, end: 1_100n }];
  const world: World = {
    leader: leaderOf(B),
    postgres: standby(forked),
    peers: [proof({ ancestors })],
    applied: [placeholderName],
  };
  const diverged = (change: Partial<HaState> = {}) =>
    follower({ diverged: { term: 3, since: now - 1_000 }, ...change });
  const tried = (rewind: number) => diverged({ attempts: { start: 0, rewind, clone: 0, promote: 0 } });

  it('tells a fork from a branch point that is yet to come', () => {
    const p = { timeline: 3, ancestors };
    expect(divergence({ timeline: 3 }, p)).toBeUndefined();
    const received = { timeline: 2, receivedTimeline: 2 };
    expect(divergence({ ...received, receivedLsn: 1_100n }, p)).toBeUndefined();
    expect(divergence({ ...received, receivedLsn: 1_101n }, p)).toContain('0/44D');
    expect(divergence({ timeline: 2, receivedLsn: 5n, replayedLsn: 1_101n }, p)).toBeDefined();
    expect(divergence({ timeline: 7, receivedLsn: 5n }, p)).toContain('not in the history');
  });

  it('takes a standby that has received the new timeline and still replays the old one for no fork', () => {
    const p = { timeline: 3, ancestors };
    const replaying = { timeline: 2, receivedLsn: 5_000n, replayedLsn: 900n };
    expect(divergence({ ...replaying, receivedTimeline: 3 }, p)).toBeUndefined();
    // Without a receiver it is not known which timeline was received.
    expect(divergence(replaying, p)).toBeUndefined();
    expect(divergence({ ...replaying, replayedLsn: 1_101n }, p)).toBeDefined();
  });

  it('rewinds what has forked, from a primary that proves itself and has its checkpoint', () => {
    expect(operation(tick(diverged(), world))).toMatchObject({
      do: 'rewind',
      upstream: { instance: 'shop-2' },
    });
    expect(operation(tick(diverged(), { ...world, peers: [answer(B, { ancestors })] }))?.do).not.toBe(
      'rewind',
    );
    const early = tick(diverged(), { ...world, peers: [proof({ ancestors, checkpointed: false })] });
    expect(operation(early)?.do).not.toBe('rewind');
    expect(early.state.problem?.reason).toBe('Diverged');
  });

  it('is not rewound while it is counted on and somebody else can be: half-way through it holds nothing', () => {
    const counted: World = { ...world, sync: { names: [A] }, peers: [proof({ ancestors }), answer(C)] };
    const waits = tick(diverged(), counted);
    expect(operation(waits)?.do).not.toBe('rewind');
    expect(waits.state.problem?.message).toContain('replaced it in the synchronous set');
    const rewinds = (w: Partial<World>, since = now - 1_000) =>
      operation(tick(diverged({ diverged: { term: 3, since } }), { ...counted, ...w }))?.do === 'rewind';
    expect(rewinds({ sync: { names: [C] } })).toBe(true);
    // Nobody could take its place, or nobody does.
    expect(rewinds({ peers: [proof({ ancestors })] })).toBe(true);
    expect(rewinds({ sync: { names: [A, C] } })).toBe(true);
    expect(rewinds({}, now - 5_000)).toBe(true);
  });

  it('waits whether it goes on looking forked from this leader', () => {
    const at = (ms: number): World => ({
      ...world,
      now: now + ms,
      postgres: standby({ ...forked, at: now + ms }),
      peers: [[B.instance, { ...proof({ ancestors })[1], at: now + ms }]],
    });
    const seen = ({ state }: Decision) => (state.diverged === undefined ? {} : { diverged: state.diverged });
    const first = tick(follower(), world);
    expect(operation(first)?.do).not.toBe('rewind');
    expect(operation(tick(follower(seen(first)), at(999)))?.do).not.toBe('rewind');
    expect(operation(tick(follower(seen(first)), at(1_000)))?.do).toBe('rewind');
    const level = tick(follower(seen(first)), { ...at(500), postgres: standby({ at: now + 500 }) });
    expect(operation(tick(follower(seen(level)), at(1_000)))?.do).not.toBe('rewind');
    const other = { leader: leaderOf(B, { term: 4 }), peers: [proof({ ancestors, term: 4 })] };
    expect(operation(tick(diverged(), { ...world, ...other }))?.do).not.toBe('rewind');
  });

  it('leaves a standby that streams alone', () => {
    const receiver = { status: 'streaming', senderHost: 'b' };
    expect(
      operation(tick(diverged(), { ...world, postgres: standby({ ...forked, receiver }) }))?.do,
    ).not.toBe('rewind');
  });

  it('clones after two rewinds that did not help, whether they failed or not', () => {
    for (const outcome of [failure(), { ok: true as const }]) {
      const rewinding = {
        ...tried(1),
        ...doing({ do: 'rewind', upstream: { instance: 'shop-2', address: 'b' } }),
      };
      const d = ended(rewinding, outcome, { ...world, postgres: down });
      expect(d.state.attempts.rewind).toBe(2);
    }
    expect(operation(tick(tried(1), world))?.do).toBe('rewind');
    expect(operation(tick(tried(2), world))?.do).toBe('clone');
    const receiver = { status: 'streaming', senderHost: 'b' };
    expect(tick(tried(2), { ...world, postgres: standby({ receiver }) }).state.attempts.rewind).toBe(0);
  });

  it('clones at once what cannot be rewound', () => {
    const rewinding = {
      ...tried(0),
      ...doing({ do: 'rewind', upstream: { instance: 'shop-2', address: 'b' } }),
    };
    const d = ended(rewinding, failure('RewindImpossible', { needsClone: true }), {
      ...world,
      postgres: down,
    });
    expect(operation(tick({ ...d.state, operation: undefined as never, retryAt: 0 }, world))?.do).toBe(
      'clone',
    );
  });

  it('clones a tainted or empty volume and a standby whose WAL is gone, from a proven primary only', () => {
    const needy: World[] = [
      { ...world, volume: { state: 'tainted', why: 'x' }, postgres: down },
      { ...world, volume: { state: 'empty' }, postgres: down },
      { ...world, postgres: { ...standby(), walLost: true } },
    ];
    for (const w of needy) {
      expect(operation(tick(follower(), w))?.do).toBe('clone');
      const unproven = tick(follower(), { ...w, peers: [answer(B)] });
      expect(operation(unproven)?.do).not.toBe('clone');
      expect(unproven.state.problem?.reason).toBe('WaitingForPrimary');
    }
  });

  it('never starts data of another cluster', () => {
    const d = tick(follower(), { ...world, volume: volume({ systemIdentifier: '78' }), postgres: down });
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('ForeignData');
  });

  it('says how often a clone failed, and waits longer each time, but never for ever', () => {
    const empty: World = { ...world, volume: { state: 'empty' }, postgres: down };
    const failedOnce = (clone: number, reason = 'ProgramFailed') =>
      ended(
        follower({
          ...doing({ do: 'clone', upstream: { instance: B.instance, address: '' } }),
          attempts: { start: 0, rewind: 0, clone, promote: 0 },
        }),
        failure(reason),
        empty,
      ).state;
    expect(failedOnce(0)).toMatchObject({ cloneAfter: now + 1_000, attempts: { clone: 1 } });
    expect(failedOnce(30).cloneAfter).toBe(now + 300_000);
    expect(failedOnce(2).problem).toEqual({
      reason: 'CloneFailed',
      message: 'attempt 3 to clone failed (ProgramFailed), the next is in 4 s: it failed',
    });
    expect(failedOnce(2, 'NotEnoughSpace').problem?.reason).toBe('NotEnoughSpace');
    expect(operation(tick(failedOnce(2), { ...empty, now: now + 3_999 }))).toBeUndefined();
    const later = {
      ...empty,
      now: now + 4_000,
      peers: [answer(B, { state: 'primary', term: 3, openMs: 3_000 }, now + 3_900)],
    };
    expect(operation(tick(failedOnce(2), later))?.do).toBe('clone');
  });

  it('does not count a rewind that the primary could not yet serve', () => {
    const rewinding = follower(doing({ do: 'rewind', upstream: { instance: B.instance, address: '' } }));
    const twice = ended(
      {
        ...ended(rewinding, failure('RewindPostponed'), world).state,
        ...doing({ do: 'rewind', upstream: { instance: B.instance, address: '' } }),
      },
      failure('RewindPostponed'),
      world,
    ).state;
    expect(twice.attempts.rewind).toBe(0);
    expect(ended(rewinding, failure(), world).state.attempts.rewind).toBe(1);
  });

  it('starts as a standby, and goes on trying while nobody could be cloned from', () => {
    const off = { ...world, postgres: down };
    expect(operation(tick(follower(), off))).toMatchObject({
      do: 'start',
      as: 'standby',
      settings: { upstream: { instance: 'shop-2' } },
    });
    const failing = follower({ attempts: { start: 5, rewind: 0, clone: 0, promote: 0 } });
    expect(operation(tick(failing, off))?.do).toBe('clone');
    expect(operation(tick(failing, { ...off, peers: [] }))?.do).toBe('start');
    // A copy that does not start either is not made again: it is not the data.
    expect(operation(tick({ ...failing, freshCopy: true }, off))?.do).toBe('start');
    expect(tick({ ...failing, retryAt: now + 1 }, off).commands).toEqual([]);
  });

  it('starts what is there again between copies that fail: its volume may have been enlarged', () => {
    const off = { ...world, postgres: down };
    const copying = follower({
      ...doing({ do: 'clone', upstream: { instance: B.instance, address: '' } }),
      attempts: { start: 5, rewind: 0, clone: 8, promote: 0 },
    });
    const failed = ended(copying, failure('NotEnoughSpace'), off).state;
    const at = (ms: number) => ({
      ...off,
      now: now + ms,
      peers: [answer(B, { state: 'primary', term: 3, openMs: 3_000 }, now + ms - 50)],
    });
    expect(tick(failed, at(29_999)).commands).toEqual([]);
    expect(operation(tick(failed, at(30_000)))?.do).toBe('start');
    expect(operation(tick(failed, at(300_000)))?.do).toBe('clone');
  });

  it('is not copied because its disk is full, and started when there is room', () => {
    const off = { ...world, postgres: down };
    const start = doing({ do: 'start', as: 'standby', settings });
    let state = follower();
    for (let i = 0; i < 9; i++) {
      state = ended({ ...state, ...start }, failure('DiskFull'), off).state;
      expect(tick(state, { ...off, now: now + 4_999 }).commands).toEqual([]);
      expect(operation(tick(state, { ...off, now: now + 5_000 }))?.do).toBe('start');
    }
    expect(state.problem?.reason).toBe('DiskFull');
  });

  it('on a leader whose disk is full leaves the place to others at once', () => {
    const reign: Partial<Reign> = { stage: 'start', goodAt: now - 1_000, open: false };
    const starting = leader(reign, doing({ do: 'start', as: 'primary', settings, term: 3, timeline: 3 }));
    const d = ended(starting, failure('DiskFull'), { ...leading, postgres: down });
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('DiskFull');
  });

  it('stands still when etcd holds what cannot be read', () => {
    const invalid = [{ key: '/koschei/ns/shop/id/sync', problem: 'is not JSON' }];
    const d = tick(follower(), { ...world, view: { invalid } });
    expect(d.commands).toEqual([]);
    expect(d.state.problem?.reason).toBe('InvalidState');
  });
});

describe('a leader at whose address nobody listens any more', () => {
  const refused = { since: now - 200, times: 3 };
  const [, lately] = answer(B, { state: 'primary', term: 3, openMs: 4_000 }, now - 250);
  /** A is in the set, and B proved that it leads a moment ago. */
  const world = (change: Partial<PeerFacts>, o: Partial<Observation> = {}): World => ({
    leader: leaderOf(B),
    sync: { names: [A] },
    peers: [[B.instance, { ...lately, ...change }]],
    postgres: standby(o),
  });
  const state = follower({
    leaderSeen: { revision: '40', at: now - 300 },
    proofAt: now - 250,
    provedTerm: 3,
  });

  it('is taken from without waiting for silence', () => {
    expect(operation(tick(state, world({ refused })))?.do).toBe('stop-receiver');
  });

  it('is not after a refusal or two, nor while WAL comes', () => {
    expect(tick(state, world({ refused: { ...refused, times: 2 } })).state.takeover).toBeUndefined();
    expect(tick(state, world({ refused: { ...refused, since: now - 100 } })).state.takeover).toBeUndefined();
    const receiver = { status: 'streaming', senderHost: 'b' };
    expect(tick(state, world({ refused }, { receiver })).state.takeover).toBeUndefined();
    expect(tick(state, world({ refused }, { at: now - 300 })).state.takeover).toBeUndefined();
  });

  it('is waited for like any other where its ttl must be over', () => {
    const strict = { ...world({ refused }), config: config({ fencing: 'strict' }) };
    expect(tick(state, strict).state.takeover).toBeUndefined();
  });
});

describe('a primary that reaches no standby', () => {
  const members = (reaches: string[]) =>
    new Map(
      [A, B, C].map((m) => [m.instance, stamp({ ...memberOf(m), ...(m === B ? { reaches } : {}) }, '5')]),
    );
  /** Commits wait; B, which is in the set, says in etcd whom it reaches. */
  const cutOff = (reaches: string[], change: World = { leader: leaderOf(A) }): World => ({
    ...leading,
    postgres: primary([walsender(B)], { commitWaitMs: 2_500 }),
    peers: [answer(B, {}, now - 4_000), answer(C, {}, now - 4_000)],
    ...change,
    view: { members: members(reaches) },
  });

  it('leaves for a member of the set that reaches another instance, which need not answer', () => {
    const d = tick(leader(), cutOff(['shop-3']));
    expect(d.state.handover).toMatchObject({ phase: 'stop', target: B, unreachable: true });
    const stopping = tick(d.state, cutOff(['shop-3']));
    expect(operation(stopping)?.do).toBe('stop');
    const after = { ...cutOff(['shop-3']), postgres: down };
    const stopped = ended(stopping.state, { ok: true, lsn: 2_100n }, after);
    expect(write(tick(stopped.state, after)) ?? write(stopped)).toMatchObject({
      kind: 'vacate',
      leader: { phase: 'vacated', successor: 'shop-2' },
    });
  });

  it('stays where nobody reaches more than it does, where somebody answers, in a pause, and for a while after', () => {
    const stays = (state: HaState, world: World) => expect(tick(state, world).state.handover).toBeUndefined();
    stays(leader(), cutOff([]));
    stays(leader(), cutOff(['shop-1']));
    stays(leader(), cutOff(['shop-3'], { leader: leaderOf(A), peers: [answer(C)] }));
    stays(leader({}, { leftAt: now - 30_000 }), cutOff(['shop-3']));
    const paused = config({ paused: { until: '2030-01-01T00:00:00Z', forMs: 60_000 } });
    stays(leader(), cutOff(['shop-3'], { leader: leaderOf(A), config: paused }));
    const patient = primary([walsender(B)], { commitWaitMs: 1_900 });
    stays(leader(), cutOff(['shop-3'], { leader: leaderOf(A), postgres: patient }));
  });
});

describe('a state that was restored from an old copy', () => {
  const old = { problem: { reason: 'StateOlderThanData' } };
  const newer = { volume: volume({ promotedTerm: 5, timeline: 5 }), postgres: standby({ timeline: 5 }) };

  it('gives nobody the place who was promoted, or is on a timeline, after it', () => {
    const mine = tick(follower(), { leader: leaderOf(A), sync: { names: [B] }, ...newer });
    expect(mine.commands).toEqual([]);
    expect(mine.state).toMatchObject(old);
    const onlyTimeline = { ...newer, volume: volume({ promotedTerm: 3, timeline: 5 }) };
    expect(
      tick(follower(), { leader: leaderOf(A), sync: { names: [B] }, ...onlyTimeline }).state,
    ).toMatchObject(old);
    const silent: World = { leader: leaderOf(B), sync: { names: [A] }, ...newer };
    const d = tick(follower({ leaderSeen: { revision: '40', at: now - 60_000 } }), silent);
    expect(d.commands).toEqual([]);
    expect(d.state).toMatchObject(old);
  });

  it('has nothing rewound or cloned but what a person orders, and is forgotten when it is up to date again', () => {
    const world: World = { leader: leaderOf(B), sync: { names: [] }, peers: [proof()], ...newer };
    const looked = follower({
      diverged: { term: 3, since: now - 10_000 },
      attempts: { ...follower().attempts, rewind: 2 },
    });
    const d = tick(looked, world);
    expect(d.commands).toEqual([]);
    const order = { commands: new Map([['shop-1', stamp({ id: 'o', do: 'reclone' as const }, '45')]]) };
    expect(operation(tick(d.state, { ...world, view: order }))?.do).toBe('clone');
    const later = leaderOf(B, { term: 6, timeline: 6 });
    expect(tick(d.state, { ...world, leader: later, peers: [] }).state.problem?.reason).not.toBe(
      'StateOlderThanData',
    );
  });

  it('ends a reign: an older set of synchronous standbys is never gone on with', () => {
    const refused: TransactionOutcome = {
      kind: 'refused',
      leader: stamp(leaderOf(A, { beat: 2 }), '35'),
      sync: stamp({ term: 3, mode: 'sync', names: [C] }, '34'),
    };
    const d = answered(leader({}, sent()), refused, leading);
    expect(operation(d)?.do).toBe('fence');
    expect(d.state.reign).toBeUndefined();
    const { operation: _fence, ...after } = d.state;
    const restored: World = { ...leading, view: { leader: stamp(leaderOf(A), '35') }, postgres: down };
    expect(tick(after, restored).commands).toEqual([]);
    expect(tick(after, restored).state).toMatchObject(old);
  });

  it('is seen by everybody whose view went back, until the cluster is founded anew', () => {
    const seen = follower({ leaderSeen: { revision: '40', at: now, initialize: '2' } });
    const back: World = { leader: leaderOf(B), view: { leader: stamp(leaderOf(B), '20') } };
    const d = tick(seen, back);
    expect(d.state).toMatchObject(old);
    expect(tick(d.state, { ...back, view: { leader: stamp(leaderOf(B), '90') } }).state).toMatchObject(old);
    const founded = {
      leader: stamp(leaderOf(B, { term: 9, timeline: 9 }), '12'),
      initialize: stamp({ systemIdentifier: '77', by: 'shop-2' }, '11'),
    };
    expect(tick(d.state, { ...back, view: founded }).state.stateLost).toBeUndefined();
    // Gone and founded at lower revisions is no old copy.
    const gone = tick(seen, { leader: undefined, view: {} });
    expect(tick(gone.state, { ...back, view: founded }).state.stateLost).toBeUndefined();
  });
});

describe('an order of the operator', () => {
  const order = (what: 'restart' | 'reclone', id = 'o1') => ({
    view: { commands: new Map([['shop-1', stamp({ id, do: what }, '8')]]) },
  });
  const following: World = { leader: leaderOf(B), peers: [proof()], applied: [placeholderName] };
  const follow = follower();

  it('restarts a standby', () => {
    const d = tick(follow, { ...following, ...order('restart') });
    expect(operation(d)?.do).toBe('stop');
    const off = { ...following, ...order('restart'), postgres: down };
    const next = ended(d.state, { ok: true }, off);
    expect(next.commands).toContainEqual(
      expect.objectContaining({ kind: 'finish-command', commandId: 'o1' }),
    );
    expect(operation(next)).toMatchObject({ do: 'start', as: 'standby' });
    // Still there, because etcd is slow: once is enough.
    const again = tick(
      { ...next.state, operation: undefined as never },
      { ...following, ...order('restart') },
    );
    expect(operation(again)?.do).not.toBe('stop');
    expect(operation(tick(again.state, { ...following, ...order('restart', 'o2') }))?.do ?? 'busy').not.toBe(
      'start',
    );
  });

  it('restarts a leader in place, keeping its place', () => {
    const world = { ...leading, ...order('restart') };
    const d = tick(leader(), world);
    expect(operation(d)?.do).toBe('stop');
    const next = ended(d.state, { ok: true, lsn: 1n }, { ...world, postgres: down });
    expect(kinds(next)).toContain('finish-command');
    expect(operation(next)).toMatchObject({
      do: 'start',
      as: 'primary',
      settings: { clientsAllowed: false },
    });
    expect(write(next)).toBeUndefined();
  });

  it('that failed is tried again later', () => {
    const d = tick(follow, { ...following, ...order('restart') });
    const next = ended(d.state, failure(), { ...following, ...order('restart') });
    expect(operation(next)?.do).not.toBe('stop');
    const later = now + 1_500;
    const world = {
      ...following,
      ...order('restart'),
      now: later,
      readAt: later,
      postgres: standby({ at: later }),
      peers: [['shop-2', { at: later, answer: proof()[1].answer }]] as [string, PeerFacts][],
    };
    expect(
      operation(
        tick(
          { ...next.state, operation: undefined as never, leaderSeen: { revision: '40', at: later } },
          world,
        ),
      )?.do,
    ).toBe('stop');
  });

  it('clones a standby when a primary can be cloned from, and waits until then', () => {
    const waiting = tick(follow, { ...following, ...order('reclone'), peers: [answer(B)] });
    expect(operation(waiting)?.do).not.toBe('clone');
    expect(waiting.state.commandId).toBeUndefined();
    const d = tick(follow, { ...following, ...order('reclone') });
    expect(operation(d)?.do).toBe('clone');
    expect(
      kinds(ended(d.state, { ok: true }, { ...following, ...order('reclone'), postgres: down })),
    ).toContain('finish-command');
  });

  it('never clones a primary', () => {
    const d = tick(leader(), { ...leading, ...order('reclone') });
    expect(kinds(d)).toEqual(['finish-command']);
    expect(tick(d.state, { ...leading, ...order('reclone') }).commands).toEqual([]);
  });
});
