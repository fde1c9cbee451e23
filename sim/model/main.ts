import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { installMissing } from '../../e2e/packages.ts';
import { type ModelRun, runs, searchOf } from './runs.ts';
import { type Answer, check, story } from './spin.ts';

const help = `Usage: npm run model -- [options]

Searches all states that the models of sim/model can reach, and prints what was found. Without options: the short runs,
which are also part of \`npm test -- model\`. spin and gcc are installed if they are missing (root on Debian).

  --long         the long runs, too: minutes each, up to 5 GB of memory
  --run NAME     only this one; several times: these
  --story        tell the counterexample of what is broken, step by step
  --jobs N       so many at once (default: one per processor; long runs always go one by one)
  --limit S      give each long run so many seconds (default 900)
  --list         names only
`;

const { values } = parseArgs({
  options: {
    long: { type: 'boolean', default: false },
    run: { type: 'string', multiple: true },
    story: { type: 'boolean', default: false },
    jobs: { type: 'string', default: String(availableParallelism()) },
    limit: { type: 'string', default: '900' },
    list: { type: 'boolean', default: false },
    help: { type: 'boolean', default: false },
  },
});

function chosen(): readonly ModelRun[] {
  const names = values.run;
  if (names === undefined) return runs.filter((r) => values.long || !r.long);
  const unknown = names.filter((n) => !runs.some((r) => r.name === n));
  if (unknown.length > 0) throw new Error(`there is no run ${unknown.join(', ')}; --list names them`);
  return runs.filter((r) => names.includes(r.name));
}

/** Prints one row; false: it is not what is expected. */
function print(run: ModelRun, answer: Answer): boolean {
  const found = {
    holds: 'holds',
    partial: 'no error in a part',
    broken: `broken in ${answer.steps} steps`,
  }[answer.result];
  const good =
    answer.result === run.expect || (run.long && run.expect === 'holds' && answer.result === 'partial');
  const states = answer.states >= 1e6 ? `${(answer.states / 1e6).toFixed(2)} M` : String(answer.states);
  console.log(
    [
      run.name.padEnd(30),
      (good ? found : `${found}, EXPECTED: ${run.expect}`).padEnd(22),
      states.padStart(9),
      `${answer.seconds.toFixed(1)} s`.padStart(9),
      ` ${run.what}`,
    ].join(' '),
  );
  return good;
}

async function play(run: ModelRun): Promise<boolean> {
  const search = searchOf(run, Number(values.limit));
  try {
    const good = print(run, await check(search));
    if (values.story) for (const line of await story(search)) console.log(`    ${line}`);
    return good;
  } catch (error) {
    console.error(`${run.name}: ${error instanceof Error ? error.message : error}`);
    return false;
  }
}

async function main(): Promise<void> {
  await installMissing('compiler', 'spin');
  const all = chosen();
  const short = all.filter((r) => !r.long);
  let failed = 0;
  const worker = async () => {
    for (let run = short.shift(); run !== undefined; run = short.shift()) if (!(await play(run))) failed += 1;
  };
  await Promise.all(Array.from({ length: Math.max(1, Number(values.jobs)) }, worker));
  for (const run of all.filter((r) => r.long)) if (!(await play(run))) failed += 1;
  console.log(`${all.length - failed} as expected, ${failed} not`);
  process.exitCode = failed === 0 ? 0 : 1;
}

if (values.help) console.log(help);
else if (values.list) for (const { name, what } of runs) console.log(`${name.padEnd(30)} ${what}`);
else await main();
