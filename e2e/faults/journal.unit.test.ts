import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Command, Effect } from './fault.ts';
import { Journal } from './journal.ts';
import { Strike } from './strike.ts';

let folder: string;
let file: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'journal-'));
  file = join(folder, 'state/under-way.json');
});
afterEach(() => rmSync(folder, { recursive: true }));

const command = (what: string): Command => ({ what, program: 'true', args: ['one', 'two'] });
const effect = (name: string): Effect => ({ apply: command(`do ${name}`), undo: command(`undo ${name}`) });

/** A stand-in for running commands: remembers them, and fails those that it is told to. */
function recorder(fails: (what: string) => boolean = () => false) {
  const ran: string[] = [];
  const run = async ({ what }: Command) => {
    ran.push(what);
    if (fails(what)) throw new Error(`${what}: no`);
  };
  return { ran, run };
}

describe('the journal of faults', () => {
  test('is empty without a file', async () => {
    const journal = new Journal(file, recorder().run);
    expect(journal.entries()).toEqual([]);
    expect(await journal.undo()).toEqual([]);
  });

  test('undoes what was begun by another process, the last first', async () => {
    const first = new Journal(file, recorder().run);
    await first.apply('one', effect('a'));
    await first.apply('one', { apply: command('kill') });
    await first.apply('two', effect('b'));
    const { ran, run } = recorder();
    const second = new Journal(file, run);
    expect(second.entries().map(({ fault, undo }) => [fault, undo.what])).toEqual([
      ['one', 'undo a'],
      ['two', 'undo b'],
    ]);
    expect(await second.undo()).toEqual([]);
    expect(ran).toEqual(['undo b', 'undo a']);
    expect(first.entries()).toEqual([]);
  });

  test('knows of an effect before it is begun', async () => {
    const journal: Journal = new Journal(file, async () => {
      expect(journal.entries()).toHaveLength(1);
    });
    await journal.apply('one', effect('a'));
    expect.assertions(1);
  });

  test('knows of an effect that failed half-way', async () => {
    const { ran, run } = recorder((what) => what === 'do a');
    const journal = new Journal(file, run);
    await expect(journal.apply('one', effect('a'))).rejects.toThrow('do a: no');
    await journal.undo();
    expect(ran).toEqual(['do a', 'undo a']);
  });

  test('keeps what could not be undone after three tries, and goes on with the rest', async () => {
    const { ran, run } = recorder((what) => what === 'undo b');
    const journal = new Journal(file, run);
    await journal.apply('one', effect('a'));
    await journal.apply('one', effect('b'));
    expect(await journal.undo()).toEqual(['could not undo b: undo b: no']);
    expect(ran.filter((what) => what.startsWith('undo'))).toEqual(['undo b', 'undo b', 'undo b', 'undo a']);
    expect(journal.entries().map(({ undo }) => undo.what)).toEqual(['undo b']);
  });

  test('begins nothing once it is closed', async () => {
    const { ran, run } = recorder();
    const journal = new Journal(file, run);
    journal.close();
    await expect(journal.apply('one', effect('a'))).rejects.toThrow('this program ends');
    expect(ran).toEqual([]);
  });

  test('says when its file is no journal', async () => {
    const journal = new Journal(file, recorder().run);
    await journal.apply('one', effect('a'));
    writeFileSync(file, '[{"id": "x"}]');
    expect(() => journal.entries()).toThrow('is no journal of faults');
  });
});

describe('a strike', () => {
  const fault = (effects: readonly Effect[]) => ({
    ...{ name: 'test', description: 'a test', holdMs: 0 },
    expects: { failovers: [0, 0], gap: 1 } as const,
    plan: () => ({ target: 'nobody', effects }),
  });
  const facts = { namespace: 'n', cluster: 'c', instances: [], etcd: [] };

  test('undoes its own effects only', async () => {
    const { ran, run } = recorder();
    const journal = new Journal(file, run);
    await journal.apply('other', effect('x'));
    const strike = new Strike(fault([effect('a'), effect('b')]), facts, journal);
    await strike.start();
    await strike.end();
    expect(ran).toEqual(['do x', 'do a', 'do b', 'undo b', 'undo a']);
    await strike.end();
    expect(journal.entries()).toHaveLength(1);
  });

  test('undoes what it has done when it cannot go on', async () => {
    const { ran, run } = recorder((what) => what === 'do b');
    const strike = new Strike(fault([effect('a'), effect('b'), effect('c')]), facts, new Journal(file, run));
    await expect(strike.start()).rejects.toThrow('do b: no');
    expect(ran).toEqual(['do a', 'do b', 'undo b', 'undo a']);
  });
});
