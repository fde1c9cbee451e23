import type { Schedule } from './faults.ts';
import { invariants } from './invariants.ts';
import { type Outcome, type RunOptions, run } from './world.ts';

/** What happens in a schedule, line by line: time in ms, instance, what it does and why. */
export function story(schedule: Schedule, options: RunOptions = {}): string[] {
  const lines: string[] = [];
  const outcome = run(schedule, { ...options, tell: (line) => lines.push(line) });
  const { config, instances, ttlMs } = schedule;
  return [
    `${instances} instances, ${config.synchronous} synchronous (${config.durability}), fencing ${config.fencing}, ttl ${ttlMs} ms`,
    ...lines,
    ending(outcome),
    `replay: npm run sim -- --replay '${JSON.stringify(schedule)}'`,
  ];
}

function ending({ violation, terms, acknowledged, simulatedMs }: Outcome): string {
  return violation === undefined
    ? `all is well after ${simulatedMs} ms, in term ${terms}, with ${acknowledged} commits acknowledged`
    : `broken: ${invariants[violation.invariant]}`;
}
