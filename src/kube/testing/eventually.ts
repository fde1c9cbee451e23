import { setTimeout as sleep } from 'node:timers/promises';

/**
 * Waits until the check returns something other than undefined and false, and returns that. What the check throws
 * counts as "not yet". Throws after `timeoutMs` (long, for machines that do much else), with the last error as the cause.
 */
export async function eventually<T>(
  what: string,
  check: () => T | undefined | false | Promise<T | undefined | false>,
  timeoutMs = 60_000,
): Promise<T> {
  const end = performance.now() + timeoutMs;
  let cause: unknown;
  for (;;) {
    try {
      const result = await check();
      if (result !== undefined && result !== false) return result;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    if (performance.now() > end) throw new Error(`not within ${timeoutMs} ms: ${what}`, { cause });
    await sleep(20);
  }
}
