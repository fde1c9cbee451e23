import { expect, it } from 'vitest';
import { cronFault } from './cron.ts';

it.each(['0 3 * * *', '*/15 * * * *', '0 0,12 1-7 */2 0', '30 2 * * 1-5', '0-30/10 4 * * 7', ' 0  3 * * * '])(
  'takes %j',
  (line) => {
    expect(cronFault(line)).toBeUndefined();
  },
);

it.each([
  ['', /five fields/],
  ['0 0 3 * * *', /five fields, found 6/],
  ['@daily', /five fields/],
  ['60 3 * * *', /minute: expected 0 to 59, found 60/],
  ['0 24 * * *', /hour/],
  ['0 3 0 * *', /day of month: expected 1 to 31/],
  ['0 3 * 13 *', /month/],
  ['0 3 * * 8', /day of week/],
  ['0 3 * * mon', /day of week: expected \*/],
  ['5-1 3 * * *', /backwards/],
  ['*/0 3 * * *', /never comes/],
  ['5/10 3 * * *', /needs \* or a range/],
  ['1,,2 3 * * *', /minute/],
])('refuses %j', (line, why) => {
  expect(cronFault(line)).toMatch(why);
});
