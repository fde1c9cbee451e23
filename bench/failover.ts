import { report } from '../e2e/cluster/shell.ts';
import { Koschei } from './failover/koschei.ts';
import { measure } from './failover/measure.ts';
import { help, type Options, parseOptions } from './failover/options.ts';
import { Patroni, removePeer } from './failover/patroni.ts';
import { reportOf } from './failover/report.ts';
import { type Block, blocksLeft, isPeer, Run, type Subject } from './failover/runs.ts';
import type { Stack } from './failover/stack.ts';
import { machine, record, recorded } from './results.ts';

const file = 'failover';

/** One stack at a time is there; the others cost it nothing. */
class Stacks {
  readonly #installed = new Map<string, Koschei | Patroni>();
  #running: Stack | undefined;

  /** Installs what a subject needs, once, and returns its version. */
  async versionOf(subject: Subject): Promise<string> {
    return (await this.#install(subject)).version;
  }

  async #install(subject: Subject): Promise<Koschei | Patroni> {
    const key = isPeer(subject) ? subject : 'koschei';
    const present = this.#installed.get(key);
    if (present !== undefined) return present;
    const made =
      subject === 'patroni-default' || subject === 'patroni-minimum'
        ? await Patroni.install(subject)
        : await Koschei.install();
    this.#installed.set(key, made);
    return made;
  }

  /** The stack of a subject, running and well. */
  async running(subject: Subject): Promise<Stack> {
    const wanted = await this.#install(subject);
    if (this.#running !== wanted) {
      await this.close();
      this.#running = wanted;
      await wanted.start();
    }
    if (wanted instanceof Koschei) await wanted.withApi(subject !== 'koschei-without-api');
    return wanted;
  }

  async close(): Promise<void> {
    await this.#running?.close();
    this.#running = undefined;
  }
}

async function measureAll(options: Options): Promise<boolean> {
  const end = options.minutes === undefined ? undefined : performance.now() + options.minutes * 60_000;
  const isOver = () => end !== undefined && performance.now() > end;
  const stacks = new Stacks();
  const failures: string[] = [];
  try {
    await removePeer();
    const versions: Partial<Record<Subject, string>> = {};
    for (const subject of options.subjects) versions[subject] = await stacks.versionOf(subject);
    const blocks = blocksLeft(options, recorded(file, Run), versions);
    report(`${blocks.reduce((sum, { runs }) => sum + runs, 0)} runs are left`);
    for (const block of blocks) {
      if (isOver()) break;
      const failure = await measureBlock(stacks, block, isOver);
      if (failure !== undefined) failures.push(failure);
    }
  } finally {
    await stacks.close();
  }
  for (const failure of failures) console.error(`FAILED: ${failure}`);
  return failures.length === 0;
}

/** @returns what went wrong; the other runs of the block are then left for another time. */
async function measureBlock(
  stacks: Stacks,
  { row, subject, runs }: Block,
  isOver: () => boolean,
): Promise<string | undefined> {
  let stack: Stack | undefined;
  try {
    stack = await stacks.running(subject);
    await stack.waitHealthy(180_000);
    for (let i = 0; i < runs && !isOver(); i += 1) {
      const run = await measure(stack, row, subject);
      record(file, run);
      report(`${row.id}, ${subject}: ${describe(run)}`);
    }
    return undefined;
  } catch (error) {
    const where = await stack?.explain(`bench-${row.id}-${subject}`).catch(() => 'nowhere');
    const text = `${row.id}, ${subject}: ${error instanceof Error ? error.message : error} (details in ${where})`;
    report(text);
    await stacks.close();
    return text;
  }
}

function describe({ gaps, phases, lost, faults, unrecovered, redundantAfter, moved }: Run): string {
  const list = (values: Readonly<Record<string, number>>) =>
    Object.entries(values)
      .map(([name, value]) => `${name} ${Math.round(value)}`)
      .join(', ');
  return [
    `gap ${list(gaps)} ms`,
    ...(unrecovered.length === 0 ? [] : [`NOT RECOVERED until undone: ${unrecovered.join(', ')}`]),
    ...(Object.keys(phases).length === 0 ? [] : [list(phases)]),
    moved ? 'moved' : 'stayed',
    `redundant after ${Math.round(redundantAfter)}`,
    ...(lost === 0 ? [] : [`${lost} LOST`]),
    ...faults,
  ].join('; ');
}

try {
  const options = parseOptions(process.argv.slice(2));
  if (options.help) console.log(help);
  else {
    const good = options.report || (await measureAll(options));
    console.log(`\n${reportOf(recorded(file, Run), machine())}\n`);
    process.exit(good ? 0 : 1);
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exit(1);
}
