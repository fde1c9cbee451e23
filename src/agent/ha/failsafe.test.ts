import { describe, expect, it } from 'vitest';
import {
  type ConfigValue,
  defaultTiming,
  emptyView,
  type LeaderValue,
  leaderGraceMs,
  type MemberRef,
  type SyncValue,
} from '../../dcs/index.ts';
import { eligibility } from './candidate.ts';
import { decide, initialState } from './decide.ts';
import type {
  Facts,
  HaState,
  LeaderWrite,
  PeerAnswer,
  PostgresFacts,
  PromiseAnswer,
  PromiseFacts,
  PromiseRequest,
  Reign,
  Written,
} from './facts.ts';
import { failsafeProblem, givePromise, hasPromised, promisesToAsk, whoMustPromise } from './failsafe.ts';
import { eitherWritten, writtenBy } from './leader-write.ts';
import { noDataId } from './names.ts';

const now = 1_000_000;
const { ttlMs } = defaultTiming;
const grace = leaderGraceMs(defaultTiming);
const ref = (i: number): MemberRef => ({ instance: `shop-${i}`, dataId: String(i).repeat(16) });
const [A, B, C, D] = [ref(1), ref(2), ref(3), ref(4)] as const;
const boot = (m: MemberRef) => `boot-of-${m.instance}`;

const config: ConfigValue = {
  generation: 1,
  synchronous: 1,
  durability: 'required',
  fencing: 'strict',
  timing: defaultTiming,
  members: [A, B, C, D].map((m) => m.instance),
  parameters: {},
  hba: [],
  logLevel: 'info',
};

/** A leads term 3. */
const key: LeaderValue = {
  ...A,
  bootId: boot(A),
  term: 3,
  timeline: 3,
  phase: 'leading',
  beat: 7,
  address: 'address of shop-1',
  ttlMs,
  members: [A, B, C],
};

function running(inRecovery: boolean): PostgresFacts {
  return {
    process: 'running',
    startedAs: inRecovery ? 'standby' : 'primary',
    since: now - 60_000,
    walLost: false,
    observation: {
      at: now - 50,
      inRecovery,
      timeline: 3,
      flushLsn: 1_000n,
      receivedLsn: 1_000n,
      replayedLsn: 1_000n,
      walsenders: [],
      commitWaitMs: 0,
      pendingRestart: [],
      overridden: [],
    },
  };
}

interface World {
  readonly me?: MemberRef;
  readonly at?: number;
  readonly leader?: Partial<LeaderValue> | 'none';
  readonly sync?: Partial<SyncValue>;
  readonly config?: Partial<ConfigValue>;
  readonly promises?: readonly [string, PromiseFacts][];
  readonly peers?: readonly PeerAnswer[];
  readonly change?: Partial<Facts>;
}

function facts(w: World = {}): Facts {
  const me = w.me ?? A;
  const at = w.at ?? now;
  return {
    now: at,
    me: { clusterId: 'c-1', instance: me.instance, bootId: boot(me), address: 'a', node: 'n' },
    volume: {
      state: 'ready',
      dataId: me.dataId,
      systemIdentifier: '77',
      bootstrap: false,
      promotedTerm: me === A ? 3 : 0,
      timeline: 3,
    },
    storage: [],
    dcs: {
      view: {
        ...emptyView,
        initialize: { value: { systemIdentifier: '77', by: 'shop-1' }, revision: '1' },
        config: { value: { ...config, ...w.config }, revision: '2' },
        ...(w.leader === 'none' ? {} : { leader: { value: { ...key, ...w.leader }, revision: '40' } }),
        sync: { value: { term: 3, mode: 'sync', names: [B], ...w.sync }, revision: '30' },
      },
      readAt: at - 10,
    },
    postgres: { ...running(me !== A), observation: { ...observed(me !== A), at: at - 50 } },
    peers: new Map((w.peers ?? []).map((answer) => [answer.instance, { at: at - 20, answer }])),
    promises: new Map(w.promises ?? []),
    stopRequested: false,
    ...w.change,
  };
}

function observed(inRecovery: boolean) {
  const { observation } = running(inRecovery);
  if (observation === undefined) throw new Error('it is running');
  return observation;
}

const written: Written = { members: [A, B, C], names: [B], async: false, ttlMs };

/** A leads, its last heartbeat was sent three seconds ago, and the newest has had no answer. */
function leader(reign: Partial<Reign> = {}, change: Partial<HaState> = {}): HaState {
  const goodAt = now - 3_000;
  return {
    ...initialState(now - 60_000),
    leaderSeen: { revision: '40', at: goodAt },
    reign: {
      term: 3,
      timeline: 3,
      revision: '40',
      barrier: true,
      deadline: goodAt + grace,
      goodAt,
      timing: defaultTiming,
      written,
      beat: 7,
      sync: { term: 3, mode: 'sync', names: [B] },
      stage: 'leading',
      since: now - 50_000,
      open: true,
      why: 'a test',
      ...reign,
    },
    transaction: {
      id: 98,
      sentAt: now - 200,
      write: { kind: 'heartbeat', leader: { ...key, beat: 8 }, expectLeader: '40' },
    },
    nextId: 99,
    ...change,
  };
}

function promise(by: MemberRef, at: number, change: Partial<PromiseAnswer> = {}): [string, PromiseFacts] {
  const answer = { by, clusterId: 'c-1', bootId: boot(A), term: 3, ttlMs, promised: true, ...change };
  return [by.instance, { at, answer }];
}

const deadline = (state: HaState, world: World) =>
  decide(state, { kind: 'tick' }, facts(world)).state.reign?.deadline;

describe('a leader whose heartbeat is overdue', () => {
  it('asks each of its synchronous standbys for a promise, and waits a ttl for nobody', () => {
    expect(promisesToAsk(leader(), facts())).toEqual([
      { clusterId: 'c-1', leader: A, bootId: boot(A), term: 3, ttlMs, to: B },
    ]);
  });

  it('counts the promise from before it asked', () => {
    expect(deadline(leader(), { promises: [promise(B, now - 400)] })).toBe(now - 400 + grace);
  });

  it('goes by the oldest of all promises, and by none if one is missing', () => {
    const state = leader({ written: { ...written, names: [B, C] } });
    const before = state.reign?.deadline;
    expect(deadline(state, { promises: [promise(B, now - 400), promise(C, now - 900)] })).toBe(
      now - 900 + grace,
    );
    expect(deadline(state, { promises: [promise(B, now - 400)] })).toBe(before);
    expect(
      deadline(state, { promises: [promise(B, now - 400), promise(C, now - 300, { promised: false })] }),
    ).toBe(before);
  });

  it.each<[string, Partial<PromiseAnswer>]>([
    ['of other data', { by: { ...B, dataId: D.dataId } }],
    ['of another instance at its address', { by: C }],
    ['of another cluster', { clusterId: 'c-2' }],
    ['in another term', { term: 2 }],
    ['to another boot', { bootId: 'boot-before' }],
  ])('takes no promise %s', (_, change) => {
    const state = leader();
    const [, given] = promise(B, now - 100, change);
    expect(deadline(state, { promises: [['shop-2', given]] })).toBe(state.reign?.deadline);
  });

  it('goes by the shortest ttl that anybody may wait for', () => {
    const shorter = { ...written, ttlMs: 4_000 };
    const graceOf = (ms: number) => leaderGraceMs({ ...defaultTiming, ttlMs: ms });
    const state = leader({ written: shorter, deadline: now + 100 });
    expect(deadline(state, { promises: [promise(B, now - 400)] })).toBe(now - 400 + graceOf(4_000));
    expect(
      deadline(leader({ deadline: now + 100 }), { promises: [promise(B, now - 400, { ttlMs: 5_000 })] }),
    ).toBe(now - 400 + graceOf(5_000));
  });

  it('needs nobody where nobody else may lead', () => {
    const alone = { members: [A, B], names: [], async: false, ttlMs };
    expect(deadline(leader({ written: alone }), {})).toBe(now + grace);
    expect(deadline(leader({ written: { ...alone, members: [A], async: true } }), {})).toBe(now + grace);
  });

  it('does not rise again when its deadline is over', () => {
    const d = decide(
      leader({ deadline: now }),
      { kind: 'tick' },
      facts({ promises: [promise(B, now - 100)] }),
    );
    expect(d.commands).toMatchObject([{ kind: 'operate', operation: { do: 'fence' } }]);
    expect(d.state.reign?.deadline).toBe(now);
  });

  it('stays behind the barrier: it changes nothing but the deadline', () => {
    const { transaction: _, ...state } = leader();
    const d = decide(state, { kind: 'tick' }, facts({ promises: [promise(B, now - 100)] }));
    expect(d.commands).toMatchObject([{ kind: 'transact', write: { kind: 'heartbeat' } }]);
    expect(d.state.reign).toMatchObject({ barrier: true, goodAt: now - 3_000 });
  });

  it.each<[string, Partial<Reign>, Partial<Facts>, Partial<HaState>]>([
    ['its heartbeat is in time', { goodAt: now - 1_200 }, {}, {}],
    ['it is not yet the primary', { stage: 'promote' }, { postgres: running(true) }, {}],
    ['its Postgres has ended', {}, { postgres: { process: 'none', since: now, walLost: false } }, {}],
    ['it is being stopped', {}, { stopRequested: true }, {}],
    ['it could not be fenced', {}, {}, { fenceAfter: now - 10 }],
    ['it is being fenced', {}, {}, { operation: { id: 5, operation: { do: 'fence', why: '' }, since: now } }],
    ['its volume is gone', {}, { volume: { state: 'empty' } }, {}],
  ])('asks nobody when %s', (_, reign, change, state) => {
    const s = leader(reign, state);
    expect(promisesToAsk(s, facts({ change }))).toEqual([]);
    const promises = new Map([promise(B, now - 10)]);
    expect(deadline(s, { change: { ...change, promises } }) ?? 0).toBeLessThanOrEqual(s.reign?.deadline ?? 0);
  });
});

describe('who must promise', () => {
  it('is whoever is in the synchronous set, whoever else is listed', () => {
    expect(whoMustPromise(written, A.instance)).toEqual([B]);
  });

  it('is everybody listed in an asynchronous cluster, but who has no data', () => {
    const listed = [A, B, { ...C, dataId: noDataId }, D];
    expect(whoMustPromise({ members: listed, names: [], async: true, ttlMs }, A.instance)).toEqual([B, D]);
  });

  /** The state after this write was sent, and after its answer. */
  function sending(write: Partial<LeaderWrite>, state = leader()): HaState {
    const transaction = {
      id: 98,
      sentAt: now,
      write: { kind: 'heartbeat', leader: key, expectLeader: '40', ...write },
    } as const;
    return { ...state, transaction };
  }
  const unknown = { kind: 'transaction', id: 98, outcome: { kind: 'unknown', message: '' } } as const;

  it('is everybody who may be listed: by the last write that happened or by one that may have', () => {
    // A new member has announced itself; the heartbeat that lists it goes unanswered.
    const view = facts({ sync: { mode: 'async', names: [] } }).dcs.view;
    const members = new Map(
      [A, B, C, D].map((m) => [
        m.instance,
        {
          value: {
            ...m,
            bootId: boot(m),
            address: 'x',
            node: 'n',
            podUid: 'p',
            role: 'none',
            state: 'waiting',
            agentVersion: '1',
          } as const,
          revision: '5',
        },
      ]),
    );
    const change = { dcs: { view: { ...view, members }, readAt: now } };
    const async_ = { ...written, names: [], async: true };
    const { transaction: _, ...idle } = leader({ written: async_ });
    const sent = decide(idle, { kind: 'tick' }, facts({ change })).state;
    expect(sent.transaction?.write.leader.members).toContainEqual(D);
    const after = decide(sent, { ...unknown, id: sent.transaction?.id ?? 0 }, facts({ change })).state;
    expect(promisesToAsk(after, facts({ change })).map((r) => r.to)).toEqual([B, C, D]);
  });

  it('is whoever may be in the set after a change that nobody knows the end of', () => {
    const change = writtenBy(key, { term: 3, mode: 'sync', names: [C] }, ttlMs);
    expect(whoMustPromise(eitherWritten(written, change), A.instance)).toEqual([B, C]);
    const toAsync = writtenBy(key, { term: 3, mode: 'async', names: [] }, ttlMs);
    expect(whoMustPromise(eitherWritten(written, toAsync), A.instance)).toEqual([B, C]);
  });

  it('is settled by the next write that certainly happened', () => {
    const state = sending({}, leader({ written: { ...written, names: [B, C], async: true } }));
    const sync = { value: { term: 3, mode: 'sync' as const, names: [B] }, revision: '60' };
    const done = { kind: 'done', revision: '60', sync } as const;
    const d = decide(state, { kind: 'transaction', id: 98, outcome: done }, facts());
    expect(d.state.reign?.written).toEqual(written);
    expect(d.state.failsafe).toBeUndefined();
  });
});

describe('a standby that is asked', () => {
  const question: PromiseRequest = { clusterId: 'c-1', leader: A, bootId: boot(A), term: 3, ttlMs, to: B };
  const follower: HaState = {
    ...initialState(now - 60_000),
    leaderSeen: { revision: '40', at: now - 5_000 },
    proofAt: now - 100,
  };

  it('promises its leader not to stand, and says what it promised', () => {
    const { state, answer } = givePromise(follower, facts({ me: B }), question);
    expect(answer).toEqual({
      by: B,
      clusterId: 'c-1',
      bootId: boot(A),
      term: 3,
      ttlMs,
      promised: true,
    });
    expect(hasPromised(state, now + ttlMs - 1)).toBe(true);
    expect(hasPromised(state, now + ttlMs)).toBe(false);
  });

  it.each<[string, Partial<PromiseRequest>, World, Partial<HaState>]>([
    ['another cluster asks', { clusterId: 'c-2' }, {}, {}],
    ['somebody else is meant', { to: C }, {}, {}],
    ['other data are meant', { to: { ...B, dataId: D.dataId } }, {}, {}],
    ['somebody else asks', { leader: C, bootId: boot(C) }, {}, {}],
    ['the leader with other data asks', { leader: { ...A, dataId: D.dataId } }, {}, {}],
    ['another boot of the leader asks', { bootId: 'boot-before' }, {}, {}],
    ['an earlier term is meant', { term: 2 }, {}, {}],
    ['a later term is meant', { term: 4 }, {}, {}],
    ['the leader handed over', {}, { leader: { phase: 'vacated' } }, {}],
    ['etcd knows of no leader', {}, { leader: 'none' }, {}],
    ['etcd was restored from an old copy', {}, {}, { stateLost: { initialize: '1' } }],
    ['it leads itself', {}, {}, { reign: leader().reign as Reign }],
    ['it is taking over', {}, {}, { transaction: leader().transaction as never }],
    ['its data are not usable', {}, { change: { volume: { state: 'empty' } } }, {}],
  ])('promises nothing when %s', (_, asked, world, state) => {
    const before = { ...follower, ...state };
    const given = givePromise(before, facts({ me: B, ...world }), { ...question, ...asked });
    expect(given.answer.promised).toBe(false);
    expect(given.answer.because).not.toBe('');
    expect(given.state).toBe(before);
  });

  it('promises nothing before it has read etcd', () => {
    const world = facts({ me: B, leader: 'none' });
    const { answer } = givePromise(
      follower,
      { ...world, dcs: { ...world.dcs, readAt: undefined } },
      question,
    );
    expect(answer).toMatchObject({ promised: false, because: 'it has not read etcd since it started' });
  });

  /** Whether B stands so long after it has promised. */
  function stands(afterMs: number, world: World = {}, state: Partial<HaState> = {}): boolean {
    const given = givePromise(follower, facts({ me: B, ...world }), question);
    const f = facts({ me: B, at: now + afterMs, ...world });
    const { leader: l, sync } = f.dcs.view;
    if (l === undefined || sync === undefined) throw new Error('there is a leader');
    return eligibility({ facts: f, state: { ...given.state, ...state }, leader: l, sync }).stand;
  }

  it.each<[string, World]>([
    ['strict', {}],
    ['asynchronous', { sync: { mode: 'async', names: [] } }],
  ])('does not stand in a ttl from then on (%s), however long the leader has been silent', (_, world) => {
    expect(stands(ttlMs - 1, world)).toBe(false);
    expect(stands(ttlMs, world)).toBe(true);
    // A shorter ttl that others may wait for by now is not what was promised.
    expect(stands(4_500, { ...world, config: { timing: { ...defaultTiming, ttlMs: 4_000 } } })).toBe(false);
  });

  it('suspects the leader as after a heartbeat where nothing rests on clocks', () => {
    const fast = { config: { fencing: 'fast' } } as const;
    expect(stands(1_200, fast)).toBe(false);
    expect(stands(1_300, fast)).toBe(true);
    expect(stands(1_300, fast, { proofAt: now + 1_000 })).toBe(false);
  });

  it('stands at once when the leader hands over, or is another one', () => {
    const given = givePromise(follower, facts({ me: B }), question);
    const f = facts({ me: B, at: now + 10, leader: { phase: 'vacated', successor: B.instance } });
    const { leader: l, sync } = f.dcs.view;
    if (l === undefined || sync === undefined) throw new Error('there is a leader');
    const state = { ...given.state, leaderSeen: { revision: '40', at: now + 5 } };
    expect(eligibility({ facts: f, state, leader: l, sync }).stand).toBe(true);
  });

  it('does not stand because it was started anew: a ttl counts from its start', () => {
    const state = { ...initialState(now + 100), leaderSeen: { revision: '40', at: now + 100 } };
    const at = (ms: number) => facts({ me: B, at: now + ms });
    const { leader: l, sync } = at(0).dcs.view;
    if (l === undefined || sync === undefined) throw new Error('there is a leader');
    const standing = (ms: number) => eligibility({ facts: at(ms), state, leader: l, sync }).stand;
    expect(standing(ttlMs + 99)).toBe(false);
    expect(standing(ttlMs + 100)).toBe(true);
  });
});

describe('what is said of it', () => {
  const said = (world: World, state = leader()) => {
    const d = decide(state, { kind: 'tick' }, facts(world));
    return failsafeProblem(d.state, facts(world), 'noon');
  };

  it('names who promised, and since when', () => {
    expect(said({ promises: [promise(B, now - 100)] })).toEqual({
      reason: 'Failsafe',
      message: expect.stringMatching(/since noon.*shop-2/),
    });
  });

  it('names who did not, why, and when it ends', () => {
    const refused = { promised: false, because: 'it leads term 4' } as const;
    expect(said({ promises: [['shop-2', { at: now - 100, answer: refused }]] })).toEqual({
      reason: 'FailsafeRefused',
      message: expect.stringMatching(/shop-2.*\(it leads term 4\)/),
    });
  });

  it('says why Postgres is down, and what it waits for', () => {
    const down: Partial<Facts> = { postgres: { process: 'none', since: now, walLost: false } };
    const { reign: _, ...fenced } = decide(leader(), { kind: 'tick' }, facts()).state;
    expect(failsafeProblem(fenced, facts({ change: down }), 'noon')).toEqual({
      reason: 'WaitingForEtcd',
      message: expect.stringMatching(/shop-2.*not been asked.*when etcd answers/),
    });
  });

  it('is nothing while heartbeats succeed', () => {
    expect(said({}, leader({ goodAt: now - 500 }))).toBeUndefined();
  });
});
