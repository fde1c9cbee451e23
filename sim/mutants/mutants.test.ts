import { expect, it } from 'vitest';
import { schedule } from '../faults.ts';
import { shipped } from '../rules.ts';
import { shrink } from '../shrink.ts';
import { run } from '../world.ts';
import { mutants } from './index.ts';

/** How many schedules a mutant may survive. */
const bound = 3_000;

it.each(mutants.map((m) => [m.name, m] as const))('%s is caught', { timeout: 120_000 }, (_name, mutant) => {
  const options = { rules: mutant.rules?.(shipped) ?? shipped, flaws: mutant.flaws ?? {} };
  // Other invariants may break, too: what counts is that those break which say what is wrong.
  for (let seed = 1; seed <= bound; seed++) {
    const { violation } = run(schedule(seed, mutant.profile), options);
    if (violation !== undefined && mutant.caughtBy.includes(violation.invariant)) return;
  }
  expect.fail(`${mutant.broken}: not caught in ${bound} schedules`);
});

it('the schedule that catches one is shrunk to a short story', { timeout: 60_000 }, () => {
  const mutant = mutants.find((m) => m.name === 'anyone-stands');
  const options = { rules: mutant?.rules?.(shipped) ?? shipped };
  for (let seed = 1; ; seed++) {
    const which = schedule(seed, mutant?.profile);
    const { violation } = run(which, options);
    if (violation === undefined || which.faults.length < 4) continue;
    const shortest = shrink(which, violation.invariant, options);
    expect(run(shortest, options).violation?.invariant).toBe(violation.invariant);
    expect(shortest.faults.length).toBeLessThan(4);
    return;
  }
});
