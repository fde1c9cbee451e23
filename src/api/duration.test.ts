import { expect, it } from 'vitest';
import { durationSchema, parseDuration } from './duration.ts';

it.each([
  ['0', 0],
  ['0s', 0],
  ['45s', 45_000],
  ['30m', 1_800_000],
  ['1h30m', 5_400_000],
  ['720h', 2_592_000_000],
])('reads %s', (text, ms) => {
  expect(durationSchema.safeParse(text).success).toBe(true);
  expect(parseDuration(text)).toBe(ms);
});

it.each(['', '30', '30 m', '-5m', '1.5h', '5m1h', '1d', 'forever'])('refuses "%s"', (text) => {
  expect(durationSchema.safeParse(text).success).toBe(false);
  expect(parseDuration(text)).toBeUndefined();
});
