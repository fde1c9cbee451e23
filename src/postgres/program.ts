import { spawn } from 'node:child_process';
import { PostgresError } from './errors.ts';

/** What limits a call that can hang. */
export interface Limits {
  /** The call fails when it has taken this long, in milliseconds. */
  readonly timeoutMs?: number;
  /** The call fails with the signal's reason when it is aborted. */
  readonly signal?: AbortSignal;
}

export interface ProgramResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

const outputLimit = 1 << 20;

/**
 * Runs a program to its end in a process group of its own, and returns its exit code and the last MiB of its output;
 * an exit code other than 0 is no error here. Input and environment are the only ways to give it a secret.
 * Throws PostgresError `ProgramTimeout` after `timeoutMs`, `ProgramFailed` when it cannot be started or dies of a
 * signal, and the signal's reason when aborted; in each case the whole group has been killed and the program is gone.
 */
export async function runProgram(
  file: string,
  args: readonly string[],
  options: Limits & { input?: string; env?: NodeJS.ProcessEnv; cwd?: string } = {},
): Promise<ProgramResult> {
  options.signal?.throwIfAborted();
  return await new Promise((resolve, reject) => {
    const child = spawn(file, args, {
      cwd: options.cwd ?? '/',
      env: { PATH: process.env.PATH, LC_ALL: 'C', ...options.env },
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    let stdout = '';
    let stderr = '';
    let failure: unknown;

    const kill = (why: unknown): void => {
      failure ??= why;
      if (child.pid === undefined) return;
      try {
        process.kill(-child.pid, 'SIGKILL');
      } catch {
        // The group is gone already.
      }
    };
    const onAbort = (): void => kill(options.signal?.reason);
    options.signal?.addEventListener('abort', onAbort, { once: true });
    const timer =
      options.timeoutMs === undefined
        ? undefined
        : setTimeout(() => {
            kill(
              new PostgresError('ProgramTimeout', {
                expected: `${file} to end within ${options.timeoutMs} ms`,
                found: `still running; its last words: ${lastLines(stderr || stdout)}`,
                advice: 'it was killed; look for a stalled disk or an unreachable server',
              }),
            );
          }, options.timeoutMs);
    const settle = (): void => {
      clearTimeout(timer);
      options.signal?.removeEventListener('abort', onAbort);
    };

    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      stdout = (stdout + text).slice(-outputLimit);
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      stderr = (stderr + text).slice(-outputLimit);
    });
    child.stdin.on('error', () => {
      // The program ended without reading its input; its exit code tells why.
    });
    child.stdin.end(options.input ?? '');
    child.on('error', (cause) => {
      settle();
      reject(
        new PostgresError('ProgramFailed', {
          expected: `to start ${file}`,
          found: cause.message,
          advice: 'check that it is in the image and may be executed',
          cause,
        }),
      );
    });
    child.on('close', (code, signal) => {
      settle();
      if (failure !== undefined) reject(failure);
      else if (code === null) {
        reject(
          new PostgresError('ProgramFailed', {
            expected: `${file} to end by itself`,
            found: `it died of ${signal}; its last words: ${lastLines(stderr)}`,
            advice: 'look for the out-of-memory killer',
          }),
        );
      } else resolve({ code, stdout, stderr });
    });
  });
}

/** Like `runProgram`, but an exit code other than 0 is PostgresError `ProgramFailed` with the program's last words. */
export async function mustRunProgram(...call: Parameters<typeof runProgram>): Promise<ProgramResult> {
  const result = await runProgram(...call);
  if (result.code !== 0) {
    throw new PostgresError('ProgramFailed', {
      expected: `${call[0]} to succeed`,
      found: `exit code ${result.code}: ${lastLines(result.stderr || result.stdout)}`,
      advice: 'its own words above say what to do',
    });
  }
  return result;
}

/** The end of a program's output, short enough for a message. */
export function lastLines(output: string, count = 5): string {
  return output.trim().split('\n').slice(-count).join(' | ').slice(-1000);
}
