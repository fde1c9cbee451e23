import { describe, expect, it } from 'vitest';
import {
  type ClusterView,
  type ConfigValue,
  emptyView,
  type LeaderValue,
  type MemberRef,
  type MemberValue,
  type Stamped,
} from '../../dcs/index.ts';
import { replicationName } from '../../postgres/replication-names.ts';
import type { Facts, PeerAnswer } from './facts.ts';
import { noDataId } from './names.ts';
import { nothingKnown, planSlots, rememberData, slotPositions } from './slots.ts';

const member = (instance: string, digit: string): MemberRef => ({ instance, dataId: digit.repeat(16) });
const [A, B, C] = [member('a', 'a'), member('b', 'b'), member('c', 'c')];
const newC = member('c', '9');
const slot = (m: MemberRef) => replicationName(m.dataId);
const stamp = <T>(value: T): Stamped<T> => ({ value, revision: '1' });

interface World {
  readonly announced: readonly MemberRef[];
  readonly members?: readonly string[];
  readonly sync?: readonly MemberRef[];
  readonly listed?: readonly MemberRef[];
}

function view({ announced, members = ['a', 'b', 'c'], sync = [], listed = [] }: World): ClusterView {
  return {
    ...emptyView,
    config: stamp({ members } as unknown as ConfigValue),
    leader: stamp({ ...A, members: listed } as unknown as LeaderValue),
    sync: stamp({ term: 1, mode: 'sync', names: [...sync] }),
    members: new Map(announced.map((m) => [m.instance, stamp(m as MemberValue)])),
  };
}

/** The plan of A after having seen each of these, in order. */
function planAfter(...worlds: [World, ...World[]]) {
  const views = worlds.map(view);
  const known = views.reduce(rememberData, nothingKnown);
  return planSlots(known, views.at(-1) ?? emptyView, 'a');
}

describe('the slots of a primary', () => {
  it('are those of the others that announce themselves', () => {
    expect(planAfter({ announced: [A, B, C] }).wanted).toEqual([slot(B), slot(C)]);
  });

  it('stay when an instance is away', () => {
    const plan = planAfter({ announced: [A, B, C] }, { announced: [A, B] }, { announced: [A] });
    expect(plan.wanted).toEqual([slot(B), slot(C)]);
    expect([B, C].some((m) => plan.obsolete(slot(m)))).toBe(false);
  });

  it('go when the instance has left the configuration or has newer data', () => {
    const left = planAfter({ announced: [A, B, C] }, { announced: [A, B], members: ['a', 'b'] });
    expect(left.wanted).toEqual([slot(B)]);
    expect(left.obsolete(slot(C))).toBe(true);
    const renewed = planAfter({ announced: [A, B, C] }, { announced: [A, newC] });
    expect(renewed.wanted).toEqual([slot(B), slot(newC)]);
    expect(renewed.obsolete(slot(C))).toBe(true);
  });

  it('are none on a standby that never leads, unless another one may stream from it', () => {
    const plan = (instances: ConfigValue['instances'], leads = false) => {
      const seen = view({ announced: [A, B, C] });
      const members = seen.config?.value.members ?? [];
      const config = stamp({ members, instances } as unknown as ConfigValue);
      const leader = stamp({ ...(leads ? A : B), members: [] as MemberRef[] } as LeaderValue);
      return planSlots(nothingKnown, { ...seen, config, leader }, 'a');
    };
    const barred = { a: { noFailover: true } };
    expect(plan(barred).wanted).toEqual([]);
    expect(plan(barred).obsolete(slot(C))).toBe(true);
    expect(plan(barred, true).wanted).toEqual([slot(B), slot(C)]);
    expect(plan({ ...barred, c: { streamFrom: 'a' } }).wanted).toEqual([slot(B), slot(C)]);
    expect(plan({ ...barred, c: { streamFrom: 'standby' } }).wanted).toEqual([slot(B), slot(C)]);
    expect(plan({}).wanted).toEqual([slot(B), slot(C)]);
  });

  it('of the synchronous set and of the leader’s list stay in any case', () => {
    const plan = planAfter({ announced: [A, newC], sync: [C], listed: [A, B] });
    expect(plan.wanted.toSorted()).toEqual([slot(B), slot(C), slot(newC)].toSorted());
    expect([B, C, newC].some((m) => plan.obsolete(slot(m)))).toBe(false);
  });

  it('are none for an instance that is being cloned; those of its old data stay until it has new ones', () => {
    const cloning = { ...C, dataId: noDataId };
    const plan = planAfter({ announced: [A, B, C] }, { announced: [A, B, cloning], listed: [A, B, cloning] });
    expect(plan.wanted).toEqual([slot(B), slot(C)]);
    expect(plan.obsolete(slot(C))).toBe(false);
  });

  it('of unknown data stay until the data of every instance are known', () => {
    expect(planAfter({ announced: [A, B] }).obsolete(slot(C))).toBe(false);
    expect(planAfter({ announced: [A, B, newC] }).obsolete(slot(C))).toBe(true);
    expect(planSlots(nothingKnown, emptyView, 'a').obsolete(slot(C))).toBe(false);
  });
});

describe('how far the slots may be moved that nobody streams from', () => {
  const answer = (m: MemberRef, change: Partial<PeerAnswer> = {}): PeerAnswer => ({
    ...m,
    bootId: 'a boot',
    state: 'standby',
    term: 0,
    openMs: 0,
    timeline: 2,
    receivedLsn: 100n,
    checkpointed: false,
    ancestors: [],
    ...change,
  });
  const positions = (peer: PeerAnswer, at = 9_000) =>
    slotPositions({
      now: 10_000,
      postgres: { observation: { timeline: 2 } },
      peers: new Map([[peer.instance, { at, answer: peer }]]),
    } as unknown as Facts);

  it('is what the instance says that it has', () => {
    expect(positions(answer(B))).toEqual(new Map([[slot(B), 100n]]));
    expect(positions(answer(A, { state: 'primary' }))).toEqual(new Map([[slot(A), 100n]]));
  });

  it('is not known of one that is away, that does not say it, or that is on another timeline', () => {
    expect(positions(answer(B), 5_000).size).toBe(0);
    expect(positions(answer(B, { receivedLsn: undefined })).size).toBe(0);
    expect(positions(answer(B, { state: 'fenced' })).size).toBe(0);
    expect(positions(answer(B, { timeline: 1 })).size).toBe(0);
  });
});
