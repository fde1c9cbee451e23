import { expect, test } from 'vitest';
import { waitUntil } from '../cluster/shell.ts';
import { PrimaryWatch } from './primary-watch.ts';

/** A fake of some hosts: the timeline of each, `standby`, or `gone`. */
function watchOf(hosts: Record<string, number | 'standby' | 'gone'>) {
  const stop = new AbortController();
  const changes: string[] = [];
  const watch = new PrimaryWatch({
    addresses: async () => Object.keys(hosts),
    connect: async (address) => ({
      timeline: async () => {
        const state = hosts[address];
        if (state === 'gone') throw new Error('no answer');
        return typeof state === 'number' ? state : undefined;
      },
      close: () => {},
    }),
    changed: (primary) => changes.push(primary),
    signal: stop.signal,
  });
  const becomes = (primary: string | undefined) =>
    waitUntil(`the primary to be ${primary}`, 2_000, async () => watch.primary === primary);
  return { becomes, changes, stop };
}

test('follows the primary, and prefers the later timeline to one that does not know yet', async () => {
  const hosts: Record<string, number | 'standby' | 'gone'> = { a: 1, b: 'standby' };
  const { becomes, changes, stop } = watchOf(hosts);
  await becomes('a');
  hosts.b = 2;
  await becomes('b');
  hosts.a = 'gone';
  hosts.b = 'gone';
  await becomes(undefined);
  hosts.c = 3;
  await becomes('c');
  stop.abort();
  expect(changes).toEqual(['a', 'b', 'c']);
});
