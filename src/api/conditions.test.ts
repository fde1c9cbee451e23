import { describe, expect, it } from 'vitest';
import { type Condition, findCondition, type NewCondition, setCondition } from './conditions.ts';

const early = new Date('2030-01-01T00:00:00.123Z');
const late = new Date('2030-01-01T00:05:00Z');
const ready: NewCondition = {
  type: 'Ready',
  status: 'True',
  reason: 'PrimaryReady',
  message: 'shop-1 takes writes',
  observedGeneration: 3,
};

describe('setCondition', () => {
  const first = setCondition([], ready, early);

  it('adds a condition, with a time in whole seconds as metav1.Time has', () => {
    expect(first).toEqual([{ ...ready, lastTransitionTime: '2030-01-01T00:00:00Z' }]);
  });

  it('returns the list itself when nothing changes, so that nothing is written', () => {
    expect(setCondition(first, ready, late)).toBe(first);
  });

  it('keeps the time when only reason and message change', () => {
    const next = setCondition(first, { ...ready, reason: 'Stable', message: 'other' }, late);
    expect(next[0]).toMatchObject({ reason: 'Stable', lastTransitionTime: '2030-01-01T00:00:00Z' });
  });

  it('takes the time of a change of status', () => {
    const next = setCondition(first, { ...ready, status: 'False', reason: 'NoPrimary' }, late);
    expect(next[0]).toMatchObject({ status: 'False', lastTransitionTime: '2030-01-01T00:05:00Z' });
  });

  it('leaves other conditions and the order alone', () => {
    const other: Condition = {
      ...ready,
      type: 'FromANewerVersion',
      lastTransitionTime: '2029-01-01T00:00:00Z',
    };
    const next = setCondition([other, ...first], { ...ready, status: 'Unknown', reason: 'Unknown' }, late);
    expect(next.map((entry) => entry.type)).toEqual(['FromANewerVersion', 'Ready']);
    expect(next[0]).toBe(other);
    expect(findCondition(next, 'Ready')?.status).toBe('Unknown');
    expect(findCondition(next, 'Degraded')).toBeUndefined();
  });
});
