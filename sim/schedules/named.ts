import type { Schedule } from '../faults.ts';

/** A schedule that has a name because it once showed, or would show, that a rule is needed. */
export interface NamedSchedule {
  readonly name: string;
  /** Its number in the model check of the first draft of the protocol. */
  readonly counterexample: string;
  /** The mutant that stands for the draft: under it the schedule breaks an invariant. None: nothing is broken. */
  readonly variant?: string;
  readonly schedule: Schedule;
}
