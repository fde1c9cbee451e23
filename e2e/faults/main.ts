import { parseArgs } from 'node:util';
import { hasFaults, healCluster } from '../cluster/cluster.ts';
import { report } from '../cluster/shell.ts';
import { install } from '../install.ts';
import { messageOf } from '../ledger/connection.ts';
import { faultNamed, faults } from './catalogue.ts';
import { openCluster } from './cluster.ts';
import { drill } from './drill.ts';
import type { Fault } from './fault.ts';
import { Journal } from './journal.ts';
import { record, recorded, schedule, writeReport } from './results.ts';

const help = `Usage: npm run faults -- --faults <name>,<name>,... [--repeat <n>] [--minutes <n>]
       npm run faults -- --list | --undo

Makes faults happen to a cluster under load on the local Kubernetes, one after the other, and judges what clients saw.
docs/faults.md says how to read the report.

  --faults <names>  which; "all" is every one, "one+other" is two at once
  --repeat <n>      how often each is judged (default 1). Runs are appended to .state/faults/<run>.jsonl: the same
                    command again goes on where it was
  --minutes <n>     begin nothing new after that time
  --run <name>      another name for the results (default: default)
  --seed <n>        the order of the faults (default 1)
  --keep            leave the cluster, and take it over the next time
  --list            all faults, with what is expected of them
  --undo            undo whatever an interrupted run has left behind, and nothing else
`;

const { values: options } = parseArgs({
  options: {
    faults: { type: 'string' },
    repeat: { type: 'string', default: '1' },
    minutes: { type: 'string' },
    run: { type: 'string', default: 'default' },
    seed: { type: 'string', default: '1' },
    keep: { type: 'boolean', default: false },
    list: { type: 'boolean', default: false },
    undo: { type: 'boolean', default: false },
    help: { type: 'boolean', short: 'h', default: false },
  },
});

/** @throws {Error} unless the text is a whole number of at least `least`. */
function whole(name: string, text: string, least: number): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < least) {
    throw new Error(`expected a whole number of at least ${least} for --${name}, found ${text}`);
  }
  return value;
}

function list(): string {
  return faults
    .map(({ name, description, holdMs, expects, disks }) => {
      const [least, most] = expects.failovers;
      const range = least === most ? `${least}` : `${least}-${most}`;
      const where = expects.routes === undefined ? '' : ` on ${expects.routes.join(', ')}`;
      const own = disks === undefined ? '' : '; on volumes of its own';
      return (
        `${name.padEnd(22)}${description}\n${' '.repeat(22)}` +
        `${holdMs / 1000} s; failovers ${range}; gap at most ${expects.gap / 1000} s${where}${own}\n`
      );
    })
    .join('');
}

/** Undoes everything in the journal. */
async function undoAll(journal: Journal): Promise<boolean> {
  for (const { fault, undo } of journal.entries()) report(`undoing ${fault}: ${undo.what}`);
  const problems = await journal.undo();
  for (const problem of problems) console.error(problem);
  return problems.length === 0;
}

async function main(): Promise<boolean> {
  if (options.help) {
    console.log(help);
    return true;
  }
  if (options.list) {
    process.stdout.write(list());
    return true;
  }
  if (!hasFaults) throw new Error('Faults can be made on the local cluster only: KOSCHEI_CONTEXT is set.');
  const journal = new Journal();
  if (options.undo) return undoAll(journal);
  if (options.faults === undefined) throw new Error(`Which faults?\n\n${help}`);
  if (!/^[a-z0-9-]+$/.test(options.run))
    throw new Error(`expected a name such as night-1, found ${options.run}`);
  const chosen =
    options.faults === 'all' ? faults : options.faults.split(',').map((name) => faultNamed(name.trim()));
  const repeat = whole('repeat', options.repeat, 1);
  const minutes =
    options.minutes === undefined ? Number.POSITIVE_INFINITY : whole('minutes', options.minutes, 1);
  return runAll(journal, chosen, repeat, whole('seed', options.seed, 0), minutes);
}

async function runAll(
  journal: Journal,
  chosen: readonly Fault[],
  repeat: number,
  seed: number,
  minutes: number,
): Promise<boolean> {
  if (!(await undoAll(journal))) throw new Error('An earlier run has left faults that cannot be undone.');
  let interrupted = false;
  const interrupt = (signal: NodeJS.Signals) => {
    if (interrupted) return;
    interrupted = true;
    journal.close();
    console.error(`\n${signal}: undoing what is under way ...`);
    void undoAll(journal).then((good) => {
      console.error(
        good ? 'undone; the cluster is left as it is' : 'npm run faults -- --undo tries it again',
      );
      process.exit(130);
    });
  };
  process.on('SIGINT', interrupt).on('SIGTERM', interrupt);

  await install();
  await healCluster();
  const arena = await openCluster(chosen.map(({ disks }) => disks));
  const end = performance.now() + minutes * 60_000;
  const run = options.run;
  let good = true;
  try {
    for (const fault of schedule(chosen, seed, repeat, recorded(run))) {
      if (performance.now() > end) break;
      const result = await drill(await arena.healthy(), fault, journal);
      record(run, result);
      if (result.verdict !== 'pass') good = false;
      const [service, multiHost] = [result.gaps.service, result.gaps['multi-host']].map((gap) =>
        gap === undefined ? '?' : `${Math.round(gap)} ms`,
      );
      const redundant = result.fromFault === undefined ? '?' : `${(result.fromFault / 1000).toFixed(1)} s`;
      report(
        `${result.verdict.padEnd(10)} ${fault.name} (${result.target}): gap ${service}, multi-host ${multiHost}; ` +
          `redundant after ${redundant}; ${result.failovers ?? '?'} failovers; ${result.acknowledged ?? 0} acknowledged, ` +
          `${result.lost ?? '?'} lost, ${result.indeterminate ?? '?'} indeterminate`,
      );
      for (const problem of result.problems) report(`           ${problem}`);
      writeReport(run, heading(repeat, seed));
    }
  } finally {
    if (!interrupted && !(await undoAll(journal))) good = false;
    if (!interrupted && !options.keep) await arena.remove();
  }
  if (recorded(run).length > 0) report(`report: ${writeReport(run, heading(repeat, seed))}`);
  return good;
}

const heading = (repeat: number, seed: number) =>
  `\`npm run faults -- --faults ${options.faults} --repeat ${repeat} --seed ${seed} --run ${options.run}\``;

try {
  if (!(await main())) process.exitCode = 1;
} catch (error) {
  console.error(messageOf(error));
  process.exitCode = 1;
}
