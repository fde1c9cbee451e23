import { now } from '../faults.ts';
import type { Facts, Fault, Plan } from './fault.ts';
import type { Journal } from './journal.ts';

/** A fault with its target chosen. It has begun between `start()` and `end()`, and `end()` always undoes it whole. */
export class Strike {
  readonly fault: Fault;
  readonly #plan: Plan;
  readonly #journal: Journal;

  /** Plans a fault; nothing is done yet. @throws {NotPossible} see {@link Fault.plan}. */
  constructor(fault: Fault, facts: Facts, journal: Journal) {
    this.fault = fault;
    this.#plan = fault.plan(facts);
    this.#journal = journal;
  }

  /** What it hits, for people. */
  get target(): string {
    return this.#plan.target;
  }

  /**
   * Makes the fault happen; what was done is undone if a part fails.
   * @returns when it began, milliseconds since the epoch.
   */
  async start(): Promise<number> {
    const at = now();
    try {
      for (const effect of this.#plan.effects) await this.#journal.apply(this.fault.name, effect);
      return at;
    } catch (error) {
      await this.end().catch(() => {});
      throw error;
    }
  }

  /** Undoes it. May be called again. @throws {Error} with what could not be undone; `npm run faults -- --undo` tries again. */
  async end(): Promise<void> {
    const problems = await this.#journal.undo(({ fault }) => fault === this.fault.name);
    if (problems.length > 0) throw new Error(problems.join('\n'));
  }
}
