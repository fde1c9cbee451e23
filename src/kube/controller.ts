import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { BackoffLimits } from './backoff.ts';
import { type Clock, deadline, sleep, systemClock } from './clock.ts';
import { isConflict, TerminalError } from './errors.ts';
import type { KubeMetrics } from './metrics.ts';
import { splitKey } from './types.ts';
import { WorkQueue } from './workqueue.ts';

/** Which object to reconcile; `namespace` is empty for objects without one. Says nothing about what happened. */
export interface ObjectKey {
  readonly namespace: string;
  readonly name: string;
}

export interface ReconcileContext {
  /** Aborts when the reconcile takes too long and when the process must end. */
  readonly signal: AbortSignal;
  /** Carries controller, namespace, name and reconcileId. */
  readonly log: Logger;
  readonly reconcileId: string;
}

export interface ReconcileResult {
  /** Reconcile again after this long even if nothing changes; 0 means at once. */
  readonly requeueAfterMs?: number | undefined;
}

/**
 * Brings one object closer to what it should be. What it throws decides about the next try: `TerminalError` none until
 * the object changes, a conflict soon, anything else after a delay that doubles up to a minute.
 */
export type Reconcile = (key: ObjectKey, context: ReconcileContext) => Promise<ReconcileResult>;

export interface ControllerOptions {
  readonly name: string;
  readonly reconcile: Reconcile;
  readonly log: Logger;
  /** Reconciles at the same time, of different objects. Default 4. */
  readonly workers?: number;
  /** After this long the reconcile's signal aborts, milliseconds. Default 60 000. */
  readonly timeoutMs?: number;
  /** All keys to reconcile, for the periodic repair of what no event told. */
  readonly keys?: () => Iterable<string>;
  /** Every key is reconciled at least about this often, milliseconds. Default 10 minutes. */
  readonly resyncMs?: number;
  readonly backoff?: BackoffLimits;
  readonly metrics?: KubeMetrics | undefined;
  readonly clock?: Clock;
  readonly random?: () => number;
  readonly newId?: () => string;
}

/** Workers that reconcile the keys of a queue, each key by one worker at a time. */
export class Controller {
  readonly name: string;
  readonly #options: ControllerOptions;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #queue: WorkQueue;
  readonly #log: Logger;
  readonly #resync = new AbortController();
  readonly #abort = new AbortController();
  readonly #running = new Map<string, number>();
  #loops: Promise<unknown> | undefined;

  constructor(options: ControllerOptions) {
    const { name, clock = systemClock, random = Math.random, metrics, backoff } = options;
    this.name = name;
    this.#options = options;
    this.#clock = clock;
    this.#random = random;
    this.#log = options.log.child({ controller: name });
    this.#queue = new WorkQueue({
      ...{ name, clock, random, metrics },
      ...(backoff === undefined ? {} : { backoff }),
    });
  }

  /** Asks for a reconcile of this key (`namespace/name`), now or after `ms`. Works before `start`, too. */
  enqueue(key: string, ms = 0): void {
    this.#queue.addAfter(key, ms);
  }

  /** Keys that wait for a worker or are being worked on; those that wait for a time do not count. */
  get backlog(): number {
    return this.#queue.size + this.#queue.active;
  }

  /** How long the longest running reconcile has been running, milliseconds. */
  get longestRunningMs(): number {
    const now = this.#clock.monotonic();
    return Math.max(0, ...[...this.#running.values()].map((since) => now - since));
  }

  start(): void {
    if (this.#loops !== undefined) return;
    const workers = Array.from({ length: this.#options.workers ?? 4 }, () => this.#work());
    this.#loops = Promise.all([...workers, this.#resyncLoop()]);
  }

  /**
   * Takes no new work and waits for what runs; after `graceMs` its signals abort, and a second later it is no longer
   * waited for. Returns whether every worker has ended.
   */
  async stop(graceMs: number): Promise<boolean> {
    this.#queue.close();
    this.#resync.abort();
    const ended = this.#loops ?? Promise.resolve();
    if (await this.#within(graceMs, ended)) return true;
    this.#abort.abort(new Error('the process must end'));
    if (await this.#within(1_000, ended)) return true;
    this.#log.warn({ keys: [...this.#running.keys()] }, 'reconciles did not end in time');
    return false;
  }

  /** Whether the promise resolves within that time. */
  async #within(ms: number, promise: Promise<unknown>): Promise<boolean> {
    const over = new AbortController();
    const timeout = sleep(this.#clock, ms, over.signal).then(() => false);
    const inTime = await Promise.race([promise.then(() => true), timeout]);
    over.abort();
    return inTime;
  }

  async #resyncLoop(): Promise<void> {
    const { keys, resyncMs = 600_000 } = this.#options;
    if (keys === undefined) return;
    for (;;) {
      await sleep(this.#clock, resyncMs * (0.9 + 0.1 * this.#random()), this.#resync.signal);
      if (this.#resync.signal.aborted) return;
      for (const key of keys()) this.enqueue(key, resyncMs * 0.1 * this.#random());
    }
  }

  async #work(): Promise<void> {
    for (let key = await this.#queue.take(); key !== undefined; key = await this.#queue.take()) {
      this.#running.set(key, this.#clock.monotonic());
      this.#options.metrics?.activeWorkers.inc({ controller: this.name });
      try {
        await this.#reconcile(key);
      } finally {
        this.#options.metrics?.activeWorkers.dec({ controller: this.name });
        this.#running.delete(key);
        this.#queue.done(key);
      }
    }
  }

  async #reconcile(key: string): Promise<void> {
    const { reconcile, metrics, timeoutMs = 60_000, newId = randomUUID } = this.#options;
    const startedAt = this.#clock.monotonic();
    const object = splitKey(key);
    const reconcileId = newId();
    const log = this.#log.child({ ...object, reconcileId });
    const limit = deadline(this.#clock, timeoutMs, this.#abort.signal);
    let result: 'success' | 'requeue' | 'conflict' | 'terminal' | 'error';
    try {
      const { requeueAfterMs } = await reconcile(object, { signal: limit.signal, log, reconcileId });
      this.#queue.forget(key);
      if (requeueAfterMs !== undefined) this.#queue.addAfter(key, requeueAfterMs);
      result = requeueAfterMs === undefined ? 'success' : 'requeue';
    } catch (error) {
      result = this.#failed(key, error, log, limit.timedOut());
    } finally {
      limit.dispose();
    }
    metrics?.reconciles.inc({ controller: this.name, result });
    metrics?.reconcileSeconds.observe(
      { controller: this.name },
      (this.#clock.monotonic() - startedAt) / 1000,
    );
  }

  #failed(key: string, error: unknown, log: Logger, timedOut: boolean): 'terminal' | 'conflict' | 'error' {
    if (error instanceof TerminalError) {
      this.#queue.forget(key);
      log.error({ err: error }, 'reconcile failed for good; waiting for a change');
      return 'terminal';
    }
    const retryInMs = Math.round(this.#queue.addAfterFailure(key));
    if (isConflict(error)) {
      // The cache was behind. The event that brings it up to date is on its way.
      log.debug({ err: error, retryInMs }, 'reconcile met a newer object');
      return 'conflict';
    }
    if (!this.#abort.signal.aborted) log.error({ err: error, retryInMs, timedOut }, 'reconcile failed');
    return 'error';
  }
}
