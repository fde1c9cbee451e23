/** What went wrong, for code to decide on. The message is for people. */
export type PostgresErrorCode =
  | 'NoPostgresInImage'
  | 'MuslImage'
  | 'WrongPostgresVersion'
  | 'UnknownOsUser'
  | 'UnreadableControlData'
  | 'InvalidLsn'
  | 'InvalidTimelineHistory'
  | 'HistoryAhead'
  | 'InvalidParameter'
  | 'VolumeInconsistent'
  | 'UnreadableIdentity'
  | 'ProgramFailed'
  | 'ProgramTimeout'
  | 'AlreadyRunning'
  | 'StaleProcesses'
  | 'StartFailed'
  | 'StopTimeout'
  | 'FenceIncomplete'
  | 'SqlTimeout'
  | 'SqlFailed'
  | 'NotEnoughSpace';

/** A failure of Postgres or of one of its programs: what was expected, what was found, what to do. */
export class PostgresError extends Error {
  override readonly name = 'PostgresError';
  readonly code: PostgresErrorCode;
  readonly expected: string;
  readonly found: string;
  readonly advice: string;

  constructor(
    code: PostgresErrorCode,
    details: { expected: string; found: string; advice: string; cause?: unknown },
  ) {
    super(
      `expected ${details.expected}; found ${details.found}; ${details.advice}`,
      details.cause === undefined ? undefined : { cause: details.cause },
    );
    this.code = code;
    this.expected = details.expected;
    this.found = details.found;
    this.advice = details.advice;
  }
}
