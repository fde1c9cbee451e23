/** A timeline: where it began, and the timelines before it. */
export interface Branch {
  readonly timeline: number;
  /** Ancestors, oldest first: each ended where its successor began. */
  readonly ancestors: readonly { readonly timeline: number; readonly end: bigint }[];
}

/**
 * One WAL record; a Postgres's WAL is its newest record and the chain of those before it. Each record is one unit long,
 * so records of different histories may have the same LSN.
 */
export interface WalRecord {
  readonly lsn: number;
  readonly branch: Branch;
  readonly before: WalRecord | undefined;
}

export const firstRecord: WalRecord = {
  lsn: 1,
  branch: { timeline: 1, ancestors: [] },
  before: undefined,
};

export function append(tip: WalRecord): WalRecord {
  return { lsn: tip.lsn + 1, branch: tip.branch, before: tip };
}

/** The first record of a new timeline that leaves the present one here. */
export function fork(tip: WalRecord, timeline: number): WalRecord {
  const { branch, lsn } = tip;
  const ancestors = [...branch.ancestors, { timeline: branch.timeline, end: BigInt(lsn) }];
  return { lsn: lsn + 1, branch: { timeline, ancestors }, before: tip };
}

/** Whether `record` is in the history that ends with `tip`. */
export function contains(tip: WalRecord, record: WalRecord): boolean {
  let at: WalRecord | undefined = tip;
  while (at !== undefined && at.lsn > record.lsn) at = at.before;
  return at === record;
}

/** All records of the history that ends with `tip`. */
export function history(tip: WalRecord): Set<WalRecord> {
  const records = new Set<WalRecord>();
  for (let at: WalRecord | undefined = tip; at !== undefined; at = at.before) records.add(at);
  return records;
}
