import { data } from './data.ts';
import { failsafe } from './failsafe.ts';
import { leadership } from './leadership.ts';
import { livelihood } from './liveness.ts';
import type { Mutant } from './mutant.ts';
import { synchronousSet } from './synchronous-set.ts';
import { time } from './time.ts';

export type { Mutant } from './mutant.ts';

/** Every rule broken on purpose, to show that the simulator sees it. */
export const mutants: readonly Mutant[] = [
  ...synchronousSet,
  ...leadership,
  ...time,
  ...failsafe,
  ...data,
  ...livelihood,
];
