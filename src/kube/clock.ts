/** Time and timers, passed in so that tests own them. */
export interface Clock {
  /** Wall clock, milliseconds since 1970. Only for what people read; it can jump. */
  now(): number;
  /** Milliseconds since some fixed moment; never goes back. */
  monotonic(): number;
  /** Calls back once, after `delayMs` (negative counts as 0). */
  setTimer(delayMs: number, callback: () => void): Timer;
}

export interface Timer {
  cancel(): void;
}

/** Longest delay that Node's timers take; longer ones would fire at once. */
const maxDelayMs = 2 ** 31 - 1;

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  setTimer: (delayMs, callback) => {
    const timer = setTimeout(callback, Math.min(Math.max(delayMs, 0), maxDelayMs));
    return { cancel: () => clearTimeout(timer) };
  },
};

/** Resolves after `ms`, or as soon as the signal aborts; never rejects: the caller looks at the signal. */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const finish = () => {
      timer.cancel();
      signal?.removeEventListener('abort', finish);
      resolve();
    };
    const timer = clock.setTimer(ms, finish);
    signal?.addEventListener('abort', finish);
  });
}

/**
 * A signal that aborts with its parent or after `ms`. Call `dispose` when done: unlike `AbortSignal.any`, nothing
 * stays behind on a parent that lives as long as the process.
 */
export function deadline(
  clock: Clock,
  ms: number,
  parent?: AbortSignal,
): { signal: AbortSignal; timedOut: () => boolean; dispose: () => void } {
  const controller = new AbortController();
  let timedOut = false;
  const timer = clock.setTimer(ms, () => {
    timedOut = true;
    controller.abort(new Error(`not done within ${ms} ms`));
  });
  const follow = () => controller.abort(parent?.reason);
  if (parent?.aborted) follow();
  parent?.addEventListener('abort', follow);
  return {
    signal: controller.signal,
    timedOut: () => timedOut,
    dispose: () => {
      timer.cancel();
      parent?.removeEventListener('abort', follow);
    },
  };
}
