import { describe, expect, it } from 'vitest';
import { createLogger, type LoggerOptions, redact } from './logger.ts';

function recorder(level: LoggerOptions['level'] = 'info') {
  const lines: string[] = [];
  const log = createLogger({ name: 'agent', level, destination: { write: (line) => void lines.push(line) } });
  return { log, text: () => lines.join(''), last: () => JSON.parse(lines.at(-1) ?? '{}') };
}

describe('createLogger', () => {
  it('writes one JSON object per line, without pid and host name', () => {
    const { log, text, last } = recorder();
    log.child({ instance: 'shop-1' }).info({ term: 3 }, 'promoted');
    expect(text()).toMatch(/^\{.*\}\n$/);
    expect(last()).toEqual({
      level: 'info',
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT.*Z$/),
      name: 'agent',
      instance: 'shop-1',
      term: 3,
      msg: 'promoted',
    });
  });

  it('keeps to its level', () => {
    const { log, text } = recorder('warn');
    log.info('quiet');
    expect(text()).toBe('');
  });

  it.each([
    'password',
    'PGPASSWORD',
    'pgpass',
    'token',
    'key',
    'tls.key',
    'ca.key',
    'connectionString',
    'authorization',
    'secretAccessKey',
    'primary_conninfo',
  ])('hides %s at every depth, in records and bindings', (name) => {
    const { log, text, last } = recorder();
    log.child({ [name]: 'hunter2' }).info({ [name]: 'hunter2', a: { b: [{ [name]: 'hunter2' }] } }, 'x');
    expect(text()).not.toContain('hunter2');
    expect(last().a.b[0][name]).toBe('[redacted]');
  });

  it.each([
    'postgres://app:hunter2@shop-rw:5432/app',
    'host=shop-rw password=hunter2 user=app',
    "host=shop-rw password = 'hunter2' user=app",
    'Authorization: Bearer hunter2',
    '-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----',
    '-----BEGIN EC PRIVATE KEY-----\nhunter2',
  ])('hides a secret in %j, in messages, fields and errors', (secret) => {
    const { log, text } = recorder();
    log.info(secret);
    log.info('%s', secret);
    log.info({ note: secret }, 'x');
    log.error(new Error(secret));
    log.error({ err: new Error('outer', { cause: new Error(secret) }) }, 'x');
    expect(text().split('\n')).toHaveLength(6);
    expect(text()).not.toContain('hunter2');
  });

  it('shows what people need of an error', () => {
    const { log, last } = recorder();
    log.error({ err: Object.assign(new TypeError('no route'), { code: 'EHOSTUNREACH' }) }, 'failed');
    expect(last().err).toMatchObject({ type: 'TypeError', message: 'no route', code: 'EHOSTUNREACH' });
    expect(last().err.stack).toContain('logger.test.ts');
  });

  it('leaves ordinary texts alone', () => {
    const { log, last } = recorder();
    log.info({ url: 'https://etcd-0.etcd:2379', keys: ['leader'], lsn: 7n }, 'watching /koschei/ns/shop');
    expect(last()).toMatchObject({ url: 'https://etcd-0.etcd:2379', keys: ['leader'], lsn: '7' });
    expect(last().msg).toBe('watching /koschei/ns/shop');
  });
});

it('redact survives what refers to itself', () => {
  const loop: Record<string, unknown> = { a: 1 };
  loop.self = loop;
  expect(JSON.stringify(redact(loop))).toContain('[cut]');
});
