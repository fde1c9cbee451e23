import { ce01LateAcknowledgement } from './ce01-late-acknowledgement.ts';
import { ce02LateTransaction } from './ce02-late-transaction.ts';
import { ce02bHolderCompared } from './ce02b-holder-compared.ts';
import { ce03RemadeVolume } from './ce03-remade-volume.ts';
import { ce04OneTimelineTwice } from './ce04-one-timeline-twice.ts';
import { ce05aWalsenderWithOldNames } from './ce05a-walsender-with-old-names.ts';
import { ce05bNewNameLast } from './ce05b-new-name-last.ts';
import { ce05cCommitsDoNotWait } from './ce05c-commits-do-not-wait.ts';
import { ce06WayBack } from './ce06-way-back.ts';
import { ce07NewMember } from './ce07-new-member.ts';
import { ce08LeaderByReading } from './ce08-leader-by-reading.ts';
import { ce09FrozenMachine } from './ce09-frozen-machine.ts';
import { ce10EmptyIsNotAbsent } from './ce10-empty-is-not-absent.ts';
import { ce11LeaderWithoutPrimary } from './ce11-leader-without-primary.ts';
import type { NamedSchedule } from './named.ts';

export type { NamedSchedule } from './named.ts';

/** The counterexamples of the model check. */
export const namedSchedules: readonly NamedSchedule[] = [
  ce01LateAcknowledgement,
  ce02LateTransaction,
  ce02bHolderCompared,
  ce03RemadeVolume,
  ce04OneTimelineTwice,
  ce05aWalsenderWithOldNames,
  ce05bNewNameLast,
  ce05cCommitsDoNotWait,
  ce06WayBack,
  ce07NewMember,
  ce08LeaderByReading,
  ce09FrozenMachine,
  ce10EmptyIsNotAbsent,
  ce11LeaderWithoutPrimary,
];
