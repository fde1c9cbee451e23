import { mkdirSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { repository } from '../../e2e/cluster/settings.ts';
import { CommandError, run } from '../../e2e/cluster/shell.ts';

/** A question to the model checker. */
export interface Search {
  /** Names a build directory: two searches at once must not share it. */
  readonly name: string;
  readonly model: string;
  readonly defines: readonly string[];
  /** Written beside the model as `case.h`. */
  readonly header?: string;
  /** Breadth first finds the shortest counterexample; depth first needs less memory. */
  readonly breadthFirst: boolean;
  /**
   * How visited states are kept. `compact`: a hash of 64 bits each, so two states in a search of 100 million collide with
   * a probability below one in a thousand. `bits`: three bits in a table of `memoryMb`; what was not visited stays unknown.
   */
  readonly store: 'compact' | 'bits';
  /** Of the whole search, megabytes. */
  readonly memoryMb: number;
  /** After this the search ends with what it has, seconds. */
  readonly limitS: number;
}

export interface Answer {
  /** `holds`: every reachable state was visited. `partial`: none that was visited breaks anything, but not all were. */
  readonly result: 'holds' | 'broken' | 'partial';
  readonly states: number;
  readonly seconds: number;
  /** Of the counterexample. */
  readonly steps?: number;
  /** The assertion that failed. */
  readonly assertion?: string;
}

const models = `${repository}/sim/model`;

function directory(search: Search): string {
  return `${repository}/.state/model/${search.name}`;
}

function withDefines(search: Search): string[] {
  return search.defines.map((d) => `-D${d}`);
}

/** The model as the model checker reads it, in the build directory. */
async function prepare(search: Search): Promise<string> {
  const at = directory(search);
  rmSync(at, { recursive: true, force: true });
  mkdirSync(at, { recursive: true });
  await run('cp', [join(models, search.model), at]);
  if (search.header !== undefined) writeFileSync(join(at, 'case.h'), search.header);
  return at;
}

/**
 * Builds the verifier and searches.
 * @throws {CommandError} if the model cannot be translated or compiled; {Error} if the verifier says something unexpected.
 */
export async function check(search: Search): Promise<Answer> {
  const at = await prepare(search);
  await run('spin', [...withDefines(search), '-a', search.model], { cwd: at });
  const flags = [
    '-DSAFETY',
    '-DNOFAIR',
    '-DNOCLAIM',
    `-DMEMLIM=${search.memoryMb}`,
    search.store === 'compact' ? '-DHC4' : '-DBITSTATE',
    ...(search.breadthFirst ? ['-DBFS'] : []),
  ];
  // A search that ends at a short counterexample takes less time than the compiler's optimizer.
  await run('gcc', ['-w', search.breadthFirst ? '-O0' : '-O2', ...flags, '-o', 'pan', 'pan.c'], { cwd: at });
  const table = search.store === 'bits' ? Math.floor(Math.log2(search.memoryMb * 0.75 * 2 ** 23)) : 22;
  const args = [`-w${table}`, '-m4000000', ...(search.defines.includes('LIVENESS') ? [] : ['-E'])];
  const began = performance.now();
  let output: string;
  try {
    output = await run('timeout', ['--signal=INT', '--kill-after=20', `${search.limitS}`, './pan', ...args], {
      cwd: at,
    });
  } catch (error) {
    // 124: the time was over, and the verifier said what it had.
    if (!(error instanceof CommandError)) throw error;
    output = error.output;
  }
  return parse(search, output, (performance.now() - began) / 1000);
}

function parse(search: Search, output: string, seconds: number): Answer {
  const states = Number(/([\d.e+]+) states, stored/.exec(output)?.[1] ?? Number.NaN);
  const broken = /pan:\s*\d+:\s*(assertion violated .*?) \(at depth (\d+)\)/.exec(output);
  if (broken !== null)
    return {
      result: 'broken',
      states,
      seconds,
      steps: Number(broken[2]) + 1,
      assertion: broken[1] ?? '',
    };
  if (
    /max search depth too small|out of memory|Search not completed|interrupted/i.test(output) ||
    !output.includes('errors: 0')
  )
    return { result: 'partial', states, seconds };
  if (Number.isNaN(states)) throw new Error(`${search.name}: the verifier said:\n${output}`);
  return { result: search.store === 'bits' ? 'partial' : 'holds', states, seconds };
}

/** The steps of the counterexample that the last search of this name left, one line each; empty: it left none. */
export async function story(search: Search): Promise<string[]> {
  const at = directory(search);
  const trail = readdirSync(at).find((f) => f.endsWith('.trail'));
  if (trail === undefined) return [];
  let output: string;
  try {
    output = await run('spin', [...withDefines(search), '-T', '-k', trail, search.model], { cwd: at });
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    output = error.output;
  }
  const lines = output.split('\n').map((line) => line.trim());
  const end = lines.findIndex((line) => line.startsWith('#processes') || line.startsWith('spin: trail ends'));
  return lines.slice(0, end < 0 ? undefined : end).filter((line) => line !== '');
}
