import { closeSync, constants, openSync, writeSync } from 'node:fs';

/** What the agent tells koschei-init, process 1 of the container, which fences when the agent cannot. */
export interface Guard {
  /** The postmaster's pid, or 0 when none runs. */
  postmaster(pid: number): void;
  /** Fence at this moment of the boot-time clock, ms; 0: no deadline. */
  deadline(atMs: number): void;
}

/**
 * The pipe to koschei-init on descriptor 3. Writes are synchronous: when `deadline` returns, koschei-init will see it,
 * whatever becomes of this process. Repeated values are not sent again. A koschei-init that is stopped reads nothing, and
 * some day the pipe is full: the agent does not wait for it, else neither would fence; what was not sent is sent when
 * there is room again.
 */
export function pipeGuard(inherited = 3): Guard {
  // Opened anew, it is not passed on to Postgres: nobody but the agent may move the deadline.
  const descriptor = openSync(`/proc/self/fd/${inherited}`, constants.O_WRONLY | constants.O_NONBLOCK);
  closeSync(inherited);
  const wanted = { postmaster: 0, deadline: 0 };
  const sent = { ...wanted };
  const send = () => {
    for (const what of ['postmaster', 'deadline'] as const) {
      if (wanted[what] === sent[what]) continue;
      try {
        // Shorter than PIPE_BUF: all of it or nothing.
        writeSync(descriptor, `${what} ${wanted[what]}\n`);
      } catch (error) {
        if (error instanceof Error && 'code' in error && error.code === 'EAGAIN') return;
        throw error;
      }
      sent[what] = wanted[what];
    }
  };
  return {
    postmaster: (pid) => {
      wanted.postmaster = pid;
      send();
    },
    deadline: (atMs) => {
      wanted.deadline = Math.floor(atMs);
      send();
    },
  };
}
