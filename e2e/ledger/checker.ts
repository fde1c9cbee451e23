import type { Attempt, FinalState } from './history.ts';

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
  /** Acknowledged on an older timeline than a transaction that had ended before they began: two primaries. */
  readonly oldTimelines: readonly RowId[];
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
    oldTimelines: oldTimelines(acknowledged),
    wrongRegisters: wrongRegisters(attempts, final.registers),
  };
}

/** What is wrong, as sentences; none: nothing acknowledged was lost, and there was one primary at a time. */
export function faultsOf(verdict: Verdict): string[] {
  const rows = (what: string, ids: readonly RowId[]) =>
    ids.length === 0
      ? []
      : [
          `${ids.length} ${what}: ${ids
            .slice(0, 5)
            .map((id) => `${id.worker}/${id.seq}`)
            .join(', ')}${ids.length > 5 ? ', ...' : ''}`,
        ];
  return [
    ...rows('acknowledged rows are lost (worker/number)', verdict.lost),
    ...rows('rows are there more than once', verdict.duplicates),
    ...rows('rows are there although their transaction was said to have failed', verdict.ghosts),
    ...rows('rows are there that nobody wrote', verdict.aliens),
    ...rows('acknowledged transactions read an old value', verdict.staleReads),
    ...rows('transactions were acknowledged by a primary that had been replaced', verdict.oldTimelines),
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

/** Of transactions that do not overlap, the later one may not be acknowledged on an older timeline. */
function oldTimelines(acknowledged: readonly Attempt[]): RowId[] {
  const known = acknowledged.flatMap((each) =>
    each.timeline === undefined ? [] : [{ ...each, timeline: each.timeline }],
  );
  const byEnd = known.toSorted((a, b) => a.completedAt - b.completedAt);
  const old: RowId[] = [];
  let ended = 0;
  let newest = 0;
  for (const each of known.toSorted((a, b) => a.invokedAt - b.invokedAt)) {
    for (let next = byEnd[ended]; next !== undefined && next.completedAt < each.invokedAt; ) {
      newest = Math.max(newest, next.timeline);
      ended += 1;
      next = byEnd[ended];
    }
    if (each.timeline < newest) old.push(idOf(each));
  }
  return old;
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
