import { type BankVerdict, judgeBank } from './bank-checker.ts';
import { faultsOf, judge, type Verdict } from './checker.ts';
import type { FinalBank, FinalState, History } from './history.ts';
import {
  acknowledgements,
  afterReplacement,
  againstTerms,
  sharedTimelines,
  some,
  type TermRecord,
} from './primaries.ts';
import { judgeReads, type ReadVerdict } from './reads.ts';

/** Everything that is known of a workload after its end. */
export interface Evidence {
  readonly history: History;
  readonly final: FinalState;
  readonly bank: FinalBank;
  /** What etcd's `history/` says; empty: not judged. */
  readonly terms: readonly TermRecord[];
  /** The instance that had an address during the workload; undefined: not known. */
  readonly instanceOf: (address: string) => string | undefined;
  /** How long a replaced primary may go on answering reads with old values, milliseconds. */
  readonly fenceWithin: number;
}

/** What the evidence says; see the parts. */
export interface FullVerdict {
  readonly writes: Verdict;
  readonly reads: ReadVerdict;
  readonly bank: BankVerdict;
  /** What is wrong, as sentences; none: nothing acknowledged was lost, and there was one primary at a time. */
  readonly problems: readonly string[];
}

/** Judges everything: rows, registers, reads, the bank, and who acknowledged when. */
export function judgeEvidence(evidence: Evidence): FullVerdict {
  const { history, final, terms } = evidence;
  const writes = judge(history.attempts, final);
  const reads = judgeReads(history.attempts, history.reads, evidence.fenceWithin);
  const bank = judgeBank(history.transfers, history.audits, evidence.bank);
  const all = acknowledgements(history);
  // `judge` has seen the writes alone: what only shows together with transfers is added.
  const late = afterReplacement(all).map(({ what }) => what);
  const shared = sharedTimelines(all);
  const problems = [...faultsOf(writes), ...reads.problems, ...bank.problems];
  if (late.length > writes.afterReplacement.length) {
    problems.push(
      `${late.length} transactions and transfers were acknowledged by a primary that had been replaced: ${some(late)}`,
    );
  }
  if (shared.length > writes.sharedTimelines.length) {
    problems.push(`primaries acknowledged writes on one timeline at the same time: ${some(shared)}`);
  }
  if (terms.length > 0) problems.push(...againstTerms(all, terms, evidence.instanceOf));
  return { writes, reads, bank, problems };
}
