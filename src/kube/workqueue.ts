import { type BackoffLimits, backoffMs } from './backoff.ts';
import { type Clock, systemClock, type Timer } from './clock.ts';
import type { KubeMetrics } from './metrics.ts';

export interface WorkQueueOptions {
  /** For metrics. */
  readonly name: string;
  readonly clock?: Clock;
  readonly random?: () => number;
  /** Delay after failures in a row, per key. Default 0.2 s to 60 s. */
  readonly backoff?: BackoffLimits;
  readonly metrics?: KubeMetrics | undefined;
}

/**
 * Keys that need work. However often a key is added before a worker takes it, it is handed out once; a key is never
 * handed out to two workers at the same time; a key added while it is being worked on is handed out again afterwards.
 * (The rules of client-go's util/workqueue.)
 */
export class WorkQueue {
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #backoff: BackoffLimits;
  readonly #name: string;
  readonly #metrics: KubeMetrics | undefined;
  /** Keys that need work; a key here is also in `#ready` unless it is in `#processing`. */
  readonly #dirty = new Set<string>();
  readonly #processing = new Set<string>();
  /** In the order in which they will be handed out, with the time they came in. */
  readonly #ready = new Map<string, number>();
  readonly #delayed = new Map<string, { at: number; timer: Timer }>();
  readonly #failures = new Map<string, number>();
  readonly #waiting: ((key: string | undefined) => void)[] = [];
  #closed = false;

  constructor(options: WorkQueueOptions) {
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#backoff = options.backoff ?? { minMs: 200, maxMs: 60_000 };
    this.#name = options.name;
    this.#metrics = options.metrics;
  }

  /** Keys that a worker could take now. */
  get size(): number {
    return this.#ready.size;
  }

  /** Keys that are being worked on. */
  get active(): number {
    return this.#processing.size;
  }

  /** Keys that wait for their time. */
  get delayed(): number {
    return this.#delayed.size;
  }

  add(key: string): void {
    if (this.#closed || this.#dirty.has(key)) return;
    this.#dirty.add(key);
    this.#metrics?.queueAdds.inc({ controller: this.#name });
    if (!this.#processing.has(key)) this.#enqueue(key);
  }

  /** Adds the key after `ms`. Of several pending delays of a key the earliest counts. */
  addAfter(key: string, ms: number): void {
    if (this.#closed) return;
    if (ms <= 0) return this.add(key);
    const at = this.#clock.monotonic() + ms;
    const pending = this.#delayed.get(key);
    if (pending !== undefined && pending.at <= at) return;
    pending?.timer.cancel();
    const timer = this.#clock.setTimer(ms, () => {
      this.#delayed.delete(key);
      this.add(key);
    });
    this.#delayed.set(key, { at, timer });
  }

  /** Adds the key after a delay that grows with each call until `forget`. Returns the delay, milliseconds. */
  addAfterFailure(key: string): number {
    const failures = this.failures(key) + 1;
    this.#failures.set(key, failures);
    this.#metrics?.queueRetries.inc({ controller: this.#name });
    const ms = backoffMs(failures, this.#backoff, this.#random());
    this.addAfter(key, ms);
    return ms;
  }

  /** Failures in a row. */
  failures(key: string): number {
    return this.#failures.get(key) ?? 0;
  }

  /** Ends the key's series of failures. */
  forget(key: string): void {
    this.#failures.delete(key);
  }

  /** The next key, as soon as there is one; undefined once the queue is closed. Must be followed by `done`. */
  async take(): Promise<string | undefined> {
    if (this.#closed) return undefined;
    const [first] = this.#ready;
    if (first === undefined) return await new Promise((resolve) => this.#waiting.push(resolve));
    const [key, since] = first;
    this.#ready.delete(key);
    this.#handOut(key, since);
    return key;
  }

  /** Says that the work on a key that `take` returned is over. */
  done(key: string): void {
    if (!this.#processing.delete(key)) throw new TypeError(`"${key}" is not being worked on`);
    if (this.#dirty.has(key) && !this.#closed) this.#enqueue(key);
  }

  /** Hands out nothing any more; what waits is dropped. */
  close(): void {
    this.#closed = true;
    for (const { timer } of this.#delayed.values()) timer.cancel();
    this.#delayed.clear();
    this.#ready.clear();
    this.#dirty.clear();
    for (const give of this.#waiting.splice(0)) give(undefined);
    this.#measure();
  }

  #enqueue(key: string): void {
    const since = this.#clock.monotonic();
    const give = this.#waiting.shift();
    if (give === undefined) {
      this.#ready.set(key, since);
      this.#measure();
      return;
    }
    this.#handOut(key, since);
    give(key);
  }

  #handOut(key: string, since: number): void {
    this.#dirty.delete(key);
    this.#processing.add(key);
    this.#metrics?.queueSeconds.observe({ controller: this.#name }, (this.#clock.monotonic() - since) / 1000);
    this.#measure();
  }

  #measure(): void {
    this.#metrics?.queueDepth.set({ controller: this.#name }, this.#ready.size);
  }
}
