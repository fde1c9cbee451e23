/** `log_line_prefix` that `PostgresLogParser` understands: a record separator, then fields ended by unit separators. */
export const logLinePrefix = '\x1e%n\x1f%p\x1f%b\x1f%e\x1f%u\x1f%d\x1f%a\x1f%h\x1f';

/** One message of Postgres. Fields that were empty are missing. */
export interface PostgresLogRecord {
  /** pino's level names. */
  readonly level: 'debug' | 'info' | 'warn' | 'error' | 'fatal';
  /** Milliseconds since 1970; missing for lines without prefix, such as those before the settings are read. */
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

type Writable<T> = { -readonly [K in keyof T]: T[K] };
type Part = 'message' | 'detail' | 'hint' | 'context' | 'statement';

const levels: Readonly<Record<string, PostgresLogRecord['level']>> = {
  DEBUG: 'debug',
  LOG: 'info',
  INFO: 'info',
  NOTICE: 'info',
  WARNING: 'warn',
  ERROR: 'error',
  FATAL: 'error',
  PANIC: 'fatal',
};
const additions: Readonly<Record<string, Part>> = {
  DETAIL: 'detail',
  HINT: 'hint',
  CONTEXT: 'context',
  QUERY: 'context',
  STATEMENT: 'statement',
  LOCATION: 'context',
};

/**
 * Puts the lines of Postgres's stderr together to records: a message, its continuation lines (which begin with a tab)
 * and its DETAIL, HINT, CONTEXT and STATEMENT lines. A record is emitted when the next begins, or `flushAfterMs` (default
 * 50) later. Statements that mention a password are hidden.
 */
export class PostgresLogParser {
  readonly #emit: (record: PostgresLogRecord) => void;
  #record: Writable<PostgresLogRecord> | undefined;
  #part: Part = 'message';
  #lastWait: string | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #flushAfterMs: number;

  constructor(emit: (record: PostgresLogRecord) => void, { flushAfterMs = 50 } = {}) {
    this.#emit = emit;
    this.#flushAfterMs = flushAfterMs;
  }

  /** Takes one line without its newline. */
  line(text: string): void {
    if (text.startsWith('\t') && this.#record !== undefined) {
      this.#record[this.#part] = `${this.#record[this.#part] ?? ''}\n${text.slice(1)}`;
      return;
    }
    const fields = text.startsWith('\x1e') ? text.slice(1).split('\x1f') : [];
    if (fields.length < 9) {
      this.flush();
      this.#begin({ level: 'info', message: text });
      return;
    }
    const [time, pid, backendType, sqlState, user, database, application, client] = fields;
    const body = fields.slice(8).join('\x1f');
    const [, word = '', rest = body] = /^([A-Z]+\d?):\s{1,2}(.*)$/s.exec(body) ?? [];
    const addition = additions[word];
    if (addition !== undefined && this.#record?.pid === Number(pid)) {
      const before = this.#record[addition];
      this.#record[addition] = before === undefined ? rest : `${before}\n${rest}`;
      this.#part = addition;
      return;
    }
    this.flush();
    this.#begin({
      level: levels[word.replace(/\d$/, '')] ?? 'info',
      time: Math.round(Number(time) * 1000),
      pid: Number(pid),
      severity: word,
      ...present({ backendType, user, database, application, client }),
      ...(sqlState === '00000' ? {} : present({ sqlState })),
      message: rest,
    });
  }

  /** Emits what is still held. */
  flush(): void {
    clearTimeout(this.#timer);
    const record = this.#record;
    if (record === undefined) return;
    this.#record = undefined;
    for (const part of ['message', 'detail', 'context', 'statement'] as const) {
      if (/password\s+'/i.test(record[part] ?? '')) record[part] = '(hidden: it mentions a password)';
    }
    // A standby without upstream says this at each wal_retrieve_retry_interval: once is enough.
    if (record.message.startsWith('waiting for WAL to become available')) {
      if (record.message === this.#lastWait) return;
      this.#lastWait = record.message;
    }
    this.#emit(record);
  }

  #begin(record: PostgresLogRecord): void {
    this.#record = record;
    this.#part = 'message';
    this.#timer = setTimeout(() => this.flush(), this.#flushAfterMs);
  }
}

function present(fields: Readonly<Record<string, string | undefined>>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(fields).filter(
      (entry): entry is [string, string] => entry[1] !== undefined && entry[1] !== '',
    ),
  );
}
