import { expect, test } from 'vitest';
import { syncMethod } from './sync-method.ts';

test('syncfs where Postgres can and Linux tells errors', () => {
  expect(syncMethod(17, '6.1.0-28-amd64')).toEqual(['--sync-method=syncfs']);
  expect(syncMethod(17, '5.8.0')).toEqual(['--sync-method=syncfs']);
  expect(syncMethod(17, '5.4.0-150-generic')).toEqual([]);
  expect(syncMethod(16, '6.1.0')).toEqual([]);
});
