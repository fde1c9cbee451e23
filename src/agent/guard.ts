import { closeSync, openSync, writeSync } from 'node:fs';

/** What the agent tells koschei-init, process 1 of the container, which fences when the agent cannot. */
export interface Guard {
  /** The postmaster's pid, or 0 when none runs. */
  postmaster(pid: number): void;
  /** Fence at this moment of the boot-time clock, ms; 0: no deadline. */
  deadline(atMs: number): void;
}

/**
 * The pipe to koschei-init on descriptor 3. Writes are synchronous: when `deadline` returns, koschei-init will see it,
 * whatever becomes of this process. Repeated values are not sent again.
 */
export function pipeGuard(inherited = 3): Guard {
  // Opened anew, it is not passed on to Postgres: nobody but the agent may move the deadline.
  const descriptor = openSync(`/proc/self/fd/${inherited}`, 'w');
  closeSync(inherited);
  let postmaster = 0;
  let deadline = 0;
  const send = (line: string) => writeSync(descriptor, `${line}\n`);
  return {
    postmaster: (pid) => {
      if (pid === postmaster) return;
      send(`postmaster ${pid}`);
      postmaster = pid;
    },
    deadline: (atMs) => {
      const at = Math.floor(atMs);
      if (at === deadline) return;
      send(`deadline ${at}`);
      deadline = at;
    },
  };
}
