import { expect, it } from 'vitest';
import { parseQuantity, quantitySchema, sizeSchema } from './quantity.ts';

it.each([
  ['0', 0],
  ['1', 1],
  ['100m', 0.1],
  ['1k', 1000],
  ['1Ki', 1024],
  ['1.5Gi', 1.5 * 1024 ** 3],
  ['1Ti', 1024 ** 4],
  ['2E', 2e18],
  ['2e3', 2000],
])('reads %s', (text, value) => {
  expect(parseQuantity(text)).toBe(value);
});

it.each(['', 'Gi', '-1Gi', '+1', '1 Gi', '1gi', '1KiB', '1.', '.5', '1Gi ', '1i', '0x10', '1n'])(
  'does not take %j for a quantity',
  (text) => {
    expect(parseQuantity(text)).toBeUndefined();
    expect(sizeSchema('').safeParse(text).success).toBe(false);
  },
);

it('takes numbers where YAML gives numbers, and makes them strings', () => {
  expect(quantitySchema('').parse(2)).toBe('2');
  expect(quantitySchema('').parse('500m')).toBe('500m');
  expect(quantitySchema('').safeParse(1.5).success).toBe(false);
});
