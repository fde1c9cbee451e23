import { describe, expect, it } from 'vitest';
import { runs, searchOf } from './runs.ts';
import { check } from './spin.ts';

const short = runs.filter((r) => !r.long);

describe('the models', () => {
  it.concurrent.each(short.map((r) => [r.name, r.expect, r] as const))(
    '%s: %s',
    async (_name, expected, run) => {
      expect((await check(searchOf(run, 100))).result).toBe(expected);
    },
  );
});

describe('the table of runs', () => {
  it('names each run once', () => {
    expect(new Set(runs.map((r) => r.name)).size).toBe(runs.length);
  });

  it.each(['R1', 'R2', 'R3', 'R4', 'R5', 'R6', 'R7', 'R8', 'R9', 'R10', 'R11'])(
    'breaks %s, and holds with it',
    (rule) => {
      const about = short.filter((r) => r.rules.includes(rule)).map((r) => r.expect);
      expect(new Set(about)).toEqual(new Set(['holds', 'broken']));
    },
  );
});
