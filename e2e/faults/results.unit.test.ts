import { describe, expect, test } from 'vitest';
import { faults } from './catalogue.ts';
import { type Result, reportOf, schedule } from './results.ts';

const made = (fault: string, verdict: Result['verdict'], more: Partial<Result> = {}): Result => ({
  ...{ fault, verdict, at: '2026-01-01T00:00:00Z', target: 'shop-1', problems: [], gaps: {} },
  ...more,
});
const some = faults.slice(0, 5);
const names = (seed: number, rounds: number, done: readonly Result[] = []) =>
  [...schedule(some, seed, rounds, done)].map(({ name }) => name);

describe('the schedule', () => {
  test('has each fault once in each round, in an order that follows from the seed', () => {
    const all = names(3, 4);
    for (let round = 0; round < 4; round += 1) {
      expect(all.slice(round * 5, round * 5 + 5).toSorted()).toEqual(some.map(({ name }) => name).toSorted());
    }
    expect(names(3, 4)).toEqual(all);
    expect(names(4, 4)).not.toEqual(all);
  });

  test('goes on where an earlier run was', () => {
    const all = names(3, 2);
    const done = all.slice(0, 7).map((name) => made(name, 'pass'));
    expect(names(3, 2, done)).toEqual(all.slice(7));
  });

  test('counts a failure as judged, and repeats what could not be judged', () => {
    const [first = '', second = '', ...rest] = names(3, 1);
    expect(names(3, 1, [made(first, 'fail'), made(second, 'unverified')])).toEqual([second, ...rest]);
  });
});

describe('the report', () => {
  test('has a line for each fault, and says what is wrong', () => {
    const good = { failovers: 1, acknowledged: 100, indeterminate: 2, lost: 0, staleReads: 3 };
    const text = reportOf(
      [
        made('node-freeze', 'pass', {
          ...good,
          gaps: { service: 2_000, 'multi-host': 1_500 },
          fromFault: 30_000,
        }),
        made('node-freeze', 'pass', {
          ...good,
          gaps: { service: 3_000, 'multi-host': 1_000 },
          fromFault: 31_500,
        }),
        made('agent-kill', 'fail', { ...good, lost: 1, problems: ['1 acknowledged rows are lost: 1/7'] }),
        made('agent-kill', 'unverified', { target: '', problems: ['kubectl did not answer'] }),
      ],
      'the command',
    );
    const rows = text.split('\n').filter((line) => line.startsWith('| '));
    expect(rows[2]).toBe(
      '| agent-kill | 1 |  |  |  | 1 | 100 | 2 | 1 | 3 | 0 passed, 1 **failed**, 1 not verified |',
    );
    expect(rows[3]).toBe(
      '| node-freeze | 2 | 2000 / 3000 | 1000 / 1500 | 30 / 31.5 | 1 | 200 | 4 | 0 | 6 | 2 passed |',
    );
    expect(text).toContain('  - 1 acknowledged rows are lost: 1/7');
    expect(text).toContain('- **agent-kill**, 2026-01-01T00:00:00Z, no target: unverified');
  });

  test('of nothing says nothing wrong', () => {
    expect(reportOf([], 'none')).not.toContain('wrong');
  });
});
