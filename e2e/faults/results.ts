import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { repository } from '../cluster/settings.ts';
import type { Route } from '../ledger/history.ts';
import type { Fault } from './fault.ts';

const count = z.int().min(0).exactOptional();
const milliseconds = z.number().exactOptional();
const result = z.object({
  fault: z.string(),
  at: z.iso.datetime(),
  /** What was hit. */
  target: z.string(),
  /** `unverified`: something was in the way of judging; never good. */
  verdict: z.enum(['pass', 'fail', 'unverified']),
  problems: z.array(z.string()),
  /** The longest time without an acknowledgement since the fault, milliseconds. */
  gaps: z.object({ service: milliseconds, 'multi-host': milliseconds }),
  /** Milliseconds from the fault's begin and from its end until everything was redundant again. */
  fromFault: milliseconds,
  fromEnd: milliseconds,
  /** New terms. */
  failovers: z.int().exactOptional(),
  /** Writes and transfers. */
  acknowledged: count,
  failed: count,
  indeterminate: count,
  lost: count,
  reads: count,
  /** Old values from a replaced primary, within the time that it may answer. */
  staleReads: count,
  audits: count,
});
/** What came of one fault. */
export type Result = z.infer<typeof result>;

const folder = join(repository, '.state/faults');
const fileOf = (run: string, ending: string) => join(folder, `${run}.${ending}`);

/** Appends a result to `.state/faults/<run>.jsonl`, so that a long run can be resumed. */
export function record(run: string, made: Result): void {
  mkdirSync(folder, { recursive: true });
  appendFileSync(fileOf(run, 'jsonl'), `${JSON.stringify(made)}\n`);
}

/** Every result of a run so far. @throws {Error} on a line that is none. */
export function recorded(run: string): Result[] {
  if (!existsSync(fileOf(run, 'jsonl'))) return [];
  return readFileSync(fileOf(run, 'jsonl'), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => result.parse(JSON.parse(line)));
}

/**
 * Which fault comes next, round after round; each round has every fault once, in an order that follows from the seed.
 * What was judged already is left out; what could not be judged comes again.
 * @param rounds how often each fault is to be judged in all
 */
export function* schedule(
  faults: readonly Fault[],
  seed: number,
  rounds: number,
  done: readonly Pick<Result, 'fault' | 'verdict'>[],
): Generator<Fault> {
  const judged = new Map<string, number>();
  for (const { fault, verdict } of done) {
    if (verdict !== 'unverified') judged.set(fault, (judged.get(fault) ?? 0) + 1);
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const fault of shuffled(faults, seed + round))
      if ((judged.get(fault.name) ?? 0) <= round) yield fault;
  }
}

/** The same order for the same seed, everywhere: ranks from a multiplicative hash of seed and place. */
function shuffled<T>(items: readonly T[], seed: number): T[] {
  const rank = (index: number) => {
    let mixed = Math.imul(seed + 1, 0x9e3779b1) ^ Math.imul(index + 1, 0x85ebca6b);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x2c1b3c6d);
    return (mixed ^ (mixed >>> 13)) >>> 0;
  };
  return items
    .map((item, index) => ({ item, rank: rank(index) }))
    .sort((a, b) => a.rank - b.rank)
    .map(({ item }) => item);
}

/** Writes the report of a run as Markdown and JSON and returns the Markdown's path. */
export function writeReport(run: string, heading: string): string {
  const results = recorded(run);
  const file = fileOf(run, 'md');
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, reportOf(results, heading));
  writeFileSync(fileOf(run, 'json'), `${JSON.stringify(results, undefined, 2)}\n`);
  return file;
}

/** A table with one line per fault, and what is wrong below it. */
export function reportOf(results: readonly Result[], heading: string): string {
  const columns = [
    ...['fault', 'runs', 'gap, Service (ms)', 'gap, multi-host (ms)', 'redundant after (s)', 'failovers'],
    ...['acknowledged', 'indeterminate', 'lost', 'stale reads', 'verdict'],
  ];
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  const groups = [...Map.groupBy(results, ({ fault }) => fault)].sort(([a], [b]) => (a < b ? -1 : 1));
  const gap = (of: readonly Result[], route: Extract<Route, keyof Result['gaps']>) =>
    spread(of.map(({ gaps }) => gaps[route]));
  const lines = groups.map(([fault, all]) => {
    const of = all.filter(({ verdict }) => verdict !== 'unverified');
    const sum = (pick: (result: Result) => number | undefined) =>
      String(of.reduce((total, each) => total + (pick(each) ?? 0), 0));
    return line([
      ...[fault, String(of.length)],
      ...[gap(of, 'service'), gap(of, 'multi-host')],
      spread(of.map(({ fromFault }) => fromFault && fromFault / 1000)),
      [...new Set(of.map(({ failovers }) => failovers ?? '?'))].sort().join(', '),
      ...[sum((each) => each.acknowledged), sum((each) => each.indeterminate), sum((each) => each.lost)],
      ...[sum((each) => each.staleReads), verdictOf(all)],
    ]);
  });
  const wrong = results
    .filter(({ verdict }) => verdict !== 'pass')
    .map(
      ({ fault, at, target, verdict, problems }) =>
        `- **${fault}**, ${at}, ${target || 'no target'}: ${verdict}\n${problems.map((each) => `  - ${each}`).join('\n')}`,
    );
  return [
    `# Faults\n\n${heading}\n`,
    'Gaps and times: median / maximum. Gap: the longest time without an acknowledged write since the fault. Redundant:',
    'from the begin of the fault until there was one primary, every standby streamed and the synchronous set was full.\n',
    line(columns),
    line(columns.map((_, index) => (index === 0 || index === columns.length - 1 ? '---' : '---:'))),
    ...lines,
    ...(wrong.length === 0 ? [] : ['\n## What is wrong\n', ...wrong]),
    '',
  ].join('\n');
}

function verdictOf(results: readonly Result[]): string {
  const of = (verdict: Result['verdict']) => results.filter((each) => each.verdict === verdict).length;
  const counts = [`${of('pass')} passed`];
  if (of('fail') > 0) counts.push(`${of('fail')} **failed**`);
  if (of('unverified') > 0) counts.push(`${of('unverified')} not verified`);
  return counts.join(', ');
}

/** Median and maximum. */
function spread(values: readonly (number | undefined)[]): string {
  const known = values.filter((each) => each !== undefined).sort((a, b) => a - b);
  const [median, max] = [known[Math.floor((known.length - 1) / 2)], known.at(-1)];
  if (median === undefined || max === undefined) return '';
  const shown = (value: number) =>
    value < 1000 && !Number.isInteger(value) ? value.toFixed(1) : value.toFixed(0);
  return `${shown(median)} / ${shown(max)}`;
}
