import { describe, expect, it } from 'vitest';
import { mutants } from '../mutants/index.ts';
import { shipped } from '../rules.ts';
import { run } from '../world.ts';
import { ce01LateAcknowledgement } from './ce01-late-acknowledgement.ts';
import { type NamedSchedule, namedSchedules } from './index.ts';

/** The same faults with other delays and clocks: a change of the code moves what happens a little. */
function* withOtherNoises({ schedule }: NamedSchedule, count: number) {
  for (let i = 0; i < count; i++) yield { ...schedule, noise: schedule.noise + i };
}

describe.each(namedSchedules.map((n) => [n.name, n] as const))('%s', (_name, named) => {
  it('breaks nothing', () => {
    for (const schedule of withOtherNoises(named, 100)) expect(run(schedule).violation).toBeUndefined();
  });

  it.skipIf(named.variant === undefined)('breaks an invariant without the rule', () => {
    const mutant = mutants.find((m) => m.name === named.variant);
    const options = { rules: mutant?.rules?.(shipped) ?? shipped, flaws: mutant?.flaws ?? {} };
    const broken = [...withOtherNoises(named, 300)].some((schedule) => {
      const invariant = run(schedule, options).violation?.invariant;
      return invariant !== undefined && mutant?.caughtBy.includes(invariant);
    });
    expect(broken).toBe(true);
  });
});

it('ce01-late-acknowledgement has an old primary acknowledge after the new one was promoted', () => {
  const late = [...withOtherNoises(ce01LateAcknowledgement, 100)].map((s) => run(s).acknowledgedLate);
  expect(Math.max(...late)).toBeGreaterThan(0);
});
