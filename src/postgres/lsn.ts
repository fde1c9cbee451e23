import { PostgresError } from './errors.ts';

/** A position in the write-ahead log: a byte offset, 0 to 2^64-1. */
export type Lsn = bigint;

const form = /^([0-9A-F]{1,8})\/([0-9A-F]{1,8})$/i;

/** Reads Postgres's notation `X/Y` (hexadecimal halves). Throws PostgresError `InvalidLsn`. */
export function parseLsn(text: string): Lsn {
  const [, high, low] = form.exec(text) ?? [];
  if (high === undefined || low === undefined) {
    throw new PostgresError('InvalidLsn', {
      expected: 'a log position such as 0/16B3748',
      found: JSON.stringify(text),
      advice: 'check where it came from',
    });
  }
  return (BigInt(`0x${high}`) << 32n) | BigInt(`0x${low}`);
}

/** Writes a position as Postgres does: `X/Y`, upper case, without leading zeros. */
export function formatLsn(lsn: Lsn): string {
  return `${(lsn >> 32n).toString(16)}/${(lsn & 0xffff_ffffn).toString(16)}`.toUpperCase();
}

/** Order of two positions, for `sort`: negative when `a` is earlier. */
export function compareLsn(a: Lsn, b: Lsn): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
