import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type Schedule, schedule } from './faults.ts';
import { mutants } from './mutants/index.ts';
import { shipped } from './rules.ts';
import { namedSchedules } from './schedules/index.ts';
import { shrink } from './shrink.ts';
import { story } from './story.ts';
import { type RunOptions, run } from './world.ts';

const help = `Usage: npm run sim -- [options]

  --seed N          the first seed (default 1)
  --schedules M     how many schedules to play, each from a seed of its own (default 10000)
  --mutant NAME     with a rule broken on purpose; "all": each mutant, until it is caught
  --story           tell what happens in the schedule of --seed
  --named NAME      tell what happens in this named schedule (sim/schedules); "all": list them
  --replay JSON     tell what happens in this schedule
  --state FILE      remember in FILE how far it has come, and go on from there
  --minutes T       stop after T minutes (default: none)
`;

/** How many schedules lie between two looks at the clock and two writes of the state. */
const batch = 500;

interface Progress {
  readonly next: number;
  readonly schedules: number;
  readonly events: number;
}

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    schedules: { type: 'string', default: '10000' },
    mutant: { type: 'string' },
    story: { type: 'boolean', default: false },
    named: { type: 'string' },
    replay: { type: 'string' },
    state: { type: 'string' },
    minutes: { type: 'string' },
    help: { type: 'boolean', default: false },
  },
});

const mutant = mutants.find((m) => m.name === values.mutant);
const options: RunOptions =
  mutant === undefined ? {} : { rules: mutant.rules?.(shipped) ?? shipped, flaws: mutant.flaws ?? {} };
const seed = Number(values.seed);

if (values.help) console.log(help);
else if (values.named !== undefined) tellNamed(values.named);
else if (values.replay !== undefined) print(JSON.parse(values.replay) as Schedule);
else if (values.story) print(schedule(seed, mutant?.profile));
else if (values.mutant === 'all') catchMutants();
else if (values.mutant !== undefined && mutant === undefined)
  throw new Error(`there is no mutant "${values.mutant}": ${mutants.map((m) => m.name).join(', ')}`);
else process.exitCode = play() ? 0 : 1;

function print(which: Schedule): void {
  for (const line of story(which, options)) console.log(line);
}

function tellNamed(name: string): void {
  const named = namedSchedules.find((n) => n.name === name);
  if (named !== undefined) return print(named.schedule);
  for (const n of namedSchedules)
    console.log(`${n.name} (${n.counterexample}), without the rule: --mutant ${n.variant ?? '-'}`);
}

/** Plays schedule after schedule; false: one broke an invariant, and is told in its shortest form. */
function play(): boolean {
  const began = performance.now();
  const until =
    values.minutes === undefined ? Number.POSITIVE_INFINITY : began + Number(values.minutes) * 60_000;
  let done = resumed();
  const end = seed + Number(values.schedules);
  let events = 0;
  while (done.next < end && performance.now() < until) {
    const last = Math.min(end, done.next + batch);
    const before = events;
    for (let s = done.next; s < last; s++) {
      const which = schedule(s, mutant?.profile);
      const outcome = run(which, options);
      events += outcome.events;
      if (outcome.violation === undefined) continue;
      console.log(`seed ${s}: ${outcome.violation.invariant}: ${outcome.violation.message}`);
      print(shrink(which, outcome.violation.invariant, options));
      return false;
    }
    done = {
      next: last,
      schedules: done.schedules + last - done.next,
      events: done.events + events - before,
    };
    save(done);
  }
  const minutes = (performance.now() - began) / 60_000;
  console.log(
    `${done.schedules} schedules, ${done.events} events, nothing broken; ${Math.round(events / minutes)} events per minute`,
  );
  return true;
}

function resumed(): Progress {
  const { state } = values;
  if (state === undefined || !existsSync(state)) return { next: seed, schedules: 0, events: 0 };
  return JSON.parse(readFileSync(state, 'utf8')) as Progress;
}

function save(progress: Progress): void {
  const { state } = values;
  if (state === undefined) return;
  writeFileSync(`${state}.new`, `${JSON.stringify(progress)}\n`);
  renameSync(`${state}.new`, state);
}

function catchMutants(): void {
  for (const m of mutants) {
    const began = performance.now();
    const broken: RunOptions = { rules: m.rules?.(shipped) ?? shipped, flaws: m.flaws ?? {} };
    let caught: string | undefined;
    let s = seed;
    for (; caught === undefined && s < seed + Number(values.schedules); s++)
      caught = run(schedule(s, m.profile), broken).violation?.invariant;
    const ms = Math.round(performance.now() - began);
    console.log(`${m.name}: ${caught ?? 'not caught'}, ${s - seed} schedules, ${ms} ms`);
  }
}
