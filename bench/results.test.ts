import { describe, expect, test } from 'vitest';
import { z } from 'zod';
import { markdown, percentile, runsIn, summary } from './results.ts';

const numbers = (count: number) => Array.from({ length: count }, (_, i) => count - i);

describe('percentile', () => {
  test.each([
    [1, 50, 1],
    [2, 50, 1],
    [3, 50, 2],
    [5, 50, 3],
    [20, 50, 10],
    [20, 95, 19],
    [20, 100, 20],
    [100, 99, 99],
  ])('of the numbers up to %i, %i %%, is %i', (count, percent, expected) => {
    expect(percentile(numbers(count), percent)).toBe(expected);
  });

  test('of nothing is not known', () => expect(percentile([], 50)).toBeUndefined());
});

test('a summary is the median and the maximum; of nothing it is empty', () => {
  expect(summary([1200.4, 300, 99_999])).toBe('1,200 / 99,999');
  expect(summary([])).toBe('');
});

test('a table is Markdown', () => {
  expect(markdown(['', 'a'], [['x', '1']])).toBe('|  | a |\n| --- | ---: |\n| x | 1 |');
});

describe('kept runs', () => {
  const schema = z.object({ n: z.number() });

  test('are read, but for a last line that was torn', () => {
    expect(runsIn('{"n":1}\n{"n":2}\n{"n', schema)).toEqual([{ n: 1 }, { n: 2 }]);
    expect(runsIn('', schema)).toEqual([]);
  });

  test('of another form are refused, with their line', () => {
    expect(() => runsIn('{"n":1}\n{"m":2}\n', schema)).toThrow('line 2');
  });
});
