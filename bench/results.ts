import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { repository } from '../e2e/cluster/settings.ts';

/** One measured run; times in milliseconds. */
export interface Run {
  readonly row: string;
  readonly at: string;
  readonly values: Readonly<Record<string, number>>;
}

/** Appends a run to `.state/bench/<name>.jsonl`, so that a long measurement can be resumed. */
export function record(name: string, run: Run): void {
  mkdirSync(join(repository, '.state/bench'), { recursive: true });
  appendFileSync(fileOf(name), `${JSON.stringify(run)}\n`);
}

/** Every run recorded so far. */
export function recorded(name: string): Run[] {
  if (!existsSync(fileOf(name))) return [];
  return readFileSync(fileOf(name), 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as Run);
}

/** A Markdown table: one line per row, median and maximum of each value, and the number of runs. */
export function table(runs: readonly Run[], columns: readonly string[]): string {
  const rows = [...new Set(runs.map((run) => run.row))];
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [
    line(['', ...columns, 'runs']),
    line(['---', ...columns.map(() => '---:'), '---:']),
    ...rows.map((row) => {
      const of = runs.filter((run) => run.row === row);
      return line([row, ...columns.map((column) => summary(of, column)), String(of.length)]);
    }),
  ].join('\n');
}

/** The machine, for the reader of the figures. */
export function machine(): string {
  return `${cpus().length} cores (${cpus()[0]?.model.trim()}), ${Math.round(totalmem() / 2 ** 30)} GiB`;
}

function summary(runs: readonly Run[], column: string): string {
  const values = runs.flatMap((run) => run.values[column] ?? []).sort((a, b) => a - b);
  const [median, max] = [values[Math.floor((values.length - 1) / 2)], values.at(-1)];
  return median === undefined || max === undefined ? '' : `${Math.round(median)} / ${Math.round(max)}`;
}

function fileOf(name: string): string {
  return join(repository, '.state/bench', `${name}.jsonl`);
}
