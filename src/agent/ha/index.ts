/** The agent's decisions: pure, the same in a pod and in the simulator. The order of the rules is in `decide.ts`. */
export { freshMs, provesLeadership } from './candidate.ts';
export { decide, initialState } from './decide.ts';
export type * from './facts.ts';
export { failsafeProblem, givePromise, promisesToAsk } from './failsafe.ts';
export { fenceDeadline } from './fence.ts';
export { noDataId } from './names.ts';
export { answerProbe } from './probe.ts';
export {
  nothingKnown,
  planSlots,
  rememberData,
  type SlotPlan,
  type SlotUpkeep,
  slotPositions,
} from './slots.ts';
export { stalledStorage, standbyStorageSilenceMs, storageProblem } from './storage.ts';
