import { type DestinationStream, type Logger, pino } from 'pino';
import { boundedOutput } from './output.ts';

export type { Logger } from 'pino';

/** Names of fields that never reach a log, wherever they stand in a record, compared without case. */
const secretNames = new Set(
  [
    'password',
    'passwd',
    'pgpass',
    'pgpassword',
    'secret',
    'secretKey',
    'secretAccessKey',
    'token',
    'accessToken',
    'authorization',
    'cookie',
    'key',
    'tls.key',
    'ca.key',
    'privateKey',
    'passphrase',
    'connectionString',
    'connectionUri',
    'uri',
    'dsn',
    'conninfo',
    'primary_conninfo',
    'stringData',
  ].map((name) => name.toLowerCase()),
);

/** Secrets inside texts: passwords in URLs and connection strings, and private keys in PEM. */
const secretTexts: readonly [RegExp, string][] = [
  [/\b([a-z][a-z0-9+.-]*:\/\/[^\s/:@]*):[^\s/@]+@/gi, '$1:[redacted]@'],
  [
    /\b(password|passwd|pgpassword|passfile|sslpassword)(\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&;,]+)/gi,
    '$1$2[redacted]',
  ],
  [/\b(bearer)\s+[\w.~+/=-]+/gi, '$1 [redacted]'],
  [/-----BEGIN ([A-Z ]*PRIVATE KEY)-----[\s\S]*?(-----END \1-----|$)/g, '[redacted $1]'],
];

const redacted = '[redacted]';
/** Deeper than this a record is cut: logs are for people, not for dumps. */
const maxDepth = 8;

/** A text without the secrets that are recognizable in it. */
export const redactText = (text: string): string =>
  secretTexts.reduce((cleaned, [pattern, replacement]) => cleaned.replace(pattern, replacement), text);

/** A copy of a value without secrets; errors become their name, message, code and stack. */
export function redact(value: unknown, depth = 0): unknown {
  if (typeof value === 'string') return redactText(value);
  if (typeof value === 'bigint') return value.toString();
  if (typeof value !== 'object' || value === null || value instanceof Date) return value;
  if (depth >= maxDepth) return '[cut]';
  if (Array.isArray(value)) return value.map((entry) => redact(entry, depth + 1));
  if (ArrayBuffer.isView(value)) return `[${value.byteLength} bytes]`;
  if (value instanceof Error) return redact(plainError(value), depth);
  if (value instanceof Map) return redact(Object.fromEntries(value), depth);
  if (value instanceof Set) return redact([...value], depth);
  return Object.fromEntries(
    Object.entries(value).map(([name, entry]) => [
      name,
      secretNames.has(name.toLowerCase()) && entry !== undefined ? redacted : redact(entry, depth + 1),
    ]),
  );
}

const plainError = (error: Error): Record<string, unknown> => ({
  ...error,
  type: error.name,
  message: error.message,
  stack: error.stack,
  ...(error.cause === undefined ? {} : { cause: error.cause }),
});

export interface LoggerOptions {
  /** The program or part that logs: `operator`, `agent`. */
  name: string;
  level: 'debug' | 'info' | 'warn' | 'error' | 'silent';
  /** Standard output if left out; it never blocks (see {@link boundedOutput}). */
  destination?: DestinationStream;
}

/**
 * A logger that writes one JSON object per line, with times in ISO 8601 and the level as a word.
 * Every record is cleaned by {@link redact}; errors belong under `err`.
 */
export function createLogger({ name, level, destination }: LoggerOptions): Logger {
  const log = pino(
    {
      base: { name },
      level,
      timestamp: pino.stdTimeFunctions.isoTime,
      // Records are cleaned before; pino's own would rewrite errors once more.
      serializers: { err: (cleaned) => cleaned },
      formatters: {
        level: (label) => ({ level: label }),
      },
      hooks: {
        logMethod([first, ...rest], method) {
          const error = first instanceof Error ? first : (first as { err?: unknown } | undefined)?.err;
          // pino would take the message of a record that has none from its error, uncleaned.
          const texts = rest.length === 0 && error instanceof Error ? [error.message] : rest;
          const record = first instanceof Error ? { err: first } : first;
          const args = [record, ...texts].map((arg) =>
            typeof arg === 'string' ? redactText(arg) : redact(arg),
          );
          method.apply(this, args as Parameters<typeof method>);
        },
      },
    },
    destination ?? boundedOutput(process.stdout, name),
  );
  const { child } = log;
  // Children inherit this from the logger that makes them; pino has no hook for their bindings.
  const cleanChild: typeof child = function (this: Logger, bindings, options) {
    return Reflect.apply(child, this, [redact(bindings), options]);
  };
  log.child = cleanChild;
  return log;
}
