import type { Clock, Timer } from '../clock.ts';

/** A clock that only moves when told to. Starts at wall time 0 and monotonic time 0. */
export class FakeClock implements Clock {
  #monotonic = 0;
  #wallOffset = 0;
  #sequence = 0;
  readonly #timers = new Map<number, { at: number; callback: () => void }>();

  now(): number {
    return this.#monotonic + this.#wallOffset;
  }

  monotonic(): number {
    return this.#monotonic;
  }

  setTimer(delayMs: number, callback: () => void): Timer {
    const id = this.#sequence++;
    this.#timers.set(id, { at: this.#monotonic + Math.max(delayMs, 0), callback });
    return { cancel: () => void this.#timers.delete(id) };
  }

  /** Milliseconds until the next timer; undefined when none is set. */
  get nextTimerMs(): number | undefined {
    const next = this.#next();
    return next === undefined ? undefined : next.at - this.#monotonic;
  }

  get timers(): number {
    return this.#timers.size;
  }

  /** Sets the wall clock ahead or back; timers and monotonic time do not notice. */
  jumpWall(ms: number): void {
    this.#wallOffset += ms;
  }

  /** Lets time pass: fires the timers that become due, in order, and lets promises settle after each. */
  async advance(ms: number): Promise<void> {
    const end = this.#monotonic + ms;
    await settle();
    for (let next = this.#next(); next !== undefined && next.at <= end; next = this.#next()) {
      this.#monotonic = Math.max(this.#monotonic, next.at);
      this.#timers.delete(next.id);
      next.callback();
      await settle();
    }
    this.#monotonic = end;
  }

  #next(): { id: number; at: number; callback: () => void } | undefined {
    let first: { id: number; at: number; callback: () => void } | undefined;
    for (const [id, timer] of this.#timers) {
      if (first === undefined || timer.at < first.at) first = { id, ...timer };
    }
    return first;
  }
}

/** Lets every promise that can settle without time or I/O do so. */
export const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
