import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { join } from 'node:path';

// All of /proc is read synchronously: it never waits for a disk, and asynchronous reads share their threads with reads
// of the data volume, which may hang while a fence must go on.

/** One process, from /proc. */
interface ProcessEntry {
  readonly pid: number;
  readonly parent: number;
  /** The command's name, at most 15 bytes. */
  readonly name: string;
  /** R, S, D, ... as in proc(5). */
  readonly state: string;
  /** Working directory; undefined when it may not be read. */
  readonly directory: string | undefined;
}

function listProcesses(): ProcessEntry[] {
  const entries: ProcessEntry[] = [];
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      // The command's name, in parentheses, may hold anything; the state follows the last parenthesis.
      const end = stat.lastIndexOf(')');
      const [state = '', parent] = stat.slice(end + 2).split(' ');
      if (state === 'Z' || state === 'X') continue;
      entries.push({
        pid: Number(name),
        parent: Number(parent),
        name: stat.slice(stat.indexOf('(') + 1, end),
        state,
        directory: workingDirectory(name),
      });
    } catch {
      // It ended while we looked.
    }
  }
  return entries;
}

/** `/proc/<pid>/cwd`; undefined when there is no such process or it belongs to somebody else. */
export function workingDirectory(pid: number | string): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/cwd`);
  } catch {
    return undefined;
  }
}

/**
 * Live processes that work in one of the volume's data directories (each process of a Postgres does), or that descend
 * from `postmaster`. `dataRoot` must be free of symbolic links.
 */
export function postgresProcesses(dataRoot: string, postmaster?: number): number[] {
  const entries = listProcesses();
  // pgdata, pgdata.new, pgdata.old and what is below them, also when renamed or deleted meanwhile.
  const prefix = join(dataRoot, 'pgdata');
  const inData = (directory: string): boolean =>
    directory.startsWith(prefix) &&
    /^(\.[a-z]+)?(\/.*)?( \(deleted\))?$/.test(directory.slice(prefix.length));
  const found = new Set<number>();
  for (const { pid, directory } of entries) {
    if (pid === postmaster || (directory !== undefined && inData(directory))) found.add(pid);
  }
  if (postmaster !== undefined) {
    const descendants = new Set([postmaster]);
    for (let grown = true; grown; ) {
      grown = false;
      for (const { pid, parent } of entries) {
        if (descendants.has(parent) && !descendants.has(pid)) {
          descendants.add(pid);
          found.add(pid);
          grown = true;
        }
      }
    }
  }
  found.delete(process.pid);
  return [...found].filter((pid) => entries.some((entry) => entry.pid === pid));
}

/** Live processes of this name (of at most 15 bytes), and what each does: R, S, D, T, ... as in proc(5). */
export function processesNamed(name: string): { readonly pid: number; readonly state: string }[] {
  return listProcesses().filter((entry) => entry.name === name);
}

/** Does it sleep uninterruptibly with SIGKILL pending? Then it never runs again in user space. */
export function isDoomed(pid: number): boolean {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    const pending = ['SigPnd', 'ShdPnd'].some((name) => {
      const mask = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, 'm').exec(status)?.[1];
      return mask !== undefined && (BigInt(`0x${mask}`) & (1n << 8n)) !== 0n;
    });
    return pending && /^State:\s*D/m.test(status);
  } catch {
    return false;
  }
}

/** Sends a signal; false when there is no such process. */
export function sendSignal(pid: number, signal: NodeJS.Signals): boolean {
  try {
    process.kill(pid, signal);
    return true;
  } catch {
    return false;
  }
}
