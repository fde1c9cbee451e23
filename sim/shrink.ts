import type { Fault, Schedule } from './faults.ts';
import type { InvariantName } from './invariants.ts';
import { type RunOptions, run } from './world.ts';

/** How often a schedule is played at the most, to make it shorter. */
const maxRuns = 600;

/**
 * The shortest schedule found that breaks the same invariant: without every fault that can be left out (delta
 * debugging: halves first, then single faults), with shorter faults, fewer instances and a plainer configuration. What
 * happens besides the faults changes with every change of them, so a few other noises are tried, too.
 */
export function shrink(schedule: Schedule, invariant: InvariantName, options: RunOptions = {}): Schedule {
  let best = schedule;
  let runs = 0;
  /** Takes the candidate if it breaks the invariant, too. */
  const take = (candidate: Schedule): boolean => {
    for (const noise of [best.noise, best.noise + 1_000_003, best.noise + 2_000_003]) {
      if (runs >= maxRuns) return false;
      runs += 1;
      if (run({ ...candidate, noise }, options).violation?.invariant !== invariant) continue;
      best = { ...candidate, noise };
      return true;
    }
    return false;
  };

  for (let changed = true; changed && runs < maxRuns; ) {
    changed = removeFaults(() => best, take);
    if (best.instances > 2 && take(withFewerInstances(best))) changed = true;
    for (let i = 0; i < best.faults.length; i++)
      for (const shorter of shortened(best.faults[i]))
        if (take({ ...best, faults: best.faults.map((f, j) => (i === j ? shorter : f)) })) {
          changed = true;
          break;
        }
  }
  return best;
}

function removeFaults(best: () => Schedule, take: (candidate: Schedule) => boolean): boolean {
  let changed = false;
  for (let size = Math.ceil(best().faults.length / 2); size >= 1; size = size > 1 ? Math.ceil(size / 2) : 0) {
    for (let from = 0; from < best().faults.length; ) {
      const current = best();
      const faults = current.faults.filter((_, i) => i < from || i >= from + size);
      if (take({ ...current, faults })) changed = true;
      else from += size;
    }
  }
  return changed;
}

function withFewerInstances(schedule: Schedule): Schedule {
  const instances = schedule.instances - 1;
  const synchronous = Math.min(schedule.config.synchronous, instances - 1);
  const there = (value: unknown) => typeof value !== 'number' || value < instances;
  const faults = schedule.faults.filter((f) =>
    'from' in f ? there(f.from) && there(f.to) : 'who' in f ? there(f.who) : !('to' in f) || there(f.to),
  );
  // With fewer that may lead than are asked for, nothing could get well.
  const noFailover = schedule.noFailover?.filter((n) => n < instances).slice(0, instances - 1 - synchronous);
  return {
    ...schedule,
    instances,
    config: { ...schedule.config, synchronous },
    ...(noFailover === undefined ? {} : { noFailover }),
    faults,
  };
}

/** The same fault, but less of it. */
function shortened(fault: Fault | undefined): Fault[] {
  if (fault === undefined) return [];
  const shorter: Fault[] = [];
  if ('for' in fault && fault.for > 200) shorter.push({ ...fault, for: Math.floor(fault.for / 2) });
  if ('delay' in fault && fault.delay > 100) shorter.push({ ...fault, delay: Math.floor(fault.delay / 2) });
  return shorter;
}
