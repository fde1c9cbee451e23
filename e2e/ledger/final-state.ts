import type { FinalState, PresentRow } from './history.ts';

/**
 * The query for what is left of a workload: rows and registers, as four columns.
 * @throws {TypeError} if the name of the run is not made of small letters, digits and hyphens.
 */
export function finalStateQuery(run: string): string {
  if (!/^[a-z0-9-]+$/.test(run)) throw new TypeError(`expected a run such as run-1, found ${run}`);
  return (
    `SELECT 'row', worker, seq, count(*) FROM ledger WHERE run = '${run}' GROUP BY worker, seq ` +
    `UNION ALL SELECT 'register', worker, seq, 1 FROM ledger_register WHERE run = '${run}'`
  );
}

/**
 * Reads the answer to {@link finalStateQuery} as `psql --no-align --tuples-only` prints it.
 * @throws {TypeError} on a line that is none.
 */
export function parseFinalState(output: string): FinalState {
  const rows: PresentRow[] = [];
  const registers = new Map<number, number>();
  for (const line of output.split('\n')) {
    if (line === '') continue;
    const match = /^(row|register)\|(\d+)\|(\d+)\|(\d+)$/.exec(line);
    if (match === null) throw new TypeError(`expected a row or register, found: ${line}`);
    const [worker = 0, seq = 0, count = 0] = match.slice(2).map(Number);
    if (match[1] === 'row') rows.push({ worker, seq, count });
    else registers.set(worker, seq);
  }
  return { rows, registers };
}
