import { type Audit, bank, type FinalBank, type Transfer } from './history.ts';
import { some } from './primaries.ts';

/** What the bank showed. */
export interface BankVerdict {
  readonly acknowledged: number;
  readonly failed: number;
  readonly unknown: number;
  readonly audits: number;
  /** What is wrong, as sentences. */
  readonly problems: readonly string[];
}

/**
 * Judges the bank: every sum is that of the beginning, every acknowledged transfer is there once and no failed one is,
 * and the balances are what the transfers make them.
 */
export function judgeBank(
  transfers: readonly Transfer[],
  audits: readonly Audit[],
  final: FinalBank,
): BankVerdict {
  const total = bank.accounts * bank.initialBalance;
  const problems: string[] = [];
  const complain = (what: string, names: readonly string[]) =>
    names.length > 0 && problems.push(`${names.length} ${what}: ${some(names)}`);

  complain(
    `sums of the bank are not ${total}`,
    audits.filter((each) => each.total !== total).map((each) => `client ${each.client} found ${each.total}`),
  );
  const atEnd = [...final.balances.values()].reduce((sum, each) => sum + each, 0);
  if (atEnd !== total) problems.push(`the bank holds ${atEnd} at the end instead of ${total}`);

  const present = new Map<string, number>();
  for (const each of final.transfers) present.set(key(each), (present.get(key(each)) ?? 0) + 1);
  const of = (outcome: Transfer['outcome']) => transfers.filter((each) => each.outcome === outcome);
  const [acknowledged, failed, unknown] = [of('acknowledged'), of('failed'), of('unknown')];
  complain(
    'acknowledged transfers are lost',
    acknowledged.map(key).filter((each) => !present.has(each)),
  );
  complain(
    'transfers are there although they were said to have failed',
    failed.map(key).filter((each) => present.has(each)),
  );
  complain(
    'transfers are there more than once',
    [...present].filter(([, count]) => count > 1).map(([name]) => name),
  );
  const attempted = new Set(transfers.map(key));
  complain(
    'transfers are there that nobody made',
    [...present.keys()].filter((each) => !attempted.has(each)),
  );

  const expected = new Map(
    [...final.balances.keys()].map((account) => [account, bank.initialBalance as number]),
  );
  for (const { source, target, amount } of final.transfers) {
    expected.set(source, (expected.get(source) ?? 0) - amount);
    expected.set(target, (expected.get(target) ?? 0) + amount);
  }
  complain(
    'accounts hold something else than their transfers make',
    [...expected]
      .filter(([account, balance]) => final.balances.get(account) !== balance)
      .map(([account, balance]) => `${account} holds ${final.balances.get(account)} instead of ${balance}`),
  );
  return {
    acknowledged: acknowledged.length,
    failed: failed.length,
    unknown: unknown.length,
    audits: audits.length,
    problems,
  };
}

const key = ({ client, seq }: { client: number; seq: number }): string => `${client}/${seq}`;
