import { setTimeout as sleep } from 'node:timers/promises';
import type { Limits } from './program.ts';

/**
 * The result of `work`, or `onTimeout()` thrown after `timeoutMs`, or the signal's reason. The work itself is not
 * stopped: whoever calls must be able to leave it behind.
 */
export async function withLimits<T>(work: Promise<T>, limits: Limits, onTimeout: () => Error): Promise<T> {
  // Work that is left behind may fail later, and nobody listens any more.
  work.catch(() => {});
  limits.signal?.throwIfAborted();
  const stop = new AbortController();
  const waits: Promise<never>[] = [];
  if (limits.timeoutMs !== undefined) {
    waits.push(
      sleep(limits.timeoutMs, undefined, { signal: stop.signal }).then(() => {
        throw onTimeout();
      }),
    );
  }
  const { signal } = limits;
  if (signal !== undefined) {
    waits.push(
      new Promise((_resolve, reject) => {
        signal.addEventListener('abort', () => reject(signal.reason), { once: true, signal: stop.signal });
      }),
    );
  }
  for (const wait of waits) wait.catch(() => {});
  try {
    return await Promise.race([work, ...waits]);
  } finally {
    stop.abort();
  }
}
