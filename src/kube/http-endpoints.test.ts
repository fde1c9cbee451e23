import { Counter, Registry } from 'prom-client';
import { expect, it, onTestFinished } from 'vitest';
import { HttpEndpoints } from './http-endpoints.ts';

it('says whether the process lives and is ready, and serves its metrics', async () => {
  const registry = new Registry();
  new Counter({ name: 'test_total', help: 'x', registers: [registry] }).inc(3);
  let problem: string | undefined = 'has not synced';
  const endpoints = new HttpEndpoints({
    host: '127.0.0.1',
    port: 0,
    registry,
    live: { always: () => undefined },
    ready: { caches: () => problem },
  });
  await endpoints.start();
  onTestFinished(() => endpoints.stop());
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${endpoints.port}${path}`);
    return `${response.status} ${await response.text()}`;
  };
  expect(await get('/healthz')).toBe('200 ok\n');
  expect(await get('/readyz?verbose')).toBe('503 caches: has not synced\n');
  problem = undefined;
  expect(await get('/readyz')).toBe('200 ok\n');
  expect(await get('/metrics')).toContain('test_total 3');
  expect(await get('/')).toBe('404 not found\n');
});

it('fails to start on a port that is taken', async () => {
  const options = { host: '127.0.0.1', registry: new Registry(), live: {}, ready: {} };
  const first = new HttpEndpoints({ ...options, port: 0 });
  await first.start();
  onTestFinished(() => first.stop());
  await expect(new HttpEndpoints({ ...options, port: first.port }).start()).rejects.toThrow('EADDRINUSE');
});
