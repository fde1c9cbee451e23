import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseControlData, wasShutDownCleanly } from './control-data.ts';

const recorded = (name: string): string => readFileSync(new URL(`recorded/${name}`, import.meta.url), 'utf8');

test('a fresh Postgres 15', () => {
  const control = parseControlData(recorded('pg_controldata-15.txt'));
  expect(control).toEqual({
    systemIdentifier: '7710597510276157404',
    state: 'shut down',
    checkpointLsn: 0x17414d0n,
    checkpointRedoLsn: 0x17414d0n,
    checkpointTimeline: 1,
    previousTimeline: 1,
    minRecoveryEndLsn: 0n,
    minRecoveryEndTimeline: 0,
    backupStartLsn: 0n,
    walLevel: 'replica',
    walLogHints: false,
    dataChecksums: true,
    walSegmentBytes: 16 * 2 ** 20,
    settings: {
      max_connections: 100,
      max_worker_processes: 8,
      max_wal_senders: 10,
      max_prepared_transactions: 0,
      max_locks_per_transaction: 64,
    },
  });
  expect(wasShutDownCleanly(control)).toBe(true);
});

test('a running standby of Postgres 17 on timeline 3', () => {
  const control = parseControlData(recorded('pg_controldata-17.txt'));
  expect(control).toMatchObject({
    state: 'in archive recovery',
    minRecoveryEndTimeline: 3,
    walLogHints: true,
    dataChecksums: true,
  });
  expect(control.minRecoveryEndLsn).toBeGreaterThan(control.checkpointLsn);
  expect(wasShutDownCleanly(control)).toBe(false);
});

test('what is missing or unknown is named', () => {
  const output = recorded('pg_controldata-15.txt');
  expect(() => parseControlData(output.replace(/^max_wal_senders.*$/m, ''))).toThrow(/max_wal_senders/);
  expect(() => parseControlData(output.replace('shut down', 'on holiday'))).toThrow(/on holiday/);
  expect(() => parseControlData('')).toThrow(expect.objectContaining({ code: 'UnreadableControlData' }));
});
