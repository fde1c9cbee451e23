import type { Search } from './spin.ts';
import { type SyncChange, type SyncMistakes, syncHeader } from './sync-steps.ts';

/** One row of the table: a model, what is switched on or broken in it, and what the search must find. */
export interface ModelRun {
  readonly name: string;
  /** What is asked, for people. */
  readonly what: string;
  readonly model: 'agreement.pml' | 'deadline.pml' | 'walsenders.pml';
  readonly defines: readonly string[];
  readonly header?: string;
  /** `holds`: every state is visited and nothing breaks. `broken`: a counterexample is found. */
  readonly expect: 'holds' | 'broken';
  /** The rules of docs/high-availability.md that it is about. */
  readonly rules: readonly string[];
  /** Not part of the tests. */
  readonly long: boolean;
  readonly store?: Search['store'];
}

type Options = Partial<Pick<ModelRun, 'long' | 'store' | 'header'>>;

function run(
  model: ModelRun['model'],
  expect: ModelRun['expect'],
  name: string,
  rules: string,
  defines: string,
  what: string,
  options: Options = {},
): ModelRun {
  const words = (text: string) => text.split(' ').filter((w) => w !== '');
  return { name, what, model, defines: words(defines), expect, rules: words(rules), long: false, ...options };
}

const agreement = (...rest: [ModelRun['expect'], string, string, string, string, Options?]) =>
  run('agreement.pml', ...rest);
const deadline = (...rest: [ModelRun['expect'], string, string, string, string, Options?]) =>
  run('deadline.pml', ...rest);
const walsenders = (
  expect: ModelRun['expect'],
  name: string,
  defines: string,
  what: string,
  change: SyncChange,
  mistakes: SyncMistakes = {},
) => run('walsenders.pml', expect, name, 'R3 R8', defines, what, { header: syncHeader(change, mistakes) });
const long = { long: true };

/** Changes of the synchronous set: standbys are numbers. */
const first: SyncChange = { candidates: [0], synchronous: 1 };
const firstTwo: SyncChange = { candidates: [0, 1], synchronous: 2 };
const replaceOne: SyncChange = { from: [0], candidates: [1, 0], synchronous: 1 };
const second: SyncChange = { from: [0], candidates: [0, 1], synchronous: 2 };
const replaceOneOfTwo: SyncChange = { from: [0, 1], candidates: [2, 0, 1], synchronous: 2 };
const replaceTwo: SyncChange = { from: [0, 1], candidates: [2, 1, 0], synchronous: 2 };
const third: SyncChange = { from: [0, 1], candidates: [0, 1, 2], synchronous: 3 };
const oneOfTwoGoes: SyncChange = { from: [0, 1], candidates: [0, 1], synchronous: 1 };
const twoOfThreeGo: SyncChange = { from: [0, 1, 2], candidates: [1], synchronous: 1 };
const twiceOneOfTwo: SyncChange = { ...replaceOneOfTwo, next: { candidates: [1, 2, 0], synchronous: 2 } };
const twiceOne: SyncChange = { ...replaceOne, next: { candidates: [2, 1], synchronous: 1 } };
const backAndForth: SyncChange = {
  ...second,
  next: { candidates: [2], synchronous: 1, next: { candidates: [0, 2], synchronous: 2 } },
};
const off: SyncChange = { from: [0, 1], candidates: [0, 1], synchronous: 0 };

/** Everything that is searched. Names say the model first. */
export const runs: readonly ModelRun[] = [
  // ---- agreement.pml: the rules hold
  agreement(
    'holds',
    'agreement-required',
    'R1 R2 R3 R4 R5 R8 R9',
    'TERMS=2 RECORDS=1 LATE',
    'required, writes that land late',
  ),
  agreement('holds', 'agreement-preferred', 'R3 R4 R9', 'TERMS=2 RECORDS=1 PREFERRED', 'preferred'),
  agreement(
    'holds',
    'agreement-rewind',
    'R7',
    'TERMS=2 RECORDS=1 REWIND',
    'pg_rewind in two steps, interrupted',
  ),
  agreement(
    'holds',
    'agreement-volume',
    'R7',
    'TERMS=2 RECORDS=1 LOSTVOLUME',
    'one volume lost, replaced by a backup or a clone',
  ),
  agreement('holds', 'agreement-handover', 'R2', 'TERMS=2 RECORDS=1 HANDOVER', 'hand-over'),
  agreement('holds', 'agreement-reads', 'Open', 'TERMS=2 RECORDS=1 READS', 'what clients read is not lost'),
  agreement('holds', 'agreement-numbers', 'R6', 'TERMS=3 RECORDS=0 NUMBERS', 'no timeline id twice'),
  agreement(
    'holds',
    'agreement-liveness',
    'R5 R9',
    'TERMS=2 RECORDS=0 LIVENESS',
    'when faults end somebody can acknowledge',
  ),

  agreement(
    'holds',
    'agreement-etcd-wiped',
    'R9',
    'TERMS=2 RECORDS=1 SNAPSHOT WIPED',
    'etcd loses everything: nobody leads until a person decides',
  ),

  // ---- agreement.pml: each rule broken
  agreement(
    'broken',
    'agreement-literal',
    'R12',
    'TERMS=2 RECORDS=2 LITERAL',
    'an old primary never acknowledges after a new one (CE1)',
  ),
  agreement(
    'broken',
    'agreement-no-barrier',
    'R2',
    'TERMS=2 RECORDS=1 LATE NO_BARRIER',
    'no new write after one without an answer (CE2)',
  ),
  agreement(
    'broken',
    'agreement-compare-holder',
    'R1',
    'TERMS=2 RECORDS=1 LATE COMPARE_HOLDER',
    'holder and term compared, not the revision (CE2b)',
  ),
  agreement(
    'broken',
    'agreement-unknown-is-success',
    'R2',
    'TERMS=2 RECORDS=1 UNKNOWN_IS_SUCCESS',
    'a write without an answer taken as done',
  ),
  agreement(
    'broken',
    'agreement-drop-before-etcd',
    'R3',
    'TERMS=2 RECORDS=1 DROP_BEFORE_ETCD',
    'a name leaves Postgres before etcd',
  ),
  agreement(
    'broken',
    'agreement-start-without-names',
    'R3',
    'TERMS=2 RECORDS=1 START_WITHOUT_NAMES',
    'restarted in place with no names',
  ),
  agreement(
    'broken',
    'agreement-promote-without-names',
    'R4',
    'TERMS=3 RECORDS=1 PROMOTE_WITHOUT_NAMES',
    'promoted with no names while sync holds the old leader',
  ),
  agreement(
    'broken',
    'agreement-everybody-in-sync',
    'R4',
    'TERMS=3 RECORDS=1 EVERYBODY_IN_SYNC',
    'a new leader puts everybody into sync',
  ),
  agreement(
    'broken',
    'agreement-promote-first',
    'R5',
    'TERMS=3 RECORDS=1 PROMOTE_BEFORE_TAKING',
    'promoted before the key is taken',
  ),
  agreement(
    'broken',
    'agreement-receiver-stays',
    'R5',
    'TERMS=2 RECORDS=1 RECEIVER_STAYS',
    'the WAL receiver goes on confirming after the promotion',
  ),
  agreement(
    'broken',
    'agreement-promote-twice',
    'R5',
    'TERMS=2 RECORDS=0 NUMBERS PROMOTE_TWICE',
    'two promotions in a term',
  ),
  agreement(
    'broken',
    'agreement-same-term',
    'R5',
    'TERMS=3 RECORDS=0 NUMBERS SAME_TERM',
    'a takeover without a new term',
  ),
  agreement(
    'broken',
    'agreement-number-by-postgres',
    'R6',
    'TERMS=3 RECORDS=0 NUMBERS POSTGRES_CHOOSES_NUMBER',
    'Postgres chooses the timeline id (CE4)',
  ),
  agreement(
    'broken',
    'agreement-names-outlive-data',
    'R7',
    'TERMS=2 RECORDS=1 LOSTVOLUME NAMES_OUTLIVE_DATA',
    'an old backup under a name that is in sync (CE3)',
  ),
  agreement(
    'broken',
    'agreement-torn-is-started',
    'R7',
    'TERMS=3 RECORDS=1 REWIND TORN_IS_STARTED',
    'a directory that pg_rewind left half-way is started',
  ),
  agreement(
    'broken',
    'agreement-rewind-to-older',
    'R5',
    'TERMS=3 RECORDS=2 REWIND REWIND_TO_OLDER',
    'rewound to a primary of an older term (a stale read)',
  ),
  agreement(
    'broken',
    'agreement-join-unconfirmed',
    'R8',
    'TERMS=2 RECORDS=1 JOIN_UNCONFIRMED',
    'into sync before it has confirmed',
  ),
  agreement(
    'broken',
    'agreement-join-etcd-first',
    'R8',
    'TERMS=2 RECORDS=1 JOIN_ETCD_FIRST',
    'into etcd before Postgres requires it',
  ),
  agreement(
    'broken',
    'agreement-anybody-stands',
    'R9',
    'TERMS=2 RECORDS=1 ANYBODY_STANDS',
    'somebody outside sync stands (CE10)',
  ),
  agreement(
    'broken',
    'agreement-opens-at-once',
    'Open',
    'TERMS=3 RECORDS=1 READS OPENS_AT_ONCE',
    'clients read what only the new primary holds',
  ),
  agreement(
    'broken',
    'agreement-no-new-term',
    'R5',
    'TERMS=2 RECORDS=0 LIVENESS NO_NEW_TERM',
    'a leader whose Postgres is a standby takes no new term (CE11)',
  ),
  agreement(
    'broken',
    'agreement-counted-is-rewound',
    'R7',
    'TERMS=3 RECORDS=1 LIVENESS REWIND TWO COUNTED_IS_REWOUND',
    'the old leader is rewound while sync still names it, and the new leader is lost for good',
  ),
  agreement(
    'broken',
    'agreement-etcd-put-back',
    '',
    'TERMS=3 RECORDS=1 SNAPSHOT',
    'etcd put back to an earlier state: commits are lost',
  ),
  agreement(
    'broken',
    'agreement-etcd-put-back-known',
    '',
    'TERMS=3 RECORDS=1 SNAPSHOT LATER_TERMS_KNOWN',
    'the same, though who knows of a later term does not lead: who slept knows of none',
  ),

  // ---- deadline.pml: the rules hold
  deadline('holds', 'deadline-wait', 'R1 R2 R10', 'ELIGIBLE=2', 'takeover after a ttl'),
  deadline(
    'holds',
    'deadline-failsafe-fast',
    'R11',
    'FAST ELIGIBLE=2 FAILSAFE',
    'failsafe, fast takeovers: the names in sync are enough',
  ),

  // ---- deadline.pml: each rule broken
  deadline('broken', 'deadline-no-margin', 'R10', 'ELIGIBLE=2 NO_MARGIN', 'fenced at the ttl, not before'),
  deadline(
    'broken',
    'deadline-from-answer',
    'R10',
    'ELIGIBLE=2 DEADLINE_FROM_ANSWER',
    'the deadline counts from the answer',
  ),
  deadline(
    'broken',
    'deadline-take-not-compared',
    'R1',
    'ELIGIBLE=2 TAKE_NOT_COMPARED',
    'the takeover does not compare the revision',
  ),
  deadline(
    'broken',
    'deadline-boot-is-silence',
    'R10',
    'ELIGIBLE=2 RESTART BOOT_IS_SILENCE',
    'a restarted observer takes an unknown heartbeat for an old one',
  ),
  deadline(
    'broken',
    'deadline-resume-by-reading',
    'R10',
    'ELIGIBLE=2 RESTART RESUME_BY_READING',
    'leads because it reads that it does (CE8)',
  ),
  deadline(
    'broken',
    'deadline-start-past-deadline',
    'R10',
    'ELIGIBLE=2 START_PAST_DEADLINE',
    'starts as primary with no open deadline (CE8)',
  ),
  deadline(
    'broken',
    'deadline-no-barrier',
    'R2',
    'ELIGIBLE=2 VACATE NO_BARRIER',
    'starts again after a hand-over without an answer (CE6)',
  ),
  deadline(
    'broken',
    'deadline-way-back-by-reading',
    'R2',
    'ELIGIBLE=2 VACATE WAY_BACK_BY_READING',
    'starts again after reading that it still leads (CE6)',
  ),
  deadline(
    'broken',
    'deadline-unlisted-stands',
    'R11',
    'ELIGIBLE=2 FAILSAFE UNLISTED_STANDS',
    'a new member stands before the leader has listed it (CE7)',
  ),
  deadline(
    'broken',
    'deadline-ask-some',
    'R11',
    'ELIGIBLE=6 FAILSAFE ASK_SOME',
    'not every promise is waited for',
  ),
  deadline(
    'broken',
    'deadline-ask-some-fast',
    'R11',
    'FAST ELIGIBLE=6 FAILSAFE ASK_SOME',
    'the same with fast takeovers',
  ),
  deadline(
    'broken',
    'deadline-ask-certain',
    'R11',
    'ELIGIBLE=2 FAILSAFE LISTS=1 ASK_ONLY_WHAT_IS_CERTAIN',
    'a name that an unanswered write added is not asked',
  ),
  deadline(
    'broken',
    'deadline-ask-certain-fast',
    'R11',
    'FAST ELIGIBLE=2 FAILSAFE LISTS=1 ASK_ONLY_WHAT_IS_CERTAIN',
    'the same with fast takeovers',
  ),
  deadline(
    'broken',
    'deadline-promise-not-kept',
    'R11',
    'ELIGIBLE=2 FAILSAFE PROMISE_NOT_KEPT',
    'a promise does not keep its giver from standing',
  ),
  deadline(
    'broken',
    'deadline-promise-to-any-term',
    'R11',
    'FAST ELIGIBLE=2 FAILSAFE PROMISE_TO_ANY_TERM PROMISE_WHILE_LEADING',
    'promised to the leader of an earlier term',
  ),
  deadline(
    'broken',
    'deadline-from-promises',
    'R11',
    'ELIGIBLE=2 FAILSAFE DEADLINE_FROM_PROMISES',
    'the deadline counts from the last promise',
  ),
  deadline(
    'broken',
    'deadline-frozen',
    'R12',
    'ELIGIBLE=2 FREEZE',
    'a machine stands still over its deadline (CE9): not to be had without fencing from outside',
  ),

  // ---- walsenders.pml: the shipped planSyncSet, and mistakes
  walsenders('holds', 'walsenders-first', '', 'from no synchronous replication to {0}', first),
  walsenders('holds', 'walsenders-first-two', '', 'from none to {0, 1}', firstTwo),
  walsenders('holds', 'walsenders-replace', '', '{0} becomes {1}', replaceOne),
  walsenders('holds', 'walsenders-second', '', '{0} becomes {0, 1}', second),
  walsenders('holds', 'walsenders-third', '', '{0, 1} becomes {0, 1, 2}', third),
  walsenders('holds', 'walsenders-replace-one-of-two', '', '{0, 1} becomes {0, 2}', replaceOneOfTwo),
  walsenders('holds', 'walsenders-replace-other-of-two', '', '{0, 1} becomes {1, 2}', replaceTwo),
  walsenders('holds', 'walsenders-one-of-two-goes', '', '{0, 1} becomes {0}', oneOfTwoGoes),
  walsenders('holds', 'walsenders-two-of-three-go', '', '{0, 1, 2} becomes {1}', twoOfThreeGo),
  walsenders('holds', 'walsenders-replace-twice', '', '{0} becomes {1}, then {2}', twiceOne),
  walsenders(
    'holds',
    'walsenders-replace-twice-of-two',
    '',
    '{0, 1} becomes {0, 2}, then {1, 2}',
    twiceOneOfTwo,
  ),
  walsenders(
    'holds',
    'walsenders-back-and-forth',
    '',
    '{0} becomes {0, 1}, then {2}, then {0, 2}',
    backAndForth,
  ),
  walsenders('holds', 'walsenders-off', '', '{0, 1} becomes no synchronous replication', off),
  walsenders(
    'broken',
    'walsenders-only-joiners-awaited',
    'ONLY_JOINERS_AWAITED',
    'only the new one is looked at (CE5 a)',
    replaceOne,
  ),
  walsenders('broken', 'walsenders-joiner-last', '', 'the new name comes last (CE5 b)', second, {
    joinersLast: true,
  }),
  walsenders('broken', 'walsenders-wait-not-proved', '', 'nobody looks whether commits wait (CE5 c)', first, {
    waitNotProved: true,
  }),
  walsenders(
    'broken',
    'walsenders-nothing-between',
    '',
    'no list between that nobody can satisfy',
    replaceOneOfTwo,
    { nothingBetween: true },
  ),
  walsenders(
    'broken',
    'walsenders-between-too-short',
    '',
    'that list goes before every walsender has it',
    replaceOneOfTwo,
    {
      betweenTooShort: true,
    },
  ),
  walsenders(
    'broken',
    'walsenders-not-gated',
    'NOT_GATED',
    'the next list before every walsender has shown the one before',
    replaceOneOfTwo,
  ),
  walsenders(
    'broken',
    'walsenders-postmaster-late',
    'POSTMASTER_LATE',
    'walsenders start with a list that the postmaster has not replaced yet',
    replaceOne,
  ),
  walsenders(
    'broken',
    'walsenders-position-first',
    'POSITION_FIRST',
    'the position is read before the walsenders are looked at',
    replaceOne,
  ),

  // ---- long
  agreement(
    'holds',
    'long-agreement-required',
    'R1 R2 R3 R4 R5 R8 R9',
    'TERMS=3 RECORDS=2 LATE HANDOVER',
    'required, 3 terms, 2 records, late writes, hand-over',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-preferred',
    'R1 R2 R3 R4 R5 R8 R9',
    'TERMS=3 RECORDS=2 PREFERRED LATE HANDOVER',
    'preferred, the same',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-rewind',
    'R7',
    'TERMS=3 RECORDS=2 REWIND',
    'pg_rewind interrupted, 3 terms, 2 records',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-two',
    'R3 R4 R8',
    'TERMS=2 RECORDS=2 TWO LATE',
    'two synchronous standbys, late writes',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-volume',
    'R7',
    'TERMS=2 RECORDS=2 LOSTVOLUME LATE',
    'a lost volume, late writes',
    long,
  ),
  agreement('holds', 'long-agreement-reads', 'Open', 'TERMS=3 RECORDS=2 READS', 'reads, 3 terms', long),
  agreement(
    'holds',
    'long-agreement-three-records',
    'R1 R2 R3 R4 R5 R8 R9',
    'TERMS=3 RECORDS=3',
    '3 terms, 3 records',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-liveness',
    'R5 R9',
    'TERMS=3 RECORDS=1 LIVENESS',
    'liveness, required',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-liveness-preferred',
    'R5 R9',
    'TERMS=3 RECORDS=1 LIVENESS PREFERRED',
    'liveness, preferred',
    long,
  ),
  agreement(
    'holds',
    'long-agreement-liveness-rewind',
    'R5 R7 R9',
    'TERMS=3 RECORDS=1 LIVENESS REWIND TWO',
    'liveness, pg_rewind interrupted',
    long,
  ),
  deadline(
    'holds',
    'long-deadline-failsafe-fast',
    'R11',
    'FAST ELIGIBLE=2 FAILSAFE LISTS=1 RESTART',
    'failsafe, fast takeovers, a list that changes, restarts',
    long,
  ),
  deadline(
    'holds',
    'long-deadline-failsafe',
    'R11',
    'ELIGIBLE=2 FAILSAFE LISTS=1',
    'failsafe, takeovers after a ttl, a list that changes',
    long,
  ),
  deadline(
    'holds',
    'long-deadline-failsafe-restart',
    'R11',
    'ELIGIBLE=6 FAILSAFE RESTART',
    'failsafe, two may stand, restarts',
    long,
  ),
  deadline(
    'holds',
    'long-deadline-handover',
    'R2 R11',
    'ELIGIBLE=2 FAILSAFE VACATE',
    'failsafe, hand-over',
    long,
  ),
  deadline('holds', 'long-deadline-terms', 'R10', 'TERMS=3 ELIGIBLE=2', '3 terms', long),
];

/** Long searches may be ended by `limitS` or by memory, and then say so. */
export function searchOf(
  { name, model, defines, header, expect, long, store }: ModelRun,
  limitS: number,
): Search {
  return {
    name,
    model,
    defines,
    ...(header === undefined ? {} : { header }),
    breadthFirst: expect === 'broken',
    store: store ?? 'compact',
    memoryMb: long ? 5_000 : 1_500,
    limitS: long ? limitS : 120,
  };
}
