import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import * as z from 'zod';
import { waitUntil } from '../cluster/shell.ts';
import { type Attempt, firstAckAfter, type History, isolations, type Route, routes } from './history.ts';
import type { WriterSettings } from './writer.ts';

const call = z.object({ route: z.enum(routes), invokedAt: z.number(), completedAt: z.number() });
const server = z.object({ timeline: z.int(), server: z.string(), started: z.number() });
const perhapsServer = z.object({
  timeline: z.int().exactOptional(),
  server: z.string().exactOptional(),
  started: z.number().exactOptional(),
});
const outcome = z.enum(['acknowledged', 'failed', 'unknown']);
const attempt = z.object({
  ...call.shape,
  ...perhapsServer.shape,
  worker: z.int(),
  seq: z.int(),
  outcome,
  registerRead: z.int().exactOptional(),
  error: z.string().exactOptional(),
});
const read = z.object({ ...call.shape, ...server.shape, reader: z.int(), worker: z.int(), value: z.int() });
const transfer = z.object({
  ...call.shape,
  ...perhapsServer.shape,
  client: z.int(),
  seq: z.int(),
  isolation: z.enum(isolations),
  source: z.int(),
  target: z.int(),
  amount: z.int(),
  outcome,
  error: z.string().exactOptional(),
});
const audit = z.object({ ...call.shape, ...server.shape, client: z.int(), total: z.int() });
const event = z.object({
  ready: z.literal(true).optional(),
  done: z.literal(true).optional(),
  error: z.string().optional(),
  attempt: attempt.optional(),
  read: read.optional(),
  transfer: transfer.optional(),
  audit: audit.optional(),
});

/** The program that runs the workload, and its arguments. */
export type WriterCommand = readonly [program: string, ...args: string[]];

/** The workload as a program on this machine. */
export const localWriter: WriterCommand = [
  process.execPath,
  fileURLToPath(new URL('writer.ts', import.meta.url)),
];

/** A running workload, and all it has done. */
export class Ledger {
  readonly run: string;
  readonly #routes: readonly Route[];
  readonly #attempts: Attempt[] = [];
  readonly #reads: History['reads'][number][] = [];
  readonly #transfers: History['transfers'][number][] = [];
  readonly #audits: History['audits'][number][] = [];
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;
  #ready = false;
  #done = false;
  #error: string | undefined;

  private constructor(settings: WriterSettings, command: WriterCommand) {
    this.run = settings.run;
    this.#routes = settings.routes;
    const [program, ...args] = command;
    this.#child = spawn(program, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#child.on('error', (error) => {
      this.#error ??= error.message;
    });
    this.#child.stdin?.on('error', () => {});
    this.#child.stdin?.write(`${JSON.stringify(settings)}\n`);
    const output = this.#child.stdout;
    if (output === null) throw new Error('the workload has no standard output');
    createInterface({ input: output }).on('line', (line) => this.#take(event.parse(JSON.parse(line))));
    this.#ended = new Promise((resolve) =>
      this.#child.on('close', (code) => {
        if (!this.#done) this.#error ??= `the workload ended with code ${code}`;
        resolve();
      }),
    );
  }

  /**
   * Starts the workload and waits until each route has acknowledged something.
   * @throws {Error} after `settings.patience` and 5 s, with the reason.
   */
  static async start(settings: WriterSettings, command: WriterCommand = localWriter): Promise<Ledger> {
    const ledger = new Ledger(settings, command);
    try {
      await waitUntil('the workload to begin', settings.patience + 5_000, async () => {
        ledger.#throwError();
        return ledger.#ready && ledger.#routes.every((route) => ledger.firstAckAfter(0, route) !== undefined);
      });
      return ledger;
    } catch (error) {
      ledger.#child.kill('SIGKILL');
      throw error;
    }
  }

  #take({ ready, done, error, ...made }: z.infer<typeof event>): void {
    if (made.attempt !== undefined) this.#attempts.push(made.attempt);
    if (made.read !== undefined) this.#reads.push(made.read);
    if (made.transfer !== undefined) this.#transfers.push(made.transfer);
    if (made.audit !== undefined) this.#audits.push(made.audit);
    if (ready) this.#ready = true;
    if (done) this.#done = true;
    if (error !== undefined) this.#error = error;
  }

  #throwError(): void {
    if (this.#error !== undefined) throw new Error(`The workload failed: ${this.#error}`);
  }

  /** Everything attempted so far, in the order in which it ended. */
  get attempts(): readonly Attempt[] {
    return this.#attempts;
  }

  /** Everything done so far. */
  get history(): History {
    const [attempts, reads] = [this.#attempts, this.#reads];
    return { attempts, reads, transfers: this.#transfers, audits: this.#audits };
  }

  /** The first acknowledgement of a transaction that began after `moment` (milliseconds since the epoch). */
  firstAckAfter(moment: number, route?: Route): Attempt | undefined {
    return firstAckAfter(this.#attempts, moment, route);
  }

  /**
   * Waits until each route has acknowledged a transaction that began after `moment`.
   * @param deadline milliseconds from now
   * @throws {Error} at the deadline, with the last error that a worker met.
   */
  async acknowledges(moment: number, deadline: number): Promise<void> {
    await Promise.all(this.#routes.map((route) => this.acknowledgesOn(route, moment, deadline)));
  }

  /** Like {@link acknowledges}, for one route. */
  async acknowledgesOn(route: Route, moment: number, deadline: number): Promise<void> {
    await waitUntil(`writes to be acknowledged on the route ${route}`, deadline, async () => {
      this.#throwError();
      return this.firstAckAfter(moment, route) !== undefined;
    }).catch((error: unknown) => {
      const last = this.#attempts.findLast((each) => each.route === route && each.error !== undefined)?.error;
      throw new Error(`${String(error)} The last error: ${last ?? 'none'}.`, { cause: error });
    });
  }

  /** Ends the workload: transactions under way end as they end. Returns all attempts. */
  async stop(): Promise<readonly Attempt[]> {
    this.#child.stdin?.end();
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), 10_000);
    await this.#ended;
    clearTimeout(timer);
    this.#throwError();
    return this.#attempts;
  }
}
