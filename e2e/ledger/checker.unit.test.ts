import { describe, expect, test } from 'vitest';
import { faultsOf, judge } from './checker.ts';
import { type Attempt, type FinalState, firstAckAfter, longestGap } from './history.ts';

/** A good history of two workers: a failover at 500 from timeline 1 to 2, one attempt of each outcome. */
const good: readonly Attempt[] = [
  attempt(1, 1, 100, { timeline: 1, registerRead: 0 }),
  attempt(2, 1, 105, { timeline: 1, registerRead: 0 }),
  attempt(1, 2, 200, { timeline: 1, registerRead: 1 }),
  attempt(2, 2, 205, { outcome: 'failed', timeline: 1, registerRead: 1 }),
  attempt(1, 3, 300, { outcome: 'unknown', timeline: 1, registerRead: 2 }),
  attempt(2, 3, 305, { outcome: 'unknown', timeline: 1, registerRead: 1 }),
  attempt(1, 4, 900, { timeline: 2, registerRead: 3 }),
  attempt(2, 4, 905, { timeline: 2, registerRead: 1 }),
];
/** Of the unknown ones, 1/3 was committed and 2/3 was not. */
const end = state({ 1: [1, 2, 3, 4], 2: [1, 4] });

function attempt(worker: number, seq: number, at: number, more: Partial<Attempt> = {}): Attempt {
  return {
    worker,
    seq,
    route: worker === 1 ? 'service' : 'multi-host',
    invokedAt: at,
    completedAt: at + 10,
    outcome: 'acknowledged',
    ...more,
  };
}

function state(rows: Record<number, number[]>): FinalState {
  const workers = Object.entries(rows).map(([worker, seqs]) => [Number(worker), seqs] as const);
  return {
    rows: workers.flatMap(([worker, seqs]) => seqs.map((seq) => ({ worker, seq, count: 1 }))),
    registers: new Map(workers.map(([worker, seqs]) => [worker, Math.max(...seqs)])),
  };
}

/** The good history with one attempt changed. */
const but = (worker: number, seq: number, change: Partial<Attempt>): Attempt[] =>
  good.map((each) => (each.worker === worker && each.seq === seq ? { ...each, ...change } : each));

describe('the checker', () => {
  test('finds nothing wrong with a good history, and counts', () => {
    const verdict = judge(good, end);
    expect(faultsOf(verdict)).toEqual([]);
    expect(verdict).toMatchObject({ acknowledged: 5, failed: 1, unknown: 2, resolved: 1, present: 6 });
  });

  test('has nothing to say about an empty history', () => {
    expect(faultsOf(judge([], { rows: [], registers: new Map() }))).toEqual([]);
  });

  test('finds an acknowledged row that is gone', () => {
    const verdict = judge(good, { ...end, rows: end.rows.filter((r) => !(r.worker === 1 && r.seq === 2)) });
    expect(verdict.lost).toEqual([{ worker: 1, seq: 2 }]);
    expect(faultsOf(verdict)).toHaveLength(1);
  });

  test('does not mind what became of an unknown one', () => {
    expect(faultsOf(judge(good, state({ 1: [1, 2, 3, 4], 2: [1, 3, 4] })))).toEqual([]);
  });

  test('finds a row that is there twice', () => {
    const rows = end.rows.map((row) => (row.worker === 2 && row.seq === 4 ? { ...row, count: 2 } : row));
    expect(judge(good, { ...end, rows }).duplicates).toEqual([{ worker: 2, seq: 4 }]);
  });

  test('finds a row whose transaction was said to have failed', () => {
    expect(judge(good, state({ 1: [1, 2, 3, 4], 2: [1, 2, 4] })).ghosts).toEqual([{ worker: 2, seq: 2 }]);
  });

  test('finds a row that nobody wrote', () => {
    expect(judge(good, state({ 1: [1, 2, 3, 4], 2: [1, 4], 3: [7] })).aliens).toEqual([
      { worker: 3, seq: 7 },
    ]);
  });

  test('finds an acknowledged transaction that missed an acknowledged write', () => {
    expect(judge(but(1, 4, { registerRead: 1 }), end).staleReads).toEqual([{ worker: 1, seq: 4 }]);
  });

  test('finds a read of a value that was rolled back', () => {
    expect(judge(but(2, 4, { registerRead: 2 }), end).staleReads).toEqual([{ worker: 2, seq: 4 }]);
  });

  test('does not judge what a transaction read that was not acknowledged', () => {
    expect(judge(but(1, 3, { registerRead: 0 }), end).staleReads).toEqual([]);
  });

  test('finds an acknowledgement of a primary that had been replaced', () => {
    const late = [...good, attempt(1, 5, 1_000, { timeline: 1, registerRead: 4 })];
    const verdict = judge(late, state({ 1: [1, 2, 3, 4, 5], 2: [1, 4] }));
    expect(verdict.afterReplacement).toEqual(['1/5']);
  });

  test('allows an older timeline to transactions that overlap', () => {
    const overlapping = but(2, 4, { invokedAt: 895, completedAt: 1_000, timeline: 1 });
    expect(judge(overlapping, end).afterReplacement).toEqual([]);
  });

  test('finds a register that went back', () => {
    expect(
      judge(good, {
        ...end,
        registers: new Map([
          [1, 2],
          [2, 4],
        ]),
      }).wrongRegisters,
    ).toEqual([1]);
  });

  test('finds a register with the value of a failed write', () => {
    const history = [...good, attempt(2, 5, 1_100, { outcome: 'failed' })];
    expect(
      judge(history, {
        ...end,
        registers: new Map([
          [1, 4],
          [2, 5],
        ]),
      }).wrongRegisters,
    ).toEqual([2]);
  });
});

describe('the write gap', () => {
  test('is the longest time between two acknowledgements, by route and over all', () => {
    expect(longestGap(good)).toEqual({ from: 210, to: 910, milliseconds: 700 });
    expect(longestGap(good, 'multi-host')).toEqual({ from: 115, to: 915, milliseconds: 800 });
  });

  test('is looked for around the fault only', () => {
    expect(longestGap(good, undefined, 0, 150)?.milliseconds).toBe(95);
  });

  test('is not known from one acknowledgement', () => {
    expect(longestGap(good.slice(0, 1))).toBeUndefined();
  });

  test('ends with the first transaction that began after the fault', () => {
    expect(firstAckAfter(good, 500)).toMatchObject({ worker: 1, seq: 4 });
    expect(firstAckAfter(good, 500, 'multi-host')).toMatchObject({ worker: 2, seq: 4 });
    expect(firstAckAfter(good, 2_000)).toBeUndefined();
  });
});
