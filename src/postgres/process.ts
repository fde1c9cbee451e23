import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { type PostgresInstallation, programPath } from './binaries.ts';
import { withLimits } from './deadline.ts';
import { ifThere } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import { isDoomed, postgresProcesses, sendSignal, workingDirectory } from './processes.ts';
import type { Limits } from './program.ts';

/** How a postmaster ended. */
export interface PostmasterExit {
  readonly pid: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** What postmaster.pid says of a running postmaster; `starting` covers recovery before consistency. */
export type PostmasterStatus = 'stopped' | 'starting' | 'ready' | 'stopping';

/** Result of a fence. */
export interface FenceReport {
  /** From the call until nothing could be acknowledged any more. */
  readonly elapsedMs: number;
  /** How many processes needed SIGKILL. */
  readonly killed: number;
  /**
   * Processes in uninterruptible sleep with SIGKILL pending. They acknowledge nothing any more, but the data directory
   * counts as in use until they are gone.
   */
  readonly uninterruptible: readonly number[];
}

interface Postmaster {
  readonly pid: number;
  readonly child: ChildProcessByStdio<null, Readable, Readable>;
  readonly ended: Promise<PostmasterExit>;
  readonly lastWords: string[];
  exit: PostmasterExit | undefined;
}

/** The Postgres of this installation as a child of this process. One runs at a time. `dataRoot` holds no symlinks. */
export class PostgresProcess {
  readonly #installation: PostgresInstallation;
  readonly #onLog: (line: string) => void;
  readonly #onExit: (exit: PostmasterExit) => void;
  #postmaster: Postmaster | undefined;
  /** The look at postmaster.pid under way. */
  #asking: Promise<PostmasterStatus> | undefined;

  /**
   * `onLog` gets each line of its log as Postgres wrote it (see `PostgresLogParser`); `onExit` is called once for each
   * postmaster, as soon as it has ended. Children of it may then still live: `fence` ends them.
   */
  constructor(
    installation: PostgresInstallation,
    options: { onLog: (line: string) => void; onExit: (exit: PostmasterExit) => void },
  ) {
    this.#installation = installation;
    this.#onLog = options.onLog;
    this.#onExit = options.onExit;
  }

  /** The postmaster, or undefined when none runs. */
  get pid(): number | undefined {
    return this.#postmaster?.exit === undefined ? this.#postmaster?.pid : undefined;
  }

  /**
   * Starts the postmaster and returns its pid at once; `waitUntilReady` follows. Removes a stale postmaster.pid and
   * socket lock, having checked that no process works in the data directory. Throws PostgresError `AlreadyRunning`,
   * `StaleProcesses` (fence first), `StartFailed`, and the signal's reason: once that is aborted nothing is started, and
   * what was started before is known to `fence`.
   */
  async start({ signal }: Pick<Limits, 'signal'> = {}): Promise<number> {
    const { paths, binaries } = this.#installation;
    if (this.pid !== undefined) {
      throw new PostgresError('AlreadyRunning', {
        expected: 'no running postmaster',
        found: `pid ${this.pid}`,
        advice: 'stop or fence it first',
      });
    }
    const stale = postgresProcesses(paths.dataRoot);
    if (stale.length > 0) {
      throw new PostgresError('StaleProcesses', {
        expected: `no process that works in ${paths.dataRoot}`,
        found: `pids ${stale.join(', ')}`,
        advice: 'fence first; when they are in uninterruptible sleep, the disk must come back',
      });
    }
    // In a new container pids start again from 1, so that a lock left by the last one may name any process or thread.
    await rm(join(paths.pgdata, 'postmaster.pid'), { force: true });
    await rm(join(paths.socketDir, `.s.PGSQL.${paths.port}.lock`), { force: true });

    // Nothing is awaited between this look and the moment at which a fence finds the postmaster.
    signal?.throwIfAborted();
    const child = spawn(programPath(binaries, 'postgres'), ['-D', paths.pgdata], {
      cwd: '/',
      env: { PATH: process.env.PATH, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const { pid } = child;
    if (pid === undefined) {
      const cause = await new Promise<Error>((resolve) => child.once('error', resolve));
      throw new PostgresError('StartFailed', {
        expected: `to start ${programPath(binaries, 'postgres')}`,
        found: cause.message,
        advice: 'check the image and the limits on processes',
        cause,
      });
    }
    const lastWords: string[] = [];
    for (const stream of [child.stdout, child.stderr]) {
      createInterface({ input: stream, crlfDelay: Number.POSITIVE_INFINITY }).on('line', (line) => {
        lastWords.push(line.slice(line.lastIndexOf('\x1f') + 1));
        if (lastWords.length > 8) lastWords.shift();
        this.#onLog(line);
      });
    }
    const postmaster: Postmaster = {
      pid,
      child,
      lastWords,
      exit: undefined,
      ended: new Promise((resolve) => {
        child.once('exit', (code, signal) => {
          postmaster.exit = { pid, code, signal };
          resolve(postmaster.exit);
          this.#onExit(postmaster.exit);
        });
      }),
    };
    child.on('error', () => {
      // Only a failed start or signal; the exit is what counts.
    });
    this.#postmaster = postmaster;
    return pid;
  }

  /**
   * Waits until it accepts local connections and returns true; false when it is still starting after `timeoutMs` (a
   * standby below its consistency point stays so). Throws PostgresError `StartFailed` with its last words when it ends
   * first, and the signal's reason when aborted.
   */
  async waitUntilReady(limits: Limits): Promise<boolean> {
    const { paths } = this.#installation;
    const deadline = performance.now() + (limits.timeoutMs ?? Number.POSITIVE_INFINITY);
    for (;;) {
      limits.signal?.throwIfAborted();
      const postmaster = this.#postmaster;
      if (postmaster === undefined || postmaster.exit !== undefined) throw startFailure(postmaster);
      const remaining = Math.max(1, Math.min(deadline - performance.now(), 2 ** 30));
      const status = await withLimits(
        this.status(),
        { ...limits, timeoutMs: remaining },
        () => new Error('timeout'),
      ).catch((error: unknown) => {
        limits.signal?.throwIfAborted();
        if (error instanceof Error && error.message === 'timeout') return 'starting' as const;
        throw error;
      });
      if (status === 'ready') {
        const directory = workingDirectory(postmaster.pid);
        if (directory === paths.pgdata) return true;
        await this.fence();
        throw new PostgresError('StartFailed', {
          expected: `a postmaster that works in ${paths.pgdata}, which is how a fence finds its processes`,
          found: String(directory),
          advice: 'the data root must be a path without symbolic links',
        });
      }
      if (performance.now() >= deadline) return false;
      await sleep(20, undefined, limits.signal === undefined ? {} : { signal: limits.signal }).catch(
        () => {},
      );
    }
  }

  /**
   * Reads postmaster.pid, which is on the data volume: it may hang with the disk. One look at a time: each that hangs keeps
   * a thread from everything else that Node does with files and names.
   */
  status(): Promise<PostmasterStatus> {
    this.#asking ??= this.#readStatus().finally(() => {
      this.#asking = undefined;
    });
    return this.#asking;
  }

  async #readStatus(): Promise<PostmasterStatus> {
    const { pid } = this;
    if (pid === undefined) return 'stopped';
    const text = await ifThere(readFile(join(this.#installation.paths.pgdata, 'postmaster.pid'), 'utf8'));
    // Lines as in src/include/utils/pidfile.h: the first is the pid, the eighth the status.
    const lines = text?.split('\n') ?? [];
    if (lines[0] !== String(pid)) return 'starting';
    const status = lines[7]?.trim();
    return status === 'ready' || status === 'stopping' ? status : 'starting';
  }

  /**
   * Stops it: `fast` ends sessions, writes a checkpoint and waits for connected standbys to receive it; `immediate` is
   * a crash. Returns when the postmaster and all other processes of this Postgres are gone; undefined when none ran.
   * Throws PostgresError `StopTimeout` and the signal's reason; it is then still stopping.
   */
  async stop(mode: 'fast' | 'immediate', limits: Limits): Promise<PostmasterExit | undefined> {
    const postmaster = this.#postmaster;
    if (postmaster === undefined || postmaster.exit !== undefined) return undefined;
    sendSignal(postmaster.pid, mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
    const exit = await withLimits(
      postmaster.ended,
      limits,
      () =>
        new PostgresError('StopTimeout', {
          expected: `Postgres to stop (${mode}) within ${limits.timeoutMs} ms`,
          found: `pid ${postmaster.pid} still running; its last words: ${postmaster.lastWords.join(' | ')}`,
          advice: 'fence it, or look for a standby that does not receive or a stalled disk',
        }),
    );
    await this.fence({ graceMs: 0 });
    return exit;
  }

  /**
   * Makes sure that no process of this Postgres can acknowledge anything: SIGQUIT to the postmaster, after `graceMs`
   * (default 700) SIGKILL to every process that works in the data directories or descends from the postmaster, again
   * until none is left. Touches no disk, and needs no postmaster of its own: it also ends what an earlier agent left.
   * Throws PostgresError `FenceIncomplete` when some are left after `deadlineMs` (default 1500) that may still run.
   */
  async fence({ graceMs = 700, deadlineMs = 1500 } = {}): Promise<FenceReport> {
    const begin = performance.now();
    const elapsed = (): number => performance.now() - begin;
    const postmaster = this.pid;
    const find = (): number[] => postgresProcesses(this.#installation.paths.dataRoot, postmaster);
    if (postmaster !== undefined && graceMs > 0) {
      sendSignal(postmaster, 'SIGQUIT');
      while (elapsed() < graceMs && find().length > 0) await sleep(10);
    }
    const killed = new Set<number>();
    for (;;) {
      const left = find();
      const running = left.filter((pid) => !isDoomed(pid));
      if (running.length === 0) {
        if (left.length === 0) await this.#reaped();
        return { elapsedMs: Math.round(elapsed()), killed: killed.size, uninterruptible: left };
      }
      if (elapsed() > deadlineMs) {
        throw new PostgresError('FenceIncomplete', {
          expected: `no process of Postgres after ${deadlineMs} ms`,
          found: `pids ${running.join(', ')}`,
          advice: 'koschei-init ends every process of the container at the deadline',
        });
      }
      // The postmaster first, so that it starts no more.
      for (const pid of running.sort((a, b) => Number(b === postmaster) - Number(a === postmaster))) {
        if (sendSignal(pid, 'SIGKILL')) killed.add(pid);
      }
      await sleep(5);
    }
  }

  /** The kernel says that it is gone; wait until Node has said so too, so that `pid` and `onExit` agree. */
  async #reaped(): Promise<void> {
    if (this.pid !== undefined) await this.#postmaster?.ended;
  }
}

function startFailure(postmaster: Postmaster | undefined): PostgresError {
  const exit = postmaster?.exit;
  return new PostgresError('StartFailed', {
    expected: 'Postgres to become ready',
    found:
      exit === undefined
        ? 'no postmaster'
        : `it ended with ${exit.signal ?? `code ${exit.code}`}: ${postmaster?.lastWords.join(' | ')}`,
    advice: 'its own words say what to do',
  });
}

/** Live processes that work in one of the volume's data directories. Touches no disk. */
export function findStaleProcesses(dataRoot: string): number[] {
  return postgresProcesses(dataRoot);
}

/** Of those, the ones that never run again but have not ended yet: their disk does not answer. */
export function doomedProcesses(dataRoot: string): number[] {
  return postgresProcesses(dataRoot).filter(isDoomed);
}
