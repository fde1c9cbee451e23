import { describe, expect, it } from 'vitest';
import { replayProgress } from './sql.ts';

describe('how far a replay without a receiver has come', () => {
  const waiting = 'RecoveryRetrieveRetryInterval';

  it('is done when all that was received is replayed', () => {
    expect(replayProgress({ receiveLsn: 5n, replayLsn: 5n, startupWaitEvent: null })).toBe('done');
  });

  it('is not done after a restart, when nothing was received yet, before local WAL has run out', () => {
    for (const startupWaitEvent of [null, 'RecoveryApplyDelay', 'WALRead', 'RecoveryWalStream'])
      expect(replayProgress({ receiveLsn: null, replayLsn: 5n, startupWaitEvent })).toBe('busy');
    expect(replayProgress({ receiveLsn: null, replayLsn: 5n, startupWaitEvent: waiting })).toBe('done');
  });

  it('may be done when what was received last is part of a record', () => {
    expect(replayProgress({ receiveLsn: 9n, replayLsn: 5n, startupWaitEvent: null })).toBe('busy');
    expect(replayProgress({ receiveLsn: 9n, replayLsn: 5n, startupWaitEvent: waiting })).toBe('idle');
  });
});
