import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { withLimits } from './deadline.ts';

const never = () => new Error('too late');
const fails = () => sleep(5).then(() => Promise.reject(new Error('the connection is gone')));

it('leaves work behind whose failure ends nothing, whenever it was given up', async () => {
  // An unhandled rejection would fail the run.
  const signal = AbortSignal.abort(new Error('given up before'));
  await expect(withLimits(fails(), { signal }, never)).rejects.toThrow('given up before');
  await expect(withLimits(fails(), { timeoutMs: 1 }, never)).rejects.toThrow('too late');
  await sleep(20);
});

it('passes on what came in time', async () => {
  await expect(withLimits(Promise.resolve(7), { timeoutMs: 100 }, never)).resolves.toBe(7);
  await expect(withLimits(fails(), { timeoutMs: 100 }, never)).rejects.toThrow('the connection is gone');
});
