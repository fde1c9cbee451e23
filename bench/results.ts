import { appendFileSync, existsSync, mkdirSync, readFileSync } from 'node:fs';
import { cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import type { z } from 'zod';
import { repository } from '../e2e/cluster/settings.ts';

/** Appends a run to `.state/bench/<name>.jsonl`, so that a long measurement can be resumed. */
export function record(name: string, run: object): void {
  mkdirSync(join(repository, '.state/bench'), { recursive: true });
  appendFileSync(fileOf(name), `${JSON.stringify(run)}\n`);
}

/** Every run recorded so far. The last line may be torn, if the machine stopped while it was written; it is left out. */
export function recorded<T>(name: string, schema: z.ZodType<T>): T[] {
  if (!existsSync(fileOf(name))) return [];
  return runsIn(readFileSync(fileOf(name), 'utf8'), schema);
}

/** @throws {Error} naming the line, if a whole one is not what the schema says. */
export function runsIn<T>(text: string, schema: z.ZodType<T>): T[] {
  const lines = text.split('\n');
  lines.pop();
  return lines.map((line, index) => {
    try {
      return schema.parse(JSON.parse(line));
    } catch (error) {
      throw new Error(`line ${index + 1} of the results is not a run: ${String(error)}`, { cause: error });
    }
  });
}

/**
 * The value that `percent` of the values do not exceed (nearest rank); undefined of none.
 * @param percent above 0, at most 100
 */
export function percentile(values: readonly number[], percent: number): number | undefined {
  return values.toSorted((a, b) => a - b)[Math.ceil((percent / 100) * values.length) - 1];
}

/** `median / maximum`, rounded; empty of none. */
export function summary(values: readonly number[]): string {
  const [median, maximum] = [percentile(values, 50), percentile(values, 100)];
  return median === undefined || maximum === undefined ? '' : `${thousands(median)} / ${thousands(maximum)}`;
}

/** Rounded, with a comma between thousands. */
export function thousands(value: number): string {
  return Math.round(value).toLocaleString('en-US');
}

/** A Markdown table; all columns but the first are numbers. */
export function markdown(columns: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.join(' | ')} |`;
  return [line(columns), line(columns.map((_, i) => (i === 0 ? '---' : '---:'))), ...rows.map(line)].join(
    '\n',
  );
}

/** The machine, for the reader of the figures. */
export function machine(): string {
  return `${cpus().length} cores (${cpus()[0]?.model.trim()}), ${Math.round(totalmem() / 2 ** 30)} GiB`;
}

function fileOf(name: string): string {
  return join(repository, '.state/bench', `${name}.jsonl`);
}
