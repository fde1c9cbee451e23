import { expect, test } from 'vitest';
import type { SlotRow } from '../postgres/index.ts';
import { slotProblem } from './slot-problem.ts';

const slot = (change: Partial<SlotRow>): SlotRow => ({
  name: 'feed',
  type: 'logical',
  active: false,
  restartLsn: 1n,
  walStatus: 'reserved',
  failover: false,
  synced: false,
  temporary: false,
  holdsRows: false,
  ...change,
});

test('slots of others that hold much WAL or have lost it are told, the worst first', () => {
  expect(slotProblem([slot({})])).toBeUndefined();
  const holding = slot({ walStatus: 'extended' });
  expect(slotProblem([holding])).toMatchObject({
    reason: 'SlotHoldsWal',
    message: expect.stringContaining('logical slot "feed" (not in use) holds'),
  });
  expect(slotProblem([slot({ walStatus: 'unreserved', type: 'physical', active: true })])?.message).toContain(
    'physical slot "feed" (in use)',
  );
  const lost = slot({ name: 'old', walStatus: 'lost', restartLsn: null });
  expect(slotProblem([holding, lost])).toMatchObject({
    reason: 'SlotLost',
    message: expect.stringContaining('"old"'),
  });
});

test('slots of Koschei, copies and temporary ones are not', () => {
  const walStatus = 'lost';
  expect(
    slotProblem([
      slot({ walStatus, name: 'k_00000000000000aa', type: 'physical' }),
      slot({ walStatus, synced: true }),
      slot({ walStatus, temporary: true }),
    ]),
  ).toBeUndefined();
});
