import { expect, test } from 'vitest';
import { PostgresLogParser, type PostgresLogRecord } from './log-parser.ts';

function parse(...lines: string[]): PostgresLogRecord[] {
  const records: PostgresLogRecord[] = [];
  const parser = new PostgresLogParser((record) => records.push(record));
  for (const line of lines) parser.line(line);
  parser.flush();
  return records;
}
const prefix = (pid: number, type = 'client backend', state = '00000'): string =>
  `\x1e1795262429.321\x1f${pid}\x1f${type}\x1f${state}\x1fapp\x1fshop\x1fweb\x1f10.0.0.1\x1f`;

test('a message with its additions and continuation lines is one record', () => {
  expect(
    parse(
      `${prefix(7, 'client backend', '23505')}ERROR:  duplicate key`,
      `${prefix(7)}DETAIL:  Key (id)=(1)`,
      '\talready exists.',
      `${prefix(7)}STATEMENT:  INSERT INTO t`,
      '\tVALUES (1)',
      `${prefix(8, 'checkpointer')}LOG:  checkpoint starting: time`,
    ),
  ).toEqual([
    {
      level: 'error',
      severity: 'ERROR',
      time: 1795262429321,
      pid: 7,
      backendType: 'client backend',
      sqlState: '23505',
      user: 'app',
      database: 'shop',
      application: 'web',
      client: '10.0.0.1',
      message: 'duplicate key',
      detail: 'Key (id)=(1)\nalready exists.',
      statement: 'INSERT INTO t\nVALUES (1)',
    },
    expect.objectContaining({ level: 'info', pid: 8, message: 'checkpoint starting: time' }),
  ]);
});

test('additions of another process are not mixed in', () => {
  const records = parse(`${prefix(7)}ERROR:  a`, `${prefix(8)}DETAIL:  of b`);
  expect(records.map(({ message, detail }) => [message, detail])).toEqual([
    ['a', undefined],
    ['of b', undefined],
  ]);
});

test('lines without prefix are records of their own', () => {
  expect(parse('postgres: could not access the server configuration file')).toEqual([
    { level: 'info', message: 'postgres: could not access the server configuration file' },
  ]);
});

test('levels', () => {
  const level = (word: string) => parse(`${prefix(1)}${word}:  x`)[0]?.level;
  expect(['DEBUG2', 'LOG', 'NOTICE', 'WARNING', 'ERROR', 'FATAL', 'PANIC'].map(level)).toEqual([
    'debug',
    'info',
    'info',
    'warn',
    'error',
    'error',
    'fatal',
  ]);
});

test('passwords are hidden', () => {
  const records = parse(`${prefix(1)}ERROR:  no`, `${prefix(1)}STATEMENT:  ALTER ROLE a PASSWORD 'geheim'`);
  expect(JSON.stringify(records)).not.toContain('geheim');
});

test('a standby that waits says so once', () => {
  const waiting = `${prefix(3, 'startup')}LOG:  waiting for WAL to become available at 0/4002000`;
  const later = `${prefix(3, 'startup')}LOG:  waiting for WAL to become available at 0/5000000`;
  expect(parse(waiting, waiting, waiting, later, later)).toHaveLength(2);
});

test('a record is told soon even when nothing follows', async () => {
  const record = await new Promise<PostgresLogRecord>((resolve) => {
    new PostgresLogParser(resolve).line(`${prefix(1)}LOG:  database system is ready`);
  });
  expect(record.message).toBe('database system is ready');
});
