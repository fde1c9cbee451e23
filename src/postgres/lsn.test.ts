import fc from 'fast-check';
import { expect, test } from 'vitest';
import { compareLsn, formatLsn, parseLsn } from './lsn.ts';

test('positions are read and written as Postgres does', () => {
  expect(parseLsn('0/16B3748')).toBe(0x16b3748n);
  expect(parseLsn('16/B374D848')).toBe(0x16b374d848n);
  expect(formatLsn(0x16b374d848n)).toBe('16/B374D848');
  expect(formatLsn(0n)).toBe('0/0');
  fc.assert(
    fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (lsn) => parseLsn(formatLsn(lsn)) === lsn),
  );
});

test('what is no position is refused', () => {
  for (const text of ['', '0', '0/', '/0', 'x/1', '0/123456789', '0/1 ', '-1/0']) {
    expect(() => parseLsn(text)).toThrow(expect.objectContaining({ code: 'InvalidLsn' }));
  }
});

test('order', () => {
  expect(['1/0', '0/FFFFFFFF', '0/2'].map(parseLsn).sort(compareLsn).map(formatLsn)).toEqual([
    '0/2',
    '0/FFFFFFFF',
    '1/0',
  ]);
});
