import { describe, expect, it } from 'vitest';
import { schedule } from './faults.ts';
import { shrink } from './shrink.ts';
import { story } from './story.ts';
import { run } from './world.ts';

const schedules = Number(process.env.KOSCHEI_SCHEDULES ?? 20_000);
const first = Number(process.env.KOSCHEI_SEED ?? 1);
const part = 1_000;

describe('the shipped decisions', () => {
  const parts = Array.from({ length: Math.ceil(schedules / part) }, (_, i) => first + i * part);
  it.each(parts)('keep every invariant in the schedules from seed %i on', { timeout: 300_000 }, (from) => {
    for (let seed = from; seed < from + part; seed++) {
      const which = schedule(seed);
      const { violation } = run(which);
      if (violation === undefined) continue;
      const { invariant, message } = violation;
      expect.fail(`seed ${seed}: ${invariant}: ${message}\n${story(shrink(which, invariant)).join('\n')}`);
    }
  });

  it('change the leader only when something goes wrong', () => {
    for (let seed = 1; seed <= 200; seed++) {
      const outcome = run({ ...schedule(seed), faults: [] });
      expect(outcome).toMatchObject({ terms: 1 });
      expect(outcome.acknowledged).toBeGreaterThan(3);
    }
  });
});

describe('a schedule', () => {
  it('is the same story every time', () => {
    for (let seed = 1; seed <= 20; seed++) expect(story(schedule(seed))).toEqual(story(schedule(seed)));
  });

  it('survives being written down', () => {
    const which = schedule(7);
    expect(run(JSON.parse(JSON.stringify(which)))).toEqual(run(which));
  });
});
