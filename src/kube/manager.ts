import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import { HttpEndpoints } from './http-endpoints.ts';
import type { Elector } from './lease.ts';

/** Something that brings in what happens outside and asks for work; a reflector is one. */
export interface Source {
  readonly name: string;
  start(): void;
  stop(): Promise<void>;
  /** Resolves when it knows the state of the world once. */
  readonly synced: Promise<void>;
  readonly hasSynced: boolean;
  /** Milliseconds since its loop was last seen to do anything. */
  readonly stuckMs?: number;
}

/** Something that works while this process leads; a controller is one. */
export interface Worker {
  readonly name: string;
  start(): void;
  /** Ends within about `graceMs`; false when something still runs. */
  stop(graceMs: number): Promise<boolean>;
  readonly longestRunningMs?: number;
}

export interface ManagerOptions {
  readonly log: Logger;
  readonly registry: Registry;
  /** Where `/healthz`, `/readyz` and `/metrics` are served. Port 0 picks a free one. */
  readonly http: { readonly host?: string; readonly port: number };
  readonly sources: readonly Source[];
  readonly workers: readonly Worker[];
  /** Left out: no election, this process always leads. */
  readonly elector?: Elector | undefined;
  /** Called last: flush events, close clients. */
  readonly close?: () => Promise<void>;
  /** How long running work may take to end, milliseconds. Default 25 000, within a pod's 30 s. */
  readonly graceMs?: number;
}

/** A loop or a reconcile without a sign of life for this long is stuck: the process is restarted. */
const stuckMs = 300_000;

/**
 * Starts everything in order (HTTP, sources, election, workers) and stops it in order (not ready, sources, workers,
 * lease, the rest). The lease is given up only after the workers have ended, so that two processes never work at once.
 */
export class Manager {
  readonly #options: ManagerOptions;
  readonly #endpoints: HttpEndpoints;
  #stopping = false;

  constructor(options: ManagerOptions) {
    this.#options = options;
    const { sources, workers } = options;
    this.#endpoints = new HttpEndpoints({
      ...options.http,
      registry: options.registry,
      live: {
        sources: () => firstOf(sources, (source) => (source.stuckMs ?? 0) > stuckMs, 'is stuck'),
        workers: () => firstOf(workers, (worker) => (worker.longestRunningMs ?? 0) > stuckMs, 'is stuck'),
      },
      ready: {
        process: () => (this.#stopping ? 'is stopping' : undefined),
        sources: () => firstOf(sources, (source) => !source.hasSynced, 'has not synced'),
      },
    });
  }

  /** The port of the HTTP endpoints; 0 before they listen. */
  get port(): number {
    return this.#endpoints.port;
  }

  /**
   * Runs until the signal aborts and everything has ended. Throws `LeadershipLostError` when the lease was lost; then
   * the process must exit, because work may still be running that this process has no right to any more.
   */
  async run(signal: AbortSignal): Promise<void> {
    const { log, sources, workers, elector, graceMs = 25_000 } = this.#options;
    const stopped = new Promise<undefined>((resolve) => {
      if (signal.aborted) resolve(undefined);
      signal.addEventListener('abort', () => resolve(undefined), { once: true });
    });
    await this.#endpoints.start();
    for (const source of sources) source.start();
    const synced = Promise.all(sources.map((source) => source.synced));
    await Promise.race([synced, stopped]);
    if (!signal.aborted) {
      log.info({ sources: sources.map((source) => source.name) }, 'every source has synced');
      elector?.start();
      if (elector !== undefined) await Promise.race([elector.acquired, stopped]);
    }
    if (!signal.aborted) for (const worker of workers) worker.start();
    const lost = await Promise.race([stopped, elector?.lost ?? stopped]);

    this.#stopping = true;
    log.info(lost === undefined ? 'stopping' : 'stopping because the lease is lost');
    // Both at once: a queue that takes nothing more does not mind a source that is slow to end.
    const grace = lost === undefined ? graceMs : 0;
    const [ended] = await Promise.all([
      Promise.all(workers.map((worker) => worker.stop(grace))),
      Promise.all(sources.map((source) => source.stop())),
    ]);
    if (ended.every(Boolean)) await elector?.release();
    else log.warn('some work did not end; the lease is left to run out');
    await this.#options.close?.();
    await this.#endpoints.stop();
    if (lost !== undefined) throw lost;
    log.info('stopped');
  }
}

function firstOf<T extends { readonly name: string }>(
  list: readonly T[],
  isBad: (one: T) => boolean,
  what: string,
): string | undefined {
  const found = list.find(isBad);
  return found === undefined ? undefined : `${found.name} ${what}`;
}

/** A signal that aborts at the first SIGTERM or SIGINT; the second ends the process at once. */
export function stopSignal(): AbortSignal {
  const controller = new AbortController();
  const stop = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(1);
    controller.abort(new Error(`received ${name}`));
  };
  process.on('SIGTERM', stop);
  process.on('SIGINT', stop);
  return controller.signal;
}
