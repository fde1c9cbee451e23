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
import { noDataId } from './names.ts';
import { nothingKnown, planSlots, rememberData } from './slots.ts';

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
