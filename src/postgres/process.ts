import type { PostgresInstallation } from './binaries.ts';
import type { Limits } from './program.ts';

/** How a postmaster ended. */
export interface PostmasterExit {
  readonly pid: number;
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
}

/** Line 8 of postmaster.pid while it runs; `starting` covers recovery before consistency. */
export type PostmasterStatus = 'stopped' | 'starting' | 'ready' | 'stopping';

/** Result of a fence: how long it took, and the processes in uninterruptible sleep that have SIGKILL pending. */
export interface FenceReport {
  readonly elapsedMs: number;
  readonly killed: number;
  /** They can acknowledge nothing any more, but the data directory counts as in use until they are gone. */
  readonly uninterruptible: readonly number[];
}

/** The Postgres of this installation as a child process of this one. One at a time. */
export class PostgresProcess {
  /** Each line goes to `onLog`, as Postgres wrote it; see `PostgresLogParser`. */
  constructor(
    _installation: PostgresInstallation,
    _options: { onLog: (line: string) => void; onExit: (exit: PostmasterExit) => void },
  ) {}

  /** The postmaster, or undefined when none runs. */
  get pid(): number | undefined {
    throw new Error('not written yet');
  }

  /**
   * Starts the postmaster and returns its pid at once; `waitUntilReady` follows. Removes a stale postmaster.pid and
   * socket lock when no process works in the data directory. Throws PostgresError `AlreadyRunning`, `StaleProcesses`
   * (fence first), `StartFailed`.
   */
  async start(): Promise<number> {
    throw new Error('not written yet');
  }

  /**
   * Waits until it accepts local connections ("ready") and returns true; false when it is still starting after
   * `timeoutMs` (a standby below its consistency point stays so). Throws PostgresError `StartFailed` with its last
   * words when it exits first, and the signal's reason when aborted.
   */
  async waitUntilReady(_limits: Limits): Promise<boolean> {
    throw new Error('not written yet');
  }

  async status(): Promise<PostmasterStatus> {
    throw new Error('not written yet');
  }

  /**
   * Stops it: `fast` ends sessions, writes a checkpoint and waits for standbys to receive it; `immediate` is a crash.
   * Returns when the postmaster and all its children are gone. Throws PostgresError `StopTimeout`; it is then still
   * stopping. No-op when none runs.
   */
  async stop(_mode: 'fast' | 'immediate', _limits: Limits): Promise<void> {
    throw new Error('not written yet');
  }

  /**
   * Makes sure that no process of this Postgres can acknowledge anything: SIGQUIT to the postmaster, after `graceMs`
   * (default 700) SIGKILL to every process that works in the data directory or descends from the postmaster, until none
   * is left. Touches no disk. Throws PostgresError `FenceIncomplete` when some are left after `deadlineMs`
   * (default 1500) that are not in uninterruptible sleep.
   */
  async fence(_options?: { graceMs?: number; deadlineMs?: number }): Promise<FenceReport> {
    throw new Error('not written yet');
  }
}

/** Live processes whose working directory is one of the volume's data directories. Touches no disk. */
export function findStaleProcesses(_dataRoot: string): number[] {
  throw new Error('not written yet');
}
