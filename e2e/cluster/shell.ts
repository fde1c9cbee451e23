import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';

export interface RunOptions {
  /** Text for the standard input. */
  readonly input?: string;
  /** File for the standard input; wins over `input`. */
  readonly inputFile?: string;
  /** File that receives the standard output, which is then not returned. */
  readonly outputFile?: string;
  /** Added to this process's environment. */
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  /** Milliseconds after which the command is killed; none by default. */
  readonly timeout?: number;
  /** Called with each line of both outputs as it comes. */
  readonly onLine?: (line: string) => void;
}

/** A command that could not be started, ended with another code than 0, or was killed. */
export class CommandError extends Error {
  readonly command: string;
  /** Exit code; undefined if there is none. */
  readonly code: number | undefined;
  readonly output: string;

  constructor(command: string, code: number | undefined, ending: string, output: string) {
    const tail = output.trimEnd().split('\n').slice(-15).join('\n');
    super(`\`${command}\` ${ending}${tail === '' ? '' : `:\n${tail}`}`);
    this.name = 'CommandError';
    this.command = command;
    this.code = code;
    this.output = output;
  }
}

/**
 * Runs a program without a shell and returns its standard output.
 * @throws {CommandError} with the last lines of both outputs, if it does not end with code 0.
 */
export async function run(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const shown = [program, ...args].join(' ').slice(0, 200);
  const files: number[] = [];
  const open = (path: string, flags: string) => {
    const file = openSync(path, flags);
    files.push(file);
    return file;
  };
  try {
    const child = spawn(program, args, {
      cwd: options.cwd,
      env: { ...process.env, ...options.env },
      stdio: [
        options.inputFile === undefined ? 'pipe' : open(options.inputFile, 'r'),
        options.outputFile === undefined ? 'pipe' : open(options.outputFile, 'w'),
        'pipe',
      ],
      ...(options.timeout === undefined ? {} : { timeout: options.timeout, killSignal: 'SIGKILL' }),
    });
    // A program that ends before it has read its input is judged by its exit code alone.
    child.stdin?.on('error', () => {});
    child.stdin?.end(options.input ?? '');
    let stdout = '';
    let both = '';
    for (const stream of [child.stdout, child.stderr]) {
      let line = '';
      stream?.setEncoding('utf8').on('data', (text: string) => {
        if (stream === child.stdout) stdout += text;
        both += text;
        if (options.onLine === undefined) return;
        const lines = (line + text).split('\n');
        line = lines.pop() ?? '';
        for (const each of lines) options.onLine(each);
      });
    }
    return await new Promise((resolve, reject) => {
      child.on('error', (error) =>
        reject(new CommandError(shown, undefined, `did not start (${error.message})`, '')),
      );
      child.on('close', (code, signal) => {
        if (code === 0) resolve(stdout);
        else if (signal === null)
          reject(new CommandError(shown, code ?? undefined, `ended with code ${code}`, both));
        else reject(new CommandError(shown, undefined, `was ended by ${signal}`, both));
      });
    });
  } finally {
    for (const file of files) closeSync(file);
  }
}

/** Whether a program ends with code 0; false also if it cannot be started. */
export async function succeeds(
  program: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<boolean> {
  return run(program, args, options).then(
    () => true,
    () => false,
  );
}

/** Runs docker and returns what it printed, without the last line feed. */
export async function docker(args: readonly string[], options: RunOptions = {}): Promise<string> {
  // Debian's docker has no BuildKit; a newer client without the plugin would ask for it.
  return (await run('docker', args, { ...options, env: { DOCKER_BUILDKIT: '0', ...options.env } })).trimEnd();
}

/**
 * Waits until `condition` returns true.
 * @param deadline milliseconds from now
 * @throws {Error} at the deadline, naming what was waited for.
 */
export async function waitUntil(
  what: string,
  deadline: number,
  condition: () => Promise<boolean>,
): Promise<void> {
  const end = performance.now() + deadline;
  while (!(await condition())) {
    if (performance.now() > end) throw new Error(`Waited ${deadline / 1000} s in vain for ${what}.`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

/** Prints a line with the seconds since this process started: `[ 12.3s] building Kubernetes ...`. */
export function report(line: string): void {
  console.log(`[${(process.uptime() || 0).toFixed(1).padStart(5)}s] ${line}`);
}
