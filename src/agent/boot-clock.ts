import { openSync, readSync } from 'node:fs';
import { uptime } from 'node:os';

/** When the timer that koschei-init gives its agent is due on CLOCK_BOOTTIME, ms (images/koschei-init, CLOCK_DUE_S). */
const dueMs = 2_000_000_000_000;

/**
 * A clock in milliseconds since the machine started, counting while it is suspended (`performance.now()` stands still
 * then, and `Date.now()` jumps). Under koschei-init it is read from the timer on descriptor `KOSCHEI_CLOCK`: CLOCK_BOOTTIME
 * itself, on which koschei-init keeps the deadlines. Without that variable (init pods, where nobody has to agree) it is
 * /proc/uptime, which lxcfs and others replace by the container's own.
 * Throws ClockError, at once and at any later reading, when the timer cannot be read: an agent without the common clock
 * would send deadlines that mean something else, and be fenced for ever or too late.
 */
export function bootClock(environment: NodeJS.ProcessEnv): () => number {
  const { KOSCHEI_CLOCK: descriptor } = environment;
  if (descriptor === undefined) return () => Math.round(uptime() * 1000);
  const path = `/proc/self/fdinfo/${descriptor}`;
  let info: number;
  try {
    info = openSync(path, 'r');
  } catch (error) {
    throw new ClockError(path, error instanceof Error ? error.message : String(error));
  }
  const buffer = Buffer.alloc(1024);
  const now = () => {
    // Read from its beginning, the file is made anew.
    const text = buffer.toString('latin1', 0, readSync(info, buffer, 0, buffer.length, 0));
    const [, clock] = /^clockid: (\d+)$/m.exec(text) ?? [];
    const [, seconds, nanoseconds] = /^it_value: \((\d+), (\d+)\)$/m.exec(text) ?? [];
    if (clock !== clockBoottime || seconds === undefined || nanoseconds === undefined)
      throw new ClockError(path, JSON.stringify(text));
    return Math.round(dueMs - Number(seconds) * 1000 - Number(nanoseconds) / 1e6);
  };
  now();
  return now;
}

/** CLOCK_BOOTTIME (linux/time.h). */
const clockBoottime = '7';

/** The clock of koschei-init cannot be read. */
export class ClockError extends Error {
  override readonly name = 'ClockError';
  constructor(path: string, found: string) {
    super(
      `expected koschei-init's timer on CLOCK_BOOTTIME in ${path}, found ${found}; the kernel (or what stands for it, such as gVisor) must show timers in fdinfo: use another runtime class`,
    );
  }
}
