import type { Attempt, FinalState } from './history.ts';
import { acknowledgements, afterReplacement, sharedTimelines, some } from './primaries.ts';

/** A row of a worker. */
export interface RowId {
  readonly worker: number;
  readonly seq: number;
}

/** What the history and the rows that are there afterwards say together. */
export interface Verdict {
  readonly acknowledged: number;
  readonly failed: number;
  readonly unknown: number;
  /** Different rows found. */
  readonly present: number;
  /** Unknown ones that turned out to be committed: allowed. */
  readonly resolved: number;
  /** Acknowledged and not there. */
  readonly lost: readonly RowId[];
  /** There more than once. */
  readonly duplicates: readonly RowId[];
  /** Said to have failed, and there. */
  readonly ghosts: readonly RowId[];
  /** There, and never attempted. */
  readonly aliens: readonly RowId[];
  /** Acknowledged although their read of the register missed an earlier acknowledged write, or saw a later one. */
  readonly staleReads: readonly RowId[];
  /** Acknowledged by an earlier primary than one that had acknowledged something before they began: `worker/number`. */
  readonly afterReplacement: readonly string[];
  /** Primaries that acknowledged writes on one timeline at the same time. */
  readonly sharedTimelines: readonly string[];
  /** Workers whose register at the end is not that of their last write. */
  readonly wrongRegisters: readonly number[];
}

/**
 * Judges a history against the rows found on the primary after the last attempt ended. Exact, because one worker at
 * a time writes a key: O(n log n).
 */
export function judge(attempts: readonly Attempt[], final: FinalState): Verdict {
  const byId = new Map(attempts.map((each) => [key(each), each]));
  const present = new Map(final.rows.map((row) => [key(row), row]));
  const of = (outcome: Attempt['outcome']) => attempts.filter((each) => each.outcome === outcome);
  const there = (each: RowId) => present.has(key(each));
  const [acknowledged, failed, unknown] = [of('acknowledged'), of('failed'), of('unknown')];
  const known = acknowledgements({ attempts, transfers: [] });
  return {
    acknowledged: acknowledged.length,
    failed: failed.length,
    unknown: unknown.length,
    present: present.size,
    resolved: unknown.filter(there).length,
    lost: acknowledged.filter((each) => !there(each)).map(idOf),
    duplicates: final.rows.filter(({ count }) => count > 1).map(idOf),
    ghosts: failed.filter(there).map(idOf),
    aliens: final.rows.filter((row) => !byId.has(key(row))).map(idOf),
    staleReads: staleReads(attempts),
    afterReplacement: afterReplacement(known).map(({ what }) => what),
    sharedTimelines: sharedTimelines(known),
    wrongRegisters: wrongRegisters(attempts, final.registers),
  };
}

/** What is wrong, as sentences; none: nothing acknowledged was lost, and there was one primary at a time. */
export function faultsOf(verdict: Verdict): string[] {
  const named = (what: string, names: readonly string[]) =>
    names.length === 0 ? [] : [`${names.length} ${what}: ${some(names)}`];
  const rows = (what: string, ids: readonly RowId[]) => named(what, ids.map(key));
  return [
    ...rows('acknowledged rows are lost (worker/number)', verdict.lost),
    ...rows('rows are there more than once', verdict.duplicates),
    ...rows('rows are there although their transaction was said to have failed', verdict.ghosts),
    ...rows('rows are there that nobody wrote', verdict.aliens),
    ...rows('acknowledged transactions read an old value', verdict.staleReads),
    ...named('transactions were acknowledged by a primary that had been replaced', verdict.afterReplacement),
    ...named('times two primaries acknowledged writes on one timeline', verdict.sharedTimelines),
    ...(verdict.wrongRegisters.length === 0
      ? []
      : [`the registers of the workers ${verdict.wrongRegisters.join(', ')} have a wrong value at the end`]),
  ];
}

/**
 * An atomic register with one writer: what an acknowledged transaction reads is the last write acknowledged before, or
 * one attempted after it that may have been committed.
 */
function staleReads(attempts: readonly Attempt[]): RowId[] {
  const stale: RowId[] = [];
  for (const mine of byWorker(attempts).values()) {
    let possible = new Set([0]);
    for (const each of mine) {
      const { outcome, registerRead: read, seq } = each;
      if (outcome === 'acknowledged' && read !== undefined && !possible.has(read)) stale.push(idOf(each));
      if (outcome === 'acknowledged') possible = new Set([seq]);
      if (outcome === 'unknown') possible.add(seq);
    }
  }
  return stale;
}

function wrongRegisters(attempts: readonly Attempt[], registers: ReadonlyMap<number, number>): number[] {
  const wrong: number[] = [];
  for (const [worker, mine] of byWorker(attempts)) {
    const last = mine.findLastIndex((each) => each.outcome === 'acknowledged');
    const possible = [
      mine[last]?.seq ?? 0,
      ...mine
        .slice(last + 1)
        .filter((each) => each.outcome === 'unknown')
        .map((each) => each.seq),
    ];
    if (!possible.includes(registers.get(worker) ?? 0)) wrong.push(worker);
  }
  return wrong;
}

/** The attempts of each worker in the order of their numbers, which is that of time. */
function byWorker(attempts: readonly Attempt[]): Map<number, Attempt[]> {
  const groups = new Map<number, Attempt[]>();
  for (const each of attempts.toSorted((a, b) => a.seq - b.seq)) {
    const group = groups.get(each.worker);
    if (group === undefined) groups.set(each.worker, [each]);
    else group.push(each);
  }
  return groups;
}

const key = ({ worker, seq }: RowId): string => `${worker}/${seq}`;
const idOf = ({ worker, seq }: RowId): RowId => ({ worker, seq });
