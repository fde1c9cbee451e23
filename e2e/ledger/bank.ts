import { messageOf } from './connection.ts';
import {
  type Audit,
  bank,
  type FinalBank,
  isolations,
  type Outcome,
  type Server,
  type Transfer,
} from './history.ts';
import { commit, type ServerRow, serverColumns, serverOf, type Transaction } from './worker.ts';

/*
 * The bank: accounts whose sum never changes. Clients move money by writing balances that they computed themselves, so
 * that an update lost between two of them shows in the sum.
 */

export const bankTables = [
  `CREATE TABLE IF NOT EXISTS bank_account
     (run text, account int, balance bigint, PRIMARY KEY (run, account))`,
  `CREATE TABLE IF NOT EXISTS bank_transfer
     (run text, client int, seq bigint, source int, target int, amount bigint)`,
];

/** The statement that opens the accounts of a workload, if they are not open. */
export function openAccounts(run: string): string {
  return (
    `INSERT INTO bank_account SELECT ${literal(run)}, generate_series(1, ${bank.accounts}), ` +
    `${bank.initialBalance} ON CONFLICT DO NOTHING`
  );
}

/** Moves money, under the isolation levels in turn. The accounts follow from client and number. */
export function transfer(run: string, client: number, report: (transfer: Transfer) => void): Transaction {
  let seq = 0;
  return async (session, { route, now }) => {
    seq += 1;
    const isolation = isolations[seq % isolations.length] ?? 'serializable';
    const source = 1 + ((seq + client) % bank.accounts);
    const target = 1 + ((source + (seq % (bank.accounts - 1))) % bank.accounts);
    const amount = 1 + ((seq * 7 + client) % 10);
    const invokedAt = now();
    let seen: Partial<Server> = {};
    const end = (ending: { outcome: Outcome; error?: string }, usable: boolean) => {
      const what = { client, seq, isolation, source, target, amount };
      report({ ...what, route, invokedAt, completedAt: now(), ...seen, ...ending });
      return usable;
    };
    const { client: pg } = session;
    try {
      await pg.query(`BEGIN ISOLATION LEVEL ${isolation}`);
      const { rows } = await pg.query<{ account: number; balance: string } & ServerRow>(
        `SELECT account, balance, ${serverColumns} FROM bank_account
         WHERE run = $1 AND account IN ($2, $3)`,
        [run, source, target],
      );
      const [first] = rows;
      const balance = (of: number) => Number(rows.find(({ account }) => account === of)?.balance);
      if (first === undefined || rows.length !== 2) throw new Error('an account is gone');
      seen = serverOf(first);
      await pg.query(
        `WITH moved AS (
           UPDATE bank_account SET balance = CASE account WHEN $3::int THEN $5::bigint ELSE $6::bigint END
           WHERE run = $1 AND account IN ($3, $4))
         INSERT INTO bank_transfer VALUES ($1, $7, $2, $3, $4, $8)`,
        [run, seq, source, target, balance(source) - amount, balance(target) + amount, client, amount],
      );
    } catch (error) {
      // Two that meet at one account: the later one is told to try again, on the same session.
      const conflict = (error as { code?: unknown }).code === '40001' && (await rollback(pg));
      return end({ outcome: 'failed', error: messageOf(error) }, conflict);
    }
    const ending = await commit(session, ['40001']);
    return end(ending, ending.outcome === 'acknowledged');
  };
}

async function rollback(pg: { query(sql: string): Promise<unknown> }): Promise<boolean> {
  return pg.query('ROLLBACK').then(
    () => true,
    () => false,
  );
}

/** Sums up all accounts in one statement. */
export function audit(run: string, client: number, report: (audit: Audit) => void): Transaction {
  return async (session, { route, now }) => {
    const invokedAt = now();
    try {
      const { rows } = await session.client.query<{ total: string } & ServerRow>(
        `SELECT sum(balance) AS total, ${serverColumns} FROM bank_account WHERE run = $1`,
        [run],
      );
      const [row] = rows;
      if (row === undefined) return false;
      report({
        ...{ client, total: Number(row.total), route, invokedAt, completedAt: now() },
        ...serverOf(row),
      });
      return true;
    } catch {
      return false;
    }
  };
}

/** The query for what is left of the bank, as six columns. @throws {TypeError} see `finalStateQuery`. */
export function finalBankQuery(run: string): string {
  return (
    `SELECT 'account', account, balance, 0, 0, 0 FROM bank_account WHERE run = ${literal(run)} UNION ALL ` +
    `SELECT 'transfer', client, seq, source, target, amount FROM bank_transfer WHERE run = ${literal(run)}`
  );
}

/**
 * Reads the answer to {@link finalBankQuery} as `psql --no-align --tuples-only` prints it.
 * @throws {TypeError} on a line that is none.
 */
export function parseFinalBank(output: string): FinalBank {
  const balances = new Map<number, number>();
  const transfers: FinalBank['transfers'][number][] = [];
  for (const line of output.split('\n')) {
    if (line === '') continue;
    const match = /^(account|transfer)((?:\|-?\d+){5})$/.exec(line);
    if (match === null) throw new TypeError(`expected an account or a transfer, found: ${line}`);
    const [first = 0, second = 0, source = 0, target = 0, amount = 0] = (match[2] ?? '')
      .slice(1)
      .split('|')
      .map(Number);
    if (match[1] === 'account') balances.set(first, second);
    else transfers.push({ client: first, seq: second, source, target, amount });
  }
  return { balances, transfers };
}

function literal(run: string): string {
  if (!/^[a-z0-9-]+$/.test(run)) throw new TypeError(`expected a run such as run-1, found ${run}`);
  return `'${run}'`;
}
