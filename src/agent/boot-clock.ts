import { uptime } from 'node:os';

/**
 * Milliseconds since the machine started, counting while it is suspended (CLOCK_BOOTTIME, which koschei-init uses, too;
 * resolution 10 ms). `performance.now()` stands still during a suspension, and `Date.now()` jumps.
 */
export function bootTimeMs(): number {
  return Math.round(uptime() * 1000);
}
