import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { getSystemErrorMap } from 'node:util';
import type { Logger } from '../log/logger.ts';
import { type PostgresPaths, processesNamed } from '../postgres/index.ts';
import type { StorageFacts } from './ha/index.ts';

export interface StorageOptions {
  /** koschei-init, which is also the program that writes. */
  readonly program: string;
  readonly paths: Pick<PostgresPaths, 'agentDir' | 'walRoot'>;
  /** The boot-time clock, ms. */
  readonly now: () => number;
  readonly log: Logger;
}

/** How often it is looked whether something has become durable, ms; the program writes once a second. */
const lookEveryMs = 250;
/** At least this long between two starts of the program, ms. */
const startAgainMs = 1_000;
/** From then on it is looked at what the program does that says nothing, ms. */
const quietMs = 1_500;

interface Volume {
  facts: StorageFacts;
  readonly file: string;
  /** Of the process that writes: what it is found by when the agent that started it is gone. */
  readonly name: string;
  child: ChildProcess | undefined;
  startedAt: number;
}

/**
 * Whether what is written to the data volume and to the WAL volume becomes durable. A process for each writes and waits
 * for the disk, because whoever waits for a dead disk cannot even be killed: so nothing in the agent waits for it, and
 * there is never a second one for the same volume, not even after a restart of the agent.
 */
export class Storage {
  readonly #o: StorageOptions;
  readonly #volumes: Volume[];
  #timer: NodeJS.Timeout | undefined;

  constructor(options: StorageOptions) {
    this.#o = options;
    const { agentDir, walRoot } = options.paths;
    this.#volumes = [
      this.#volume('data', agentDir),
      ...(walRoot === undefined ? [] : [this.#volume('WAL', walRoot)]),
    ];
  }

  get facts(): readonly StorageFacts[] {
    return this.#volumes.map((v) => v.facts);
  }

  /** Of the processes that write, by volume. */
  get names(): readonly string[] {
    return this.#volumes.map((v) => v.name);
  }

  start(): void {
    const look = () => {
      for (const volume of this.#volumes) this.#look(volume);
    };
    // After what the programs have said was read: what kept this process from reading it is not the disk's fault.
    this.#timer = setInterval(() => setImmediate(look), lookEveryMs);
    look();
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const { child } of this.#volumes) child?.kill('SIGKILL');
  }

  #volume(volume: StorageFacts['volume'], directory: string): Volume {
    const now = this.#o.now();
    const file = join(directory, 'storage-probe');
    const name = `probe-${createHash('sha256').update(file).digest('hex').slice(0, 8)}`;
    return {
      facts: { volume, goodAt: now, lookedAt: now },
      file,
      name,
      child: undefined,
      startedAt: -startAgainMs,
    };
  }

  #look(volume: Volume): void {
    const now = this.#o.now();
    const running = volume.child !== undefined;
    if (running && now - volume.facts.goodAt < quietMs) return this.#set(volume, { lookedAt: now });
    const states = processesNamed(volume.name).map((p) => p.state);
    // One that waits says that the disk does not answer; one that is stopped or gets no processor says nothing.
    if (states.length > 0 && states.every((state) => !['R', 'T', 't'].includes(state)))
      this.#set(volume, { lookedAt: now });
    if (!running && states.length === 0 && now - volume.startedAt >= startAgainMs) this.#start(volume);
  }

  #start(volume: Volume): void {
    const { program, log, now } = this.#o;
    volume.startedAt = now();
    const child = spawn(program, ['--probe', volume.name, volume.file], {
      cwd: '/',
      stdio: ['ignore', 'pipe', 'ignore'],
    });
    volume.child = child;
    createInterface({ input: child.stdout }).on('line', (line) => this.#heard(volume, line));
    const ended = (why: string) => {
      if (volume.child === child) volume.child = undefined;
      log.warn({ volume: volume.facts.volume, why }, 'the process that tries the volume has ended');
    };
    child.once('error', (error) => ended(error.message));
    child.once('exit', (code, signal) => ended(signal ?? `exit code ${code}`));
  }

  #heard(volume: Volume, line: string): void {
    const now = this.#o.now();
    const [what, number] = line.split(' ');
    if (what === 'ok') {
      const { volume: name } = volume.facts;
      volume.facts = { volume: name, goodAt: now, lookedAt: now, freeBytes: Number(number) };
    } else if (what === 'failed') this.#set(volume, { lookedAt: now, failure: errorName(Number(number)) });
  }

  #set(volume: Volume, change: Partial<StorageFacts>): void {
    volume.facts = { ...volume.facts, ...change };
  }
}

function errorName(errno: number): string {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [];
  return name === undefined ? `error ${errno}` : `${name}: ${text}`;
}
