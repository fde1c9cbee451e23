/** `log_line_prefix` that `PostgresLogParser` understands; fields are separated by the unit separator. */
export const logLinePrefix = '\x1e%n\x1f%p\x1f%b\x1f%e\x1f%u\x1f%d\x1f%a\x1f%h\x1f';

/** One message of Postgres. Undefined fields were empty. */
export interface PostgresLogRecord {
  /** pino's level names. */
  readonly level: 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  /** Milliseconds since 1970; undefined for lines without prefix. */
  readonly time?: number;
  readonly pid?: number;
  readonly backendType?: string;
  readonly sqlState?: string;
  readonly user?: string;
  readonly database?: string;
  readonly application?: string;
  readonly client?: string;
  /** Postgres's own word: LOG, WARNING, ERROR, FATAL, PANIC, ... */
  readonly severity?: string;
  readonly message: string;
  readonly detail?: string;
  readonly hint?: string;
  readonly context?: string;
  readonly statement?: string;
}

/** Puts the lines of Postgres's stderr together to records. */
export class PostgresLogParser {
  constructor(_emit: (record: PostgresLogRecord) => void) {}

  /** Takes one line without its newline. */
  line(_text: string): void {
    throw new Error('not written yet');
  }

  /** Emits what is still held: call it at the end and when no line has come for a while. */
  flush(): void {
    throw new Error('not written yet');
  }
}
