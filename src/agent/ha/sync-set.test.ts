import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { MemberRef, SyncValue } from '../../dcs/index.ts';
import { placeholderName, replicationName } from '../../postgres/replication-names.ts';
import type { Observation, Walsender } from './facts.ts';
import { includesMember } from './names.ts';
import { type Candidate, type Joining, planSyncSet, type SyncSituation } from './sync-set.ts';

const member = (i: number): MemberRef => ({ instance: `shop-${i}`, dataId: String(i).repeat(16) });
const [C, D, E, F] = [member(2), member(3), member(4), member(5)] as const;
const name = (m: MemberRef) => replicationName(m.dataId);
const names = (...members: MemberRef[]) => members.map(name);

function stored(...members: MemberRef[]): SyncValue {
  return { term: 1, mode: 'sync', names: members };
}

function candidate(m: MemberRef, change: Partial<Candidate> = {}): Candidate {
  return { ...m, apart: true, ...change };
}

function walsender(m: MemberRef, change: Partial<Walsender> = {}): Walsender {
  return { applicationName: name(m), state: 'streaming', syncPriority: 0, flushLsn: 100n, ...change };
}

function look(at: number, walsenders: readonly Walsender[], flushLsn = 100n): Observation {
  return {
    at,
    inRecovery: false,
    timeline: 1,
    flushLsn,
    walsenders,
    commitWaitMs: 0,
    pendingRestart: [],
    overridden: [],
  };
}

/** One synchronous standby is asked for and C is it; everything streams. */
function situation(change: Partial<SyncSituation> = {}): SyncSituation {
  return {
    config: { synchronous: 1, durability: 'required' },
    stored: stored(C),
    names: names(C),
    namesApplied: true,
    observation: look(1_000, [walsender(C, { syncPriority: 1 }), walsender(D)]),
    candidates: [candidate(C), candidate(D)],
    joining: undefined,
    waitProved: true,
    ...change,
  };
}

describe('a set that is as it should be', () => {
  it('is left alone, however well others are placed', () => {
    expect(planSyncSet(situation())).toEqual({ step: 'nothing' });
  });

  it('says so when every member runs on the node of the primary', () => {
    expect(planSyncSet(situation({ candidates: [candidate(C, { apart: false })] }))).toMatchObject({
      step: 'nothing',
      problem: { reason: 'SyncOnSameNode' },
    });
  });
});

describe('an addition that a takeover began', () => {
  /** C, the former primary, is gone; D was named first when nobody streamed yet. */
  const begun = (walsenders: Walsender[], change: Partial<SyncSituation> = {}) =>
    planSyncSet(
      situation({
        names: names(D, C),
        observation: look(1_000, walsenders),
        candidates: [candidate(E), candidate(D), candidate(C)],
        ...change,
      }),
    );
  const [d, e] = [walsender(D, { syncPriority: 1 }), walsender(E)];

  it('is not given up for whoever streams first, as long as the other may be on its way', () => {
    expect(begun([e], { awaited: [D.dataId] }).step).toBe('remember');
    expect(begun([e])).toMatchObject({ step: 'names', because: 'an addition was given up' });
  });

  it('is not given up for somebody who is as good', () => {
    expect(begun([d, e])).toMatchObject({ step: 'remember', joining: { settledAt: 1_000 } });
  });
});

describe('a member that is awaited', () => {
  it('is not stored twice when the others are lost as well', () => {
    const world = situation({
      config: { synchronous: 2, durability: 'required' },
      stored: stored(C, D),
      names: names(C, D),
      observation: look(1_000, []),
      candidates: [candidate(C)],
      awaited: [C.dataId],
    });
    expect(planSyncSet(world)).toMatchObject({ step: 'nothing' });
  });
});

describe('a better one', () => {
  /** C is synchronous, D is not. */
  const joins = (c: Partial<Candidate>, d: Partial<Candidate>, change: Partial<SyncSituation> = {}) =>
    planSyncSet(situation({ candidates: [candidate(D, d), candidate(C, c)], ...change })).step === 'names';

  it('takes the place: one that may lead, then one on another node, in another zone, of a higher priority', () => {
    expect(joins({ priority: 90 }, { zoneApart: true })).toBe(true);
    expect(joins({ priority: 50 }, { apart: false, zoneApart: true, priority: 90 })).toBe(false);
    expect(joins({ zoneApart: true }, { priority: 90 })).toBe(false);
    expect(joins({ noFailover: true }, { apart: false })).toBe(true);
    expect(joins({ apart: false, priority: 90 }, { priority: 10 })).toBe(true);
    expect(joins({ priority: 50 }, { priority: 51 })).toBe(true);
    expect(joins({ priority: 50 }, { priority: 50 })).toBe(false);
    expect(joins({ priority: 50 }, { priority: 100, apart: false })).toBe(false);
    expect(joins({}, { priority: 100, noFailover: true })).toBe(false);
    expect(joins({ cascades: true }, { priority: 10 })).toBe(true);
    expect(joins({}, { cascades: true, zoneApart: true, priority: 100 })).toBe(false);
    expect(joins({ apart: false }, { cascades: true })).toBe(true);
  });

  it('only when it has caught up, because commits wait for it from then on', () => {
    const behind = (bytes: bigint) =>
      look(
        1_000,
        [
          walsender(C, { syncPriority: 1, flushLsn: 1n << 30n }),
          walsender(D, { flushLsn: (1n << 30n) - bytes }),
        ],
        1n << 30n,
      );
    const megabytes = 1n << 20n;
    expect(joins({ priority: 50 }, { priority: 51 }, { observation: behind(17n * megabytes) })).toBe(false);
    expect(joins({ priority: 50 }, { priority: 51 }, { observation: behind(16n * megabytes) })).toBe(true);
    // Better late than not at all, and than one that would never take over.
    expect(joins({ noFailover: true }, {}, { observation: behind(17n * megabytes) })).toBe(true);
  });
});

describe('an instance that may not lead', () => {
  it('stays in the set until another one streams, and does not enter it', () => {
    const alone = { observation: look(1_000, [walsender(C, { syncPriority: 1 })]) };
    expect(planSyncSet(situation({ ...alone, candidates: [candidate(C, { noFailover: true })] }))).toEqual({
      step: 'nothing',
    });
    const empty = situation({
      stored: stored(),
      names: [placeholderName],
      observation: look(1_000, [walsender(D)]),
      candidates: [candidate(D, { noFailover: true })],
    });
    expect(planSyncSet(empty)).toMatchObject({
      step: 'nothing',
      problem: { reason: 'WaitingForStandby', message: expect.stringContaining('but shop-3 (noFailover)') },
    });
  });
});

describe('adding', () => {
  const empty = { stored: stored(), names: [placeholderName] };

  it('names the new one first in Postgres, while etcd still names nobody', () => {
    expect(planSyncSet(situation({ ...empty, observation: look(1_000, [walsender(D)]) }))).toMatchObject({
      step: 'names',
      names: names(D),
      joining: { names: names(D) },
    });
  });

  it('waits until Postgres has the names', () => {
    const step = planSyncSet(
      situation({ ...empty, names: names(D), namesApplied: false, observation: undefined }),
    );
    expect(step.step).toBe('nothing');
  });

  it('waits until every walsender shows its new priority', () => {
    const s = situation({
      names: names(D, C),
      joining: { names: names(D, C) },
      stored: stored(C),
      config: { synchronous: 2, durability: 'required' },
    });
    const at = (c: number, d: number) =>
      planSyncSet({
        ...s,
        observation: look(1_000, [walsender(C, { syncPriority: c }), walsender(D, { syncPriority: d })]),
      });
    expect(at(1, 1)).toMatchObject({ step: 'nothing' });
    expect(at(2, 0)).toMatchObject({ step: 'nothing' });
    expect(at(2, 1)).toEqual({ step: 'remember', joining: { names: names(D, C), settledAt: 1_000 } });
  });

  it('counts a walsender that catches up: it may stream before it has reloaded', () => {
    const step = planSyncSet(
      situation({
        names: names(D, C),
        joining: { names: names(D, C) },
        config: { synchronous: 1, durability: 'required' },
        candidates: [candidate(D)],
        observation: look(1_000, [
          walsender(C, { state: 'catchup', syncPriority: 1 }),
          walsender(D, { syncPriority: 1 }),
        ]),
      }),
    );
    expect(step.step).toBe('nothing');
  });

  it('does not wait for a base backup, which has no priority', () => {
    const backup = { applicationName: 'pg_basebackup', state: 'backup', syncPriority: 0 };
    const step = planSyncSet(
      situation({
        ...empty,
        names: names(D),
        joining: { names: names(D) },
        observation: look(1_000, [walsender(D, { syncPriority: 1 }), backup]),
      }),
    );
    expect(step.step).toBe('remember');
  });

  it('takes its target from a look that came after the settled one', () => {
    const s = situation({ ...empty, names: names(D), joining: { names: names(D), settledAt: 1_000 } });
    const settled = [walsender(D, { syncPriority: 1 })];
    expect(planSyncSet({ ...s, observation: look(1_000, settled, 200n) }).step).toBe('nothing');
    expect(planSyncSet({ ...s, observation: look(1_040, settled, 200n) })).toEqual({
      step: 'remember',
      joining: { names: names(D), settledAt: 1_000, target: 200n },
    });
  });

  it('writes etcd only when the flush of the new one has reached the target', () => {
    const s = situation({
      ...empty,
      names: names(D),
      joining: { names: names(D), settledAt: 1_000, target: 200n },
    });
    const flushed = (lsn: bigint) =>
      planSyncSet({
        ...s,
        observation: look(1_080, [walsender(D, { syncPriority: 1, flushLsn: lsn })], 900n),
      });
    expect(flushed(199n).step).toBe('nothing');
    expect(flushed(200n)).toMatchObject({ step: 'store', mode: 'sync', members: [D] });
  });

  it('begins anew when a walsender shows another list again, at whatever step', () => {
    const old = [walsender(D, { syncPriority: 1 }), walsender(E, { syncPriority: 1 })];
    for (const joining of [
      { names: names(D), settledAt: 900 },
      { names: names(D), settledAt: 900, target: 100n },
    ])
      expect(
        planSyncSet(situation({ ...empty, names: names(D), joining, observation: look(1_000, old) })),
      ).toEqual({ step: 'remember', joining: { names: names(D) } });
  });

  it('confirms two at once when two are missing, each of them', () => {
    const s = situation({
      ...empty,
      config: { synchronous: 2, durability: 'required' },
      names: names(C, D),
      joining: { names: names(C, D), settledAt: 1_000, target: 200n },
    });
    const flushed = (c: bigint, d: bigint) =>
      planSyncSet({
        ...s,
        observation: look(1_080, [
          walsender(C, { syncPriority: 1, flushLsn: c }),
          walsender(D, { syncPriority: 2, flushLsn: d }),
        ]),
      });
    expect(flushed(300n, 100n).step).toBe('nothing');
    expect(flushed(300n, 300n)).toMatchObject({ step: 'store', members: [C, D] });
  });

  it('begins anew when the names are others than those that had settled', () => {
    const step = planSyncSet(
      situation({
        ...empty,
        names: names(D),
        joining: { names: names(E), settledAt: 10, target: 1n },
        observation: look(1_000, [walsender(D, { syncPriority: 1 })]),
      }),
    );
    expect(step).toEqual({ step: 'remember', joining: { names: names(D), settledAt: 1_000 } });
  });
});

describe('two additions, of which the first is not finished', () => {
  // A walsender of C that still has the list [C] shows the priority 1, as it would with [C, D].
  const both = { config: { synchronous: 2, durability: 'required' as const }, stored: stored() };
  const joining = { names: names(C), settledAt: 900, target: 100n };

  it('go one after the other', () => {
    const first = situation({ ...both, names: names(C) });
    expect(planSyncSet(first)).toMatchObject({ step: 'remember', joining: { names: names(C) } });
    expect(planSyncSet({ ...first, joining })).toMatchObject({ step: 'store', members: [C] });
    expect(planSyncSet({ ...first, stored: stored(C) })).toMatchObject({ step: 'names', names: names(D, C) });
  });

  it('begin only when every walsender has the list of before', () => {
    const stale = situation({
      ...both,
      stored: stored(C),
      observation: look(1_000, [walsender(C), walsender(D)]),
    });
    expect(planSyncSet(stale).step).toBe('nothing');
  });

  it('begin anew when the first has gone', () => {
    const gone = situation({ ...both, names: names(E), candidates: [candidate(C), candidate(D)] });
    expect(planSyncSet(gone)).toMatchObject({ step: 'names', names: [placeholderName] });
    expect(planSyncSet({ ...gone, stored: stored(C), names: names(E, C) })).toMatchObject({
      step: 'names',
      names: names(C),
    });
  });
});

describe('coming from a setting under which no commit waits', () => {
  const s = situation({ stored: stored(), names: [], waitProved: false });

  it('first makes commits wait for nobody', () => {
    expect(planSyncSet(s)).toMatchObject({ step: 'names', names: [placeholderName] });
  });

  it('then sees one wait', () => {
    expect(planSyncSet({ ...s, names: [placeholderName] })).toMatchObject({ step: 'prove-wait' });
    expect(planSyncSet({ ...s, names: [placeholderName], namesApplied: false }).step).toBe('nothing');
  });

  it('then adds', () => {
    const observation = look(1_000, [walsender(C), walsender(D)]);
    const proved = { ...s, observation, names: [placeholderName], waitProved: true };
    expect(planSyncSet(proved)).toMatchObject({ step: 'names', names: names(C) });
  });

  it('never takes the placeholder away before the proof, even if nobody is to be added', () => {
    const taken = situation({ names: [placeholderName, ...names(C)], waitProved: false });
    expect(planSyncSet(taken)).toMatchObject({ step: 'prove-wait' });
    expect(planSyncSet({ ...taken, waitProved: true })).toMatchObject({ step: 'names', names: names(C) });
    expect(planSyncSet({ ...taken, names: [placeholderName] })).toMatchObject({
      step: 'names',
      names: [placeholderName, ...names(C)],
    });
  });

  it('proves with the placeholder in place: a quick standby would hide the wait', () => {
    expect(planSyncSet(situation({ names: names(C), waitProved: false }))).toMatchObject({
      step: 'names',
      names: [placeholderName, ...names(C)],
    });
  });
});

describe('removing', () => {
  it('keeps a lost member when commits must wait anyway, and says what they wait for', () => {
    const step = planSyncSet(
      situation({ observation: look(1_000, []), candidates: [candidate(C), candidate(D)] }),
    );
    expect(step).toMatchObject({ step: 'nothing', problem: { reason: 'WaitingForStandby' } });
  });

  it('drops it from etcd first and from Postgres afterwards, if commits need not wait', () => {
    const s = situation({
      config: { synchronous: 1, durability: 'preferred' },
      observation: look(1_000, []),
    });
    expect(planSyncSet(s)).toMatchObject({ step: 'store', mode: 'sync', members: [] });
    expect(planSyncSet({ ...s, stored: stored() })).toMatchObject({ step: 'names', names: [] });
    expect(planSyncSet({ ...s, stored: stored(), names: [] })).toMatchObject({
      step: 'nothing',
      problem: { message: expect.stringContaining('not waiting') },
    });
  });

  it('of two members drops the lost one if commits need not wait, and keeps the name if they must', () => {
    const s = situation({
      stored: stored(C, D),
      names: names(C, D),
      observation: look(1_000, [walsender(C, { syncPriority: 1 })]),
    });
    const of = (durability: 'required' | 'preferred') =>
      planSyncSet({ ...s, config: { synchronous: 2, durability } });
    expect(of('preferred')).toMatchObject({ step: 'store', members: [C] });
    expect(of('required')).toMatchObject({ step: 'nothing', problem: { reason: 'WaitingForStandby' } });
  });

  it('when fewer are asked for', () => {
    const s = situation({ stored: stored(C, D), names: names(C, D) });
    expect(planSyncSet(s)).toMatchObject({ step: 'store', members: [C] });
    expect(planSyncSet({ ...s, stored: stored(C) })).toMatchObject({ step: 'names', names: names(C) });
  });

  it('never while nothing is known about the walsenders', () => {
    expect(planSyncSet(situation({ observation: undefined })).step).toBe('nothing');
  });
});

describe('replacing', () => {
  it('adds, and removes in the same write of etcd, and then from Postgres', () => {
    const streaming = (d: number) => [walsender(D, { syncPriority: d })];
    const s = situation({ observation: look(1_000, streaming(0)) });
    expect(planSyncSet(s)).toMatchObject({ step: 'names', names: names(D, C) });
    const named = { ...s, names: names(D, C), observation: look(1_000, streaming(1)) };
    expect(
      planSyncSet({ ...named, joining: { names: names(D, C), settledAt: 900, target: 100n } }),
    ).toMatchObject({ step: 'store', members: [D] });
    expect(planSyncSet({ ...named, stored: stored(D) })).toMatchObject({ step: 'names', names: names(D) });
  });

  it('replaces one that looks connected while commits wait for it in vain', () => {
    expect(planSyncSet(situation({ silent: [C.dataId] }))).toMatchObject({
      step: 'names',
      names: [...names(D), ...names(C)],
    });
  });

  it('prefers another node to the place that is taken', () => {
    const step = planSyncSet(situation({ candidates: [candidate(C, { apart: false }), candidate(D)] }));
    expect(step).toMatchObject({ step: 'names', names: names(D, C) });
  });

  it('prefers the target of a switchover to everybody', () => {
    const step = planSyncSet(
      situation({ candidates: [candidate(C), candidate(D, { apart: false, target: true })] }),
    );
    expect(step).toMatchObject({ step: 'names', names: names(D, C) });
  });

  it('has every name of etcd in Postgres before anything else', () => {
    const step = planSyncSet(situation({ stored: stored(C, E), names: [placeholderName, ...names(C)] }));
    expect(step).toMatchObject({ step: 'names', names: names(C, E) });
  });
});

describe('with more than one synchronous standby', () => {
  const two = { synchronous: 2, durability: 'required' } as const;
  const streams = (c: number, d: number, e: number) => [
    walsender(C, { syncPriority: c }),
    walsender(D, { syncPriority: d }),
    walsender(E, { syncPriority: e }),
  ];

  it('lets commits wait while the walsenders change over: one with the old list would count the new standby', () => {
    const s = situation({
      config: { ...two, synchronous: 3 },
      stored: stored(C, D),
      names: names(C, D),
      candidates: [candidate(C), candidate(D), candidate(E)],
      observation: look(1_000, streams(1, 2, 0)),
    });
    const between = [placeholderName, placeholderName, ...names(C, D)];
    expect(planSyncSet(s)).toMatchObject({ step: 'names', names: between });
    expect(planSyncSet({ ...s, names: between }).step).toBe('nothing');
    const settled = look(1_040, streams(3, 4, 0));
    expect(planSyncSet({ ...s, names: between, observation: settled })).toMatchObject({
      step: 'names',
      names: names(E, C, D),
      joining: { names: names(E, C, D) },
    });
  });

  it('does the same when one leaves: one with the new list would count it in place of another', () => {
    const s = situation({
      config: two,
      stored: stored(D, E),
      names: names(C, D, E),
      candidates: [candidate(D), candidate(E)],
      observation: look(1_000, streams(1, 2, 3)),
    });
    expect(planSyncSet(s)).toMatchObject({
      step: 'names',
      names: [placeholderName, placeholderName, ...names(D, E)],
    });
  });

  it('lets them wait until every walsender has the list between: one with the list before would be counted', () => {
    const s = situation({
      config: two,
      stored: stored(D, E),
      names: [placeholderName, placeholderName, ...names(D, E)],
      candidates: [candidate(D), candidate(E)],
    });
    // D is away, and C still has {C, D, E}: E, with {D, E}, would count C in place of D.
    const late = [walsender(C, { syncPriority: 1 }), walsender(E, { syncPriority: 4 })];
    expect(planSyncSet({ ...s, observation: look(1_000, late) }).step).toBe('nothing');
    expect(planSyncSet({ ...s, observation: look(1_040, streams(0, 3, 4)) })).toMatchObject({
      step: 'names',
      names: names(D, E),
    });
  });
});

describe('between synchronous and asynchronous', () => {
  it('goes asynchronous in etcd first', () => {
    const s = situation({ config: { synchronous: 0, durability: 'required' } });
    expect(planSyncSet(s)).toMatchObject({ step: 'store', mode: 'async', members: [] });
    const told = { ...s, stored: { term: 1, mode: 'async' as const, names: [] } };
    expect(planSyncSet(told)).toMatchObject({ step: 'names', names: [] });
    expect(planSyncSet({ ...told, names: [] })).toEqual({ step: 'nothing' });
  });

  it('goes synchronous by forbidding asynchronous takeovers first', () => {
    const s = situation({ stored: { term: 1, mode: 'async', names: [] }, names: [], waitProved: false });
    expect(planSyncSet(s)).toMatchObject({ step: 'store', mode: 'sync', members: [] });
  });
});

// --------------------------------------------------------------------------- against a model of one Postgres

interface Process {
  /** The setting that this process has loaded. */
  names: readonly string[];
  streaming: boolean;
  flush: number;
}

/**
 * One Postgres whose processes load `synchronous_standby_names` one by one. A walsender releases commits as in syncrep.c:
 * it takes all that stream and have a priority, each in the list that *it* has loaded, as many of the first of them as
 * its own list demands, and must be among them itself.
 */
class FakePostgres {
  setting: readonly string[] = [];
  /** Set by the checkpointer: whether backends wait at all. */
  waits = false;
  lsn = 1;
  acknowledged = 0;
  readonly walsenders = new Map<string, Process>();

  commit(): void {
    this.lsn += 1;
    if (!this.waits) this.acknowledged = this.lsn;
  }

  reload(who: string): void {
    const process = this.walsenders.get(who);
    if (process !== undefined) {
      process.names = this.setting;
      this.release(who);
    } else {
      this.waits = this.setting.length > 0;
      if (!this.waits) this.acknowledged = this.lsn;
    }
  }

  connect(who: string): void {
    this.walsenders.set(who, { names: this.setting, streaming: true, flush: 0 });
  }

  flush(who: string, by: number): void {
    const process = this.walsenders.get(who);
    if (process === undefined) return;
    process.flush = Math.min(this.lsn, process.flush + by);
    this.release(who);
  }

  release(who: string): void {
    const demanded = this.walsenders.get(who)?.names.length ?? 0;
    const chosen = [...this.walsenders]
      .map(([each, { names, flush }]) => ({ each, priority: names.indexOf(each) + 1, flush }))
      .filter(({ priority, flush }) => priority > 0 && flush > 0)
      .toSorted((x, y) => x.priority - y.priority)
      .slice(0, demanded);
    if (demanded === 0 || chosen.length < demanded || !chosen.some(({ each }) => each === who)) return;
    this.acknowledged = Math.max(this.acknowledged, Math.min(...chosen.map(({ flush }) => flush)));
  }

  look(at: number): Observation {
    const walsenders = [...this.walsenders].map(([who, p]) => ({
      applicationName: who,
      state: 'streaming',
      syncPriority: p.names.indexOf(who) + 1,
      flushLsn: BigInt(p.flush),
    }));
    return look(at, walsenders, BigInt(this.lsn));
  }
}

const members = [C, D, E, F];
const event = fc.record({
  do: fc.oneof(
    { weight: 6, arbitrary: fc.constant('plan' as const) },
    { weight: 5, arbitrary: fc.constant('look' as const) },
    { weight: 5, arbitrary: fc.constant('reload' as const) },
    { weight: 5, arbitrary: fc.constant('flush' as const) },
    { weight: 3, arbitrary: fc.constant('commit' as const) },
    { weight: 1, arbitrary: fc.constant('link' as const) },
    { weight: 1, arbitrary: fc.constant('config' as const) },
  ),
  who: fc.nat(4),
  by: fc.nat(6),
});

const traits = fc.record({
  apart: fc.boolean(),
  zoneApart: fc.boolean(),
  noFailover: fc.boolean(),
  priority: fc.nat(2),
});

describe('whatever happens between the steps', () => {
  it('etcd names only instances that hold everything acknowledged, and ends with the wanted set', () => {
    fc.assert(
      fc.property(
        fc.array(event, { minLength: 40, maxLength: 150, size: 'max' }),
        fc.nat(3),
        fc.boolean(),
        fc.array(traits, { minLength: 4, maxLength: 4 }),
        (events, count, required, described) => {
          const candidates = members.map((m, i) => candidate(m, described[i]));
          const mayLead = (m: MemberRef) =>
            !candidates.some((c) => c.instance === m.instance && c.noFailover);
          const postgres = new FakePostgres();
          /** What a standby has flushed survives its connection. */
          const flushed = new Map<string, number>();
          let config: SyncSituation['config'] = {
            synchronous: count,
            durability: required ? 'required' : 'preferred',
          };
          let etcd: SyncValue = { term: 1, mode: 'async', names: [] };
          let wanted: readonly string[] = [];
          let joining: Joining | undefined;
          let waitProved = false;
          let seen: Observation | undefined;
          let now = 0;
          for (const m of members) postgres.connect(name(m));

          const plan = (): string => {
            const step = planSyncSet({
              config,
              stored: etcd,
              names: wanted,
              namesApplied: true,
              observation: seen,
              candidates,
              joining,
              waitProved,
            });
            if (step.step === 'remember') joining = step.joining;
            if (step.step === 'store') {
              etcd = { term: 1, mode: step.mode, names: [...step.members] };
              joining = undefined;
            }
            if (step.step === 'prove-wait') waitProved = postgres.waits;
            if (step.step === 'names') {
              wanted = step.names;
              joining = step.joining;
              postgres.setting = step.names;
              if (step.names.length === 0) waitProved = false;
              seen = undefined;
            }
            return step.step;
          };
          const check = () => {
            const must = (holds: boolean, what: string) => {
              if (!holds) throw new Error(`${what}: etcd ${JSON.stringify(etcd)}, names ${wanted.join(' ')}`);
            };
            for (const m of etcd.names) {
              must(postgres.waits, 'commits wait');
              must(
                (flushed.get(name(m)) ?? 0) >= postgres.acknowledged,
                `${m.instance} holds what is acknowledged`,
              );
              must(postgres.setting.includes(name(m)), `Postgres is to require ${m.instance}`);
            }
          };

          for (const e of events) {
            now += 1;
            const m = members[e.who];
            const who = m === undefined ? 'checkpointer' : name(m);
            if (e.do === 'plan') plan();
            else if (e.do === 'look') seen = postgres.look(now);
            else if (e.do === 'reload') postgres.reload(who);
            else if (e.do === 'commit') postgres.commit();
            else if (e.do === 'flush') {
              postgres.flush(who, e.by);
              const p = postgres.walsenders.get(who);
              if (p !== undefined) flushed.set(who, Math.max(flushed.get(who) ?? 0, p.flush));
            } else if (e.do === 'link' && m !== undefined) {
              if (!postgres.walsenders.delete(who)) postgres.connect(who);
            } else if (e.do === 'config' && e.by < 2)
              config = {
                ...config,
                synchronous: e.who % 4,
                durability: e.by === 0 ? 'required' : 'preferred',
              };
            check();
          }

          // Everything settles: the set is what was asked for, as far as there are standbys.
          for (let i = 0; i < 60; i++) {
            now += 1;
            postgres.commit();
            for (const who of ['checkpointer', ...postgres.walsenders.keys()]) postgres.reload(who);
            for (const [who] of postgres.walsenders) {
              postgres.flush(who, 1_000);
              flushed.set(who, postgres.walsenders.get(who)?.flush ?? 0);
            }
            seen = postgres.look(now);
            plan();
            check();
          }
          expect(plan()).toBe('nothing');
          const living = members.filter((m) => postgres.walsenders.has(name(m)));
          const alive = etcd.names.filter((m) => postgres.walsenders.has(name(m)));
          // Who may not lead is there only in place of one that may and is away.
          const able = living.filter((m) => mayLead(m) || includesMember(alive, m));
          const goal = Math.min(config.synchronous, able.length);
          expect(alive).toHaveLength(goal);
          if (living.filter(mayLead).length >= config.synchronous) expect(alive.every(mayLead)).toBe(true);
          expect(etcd.mode).toBe(config.synchronous > 0 ? 'sync' : 'async');
          if (config.durability === 'preferred') expect(etcd.names).toHaveLength(goal);
          if (goal > 0) expect(postgres.acknowledged > 0).toBe(true);
        },
      ),
      { numRuns: 2_000 },
    );
  }, 60_000);
});
