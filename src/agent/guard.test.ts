import { execFileSync } from 'node:child_process';
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { pipeGuard } from './guard.ts';

let directory: string;
let reader: number;
let pipe: string;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'koschei-'));
  pipe = join(directory, 'pipe');
  execFileSync('mkfifo', [pipe]);
  reader = openSync(pipe, constants.O_RDONLY | constants.O_NONBLOCK);
});
afterEach(() => {
  closeSync(reader);
  rmSync(directory, { recursive: true });
});

/** What koschei-init would read now. */
function lines(): string[] {
  const buffer = Buffer.alloc(1 << 20);
  let length = 0;
  try {
    for (let count = -1; count !== 0; length += count) count = readSync(reader, buffer, length, 65_536, null);
  } catch {
    // There is no more.
  }
  return buffer.toString('latin1', 0, length).split('\n').slice(0, -1);
}

test('what changes is told, once', () => {
  const guard = pipeGuard(openSync(pipe, 'w'));
  guard.deadline(1_000.7);
  guard.deadline(1_000.2);
  guard.postmaster(7);
  guard.postmaster(7);
  guard.deadline(0);
  expect(lines()).toEqual(['deadline 1000', 'postmaster 7', 'deadline 0']);
});

test('a koschei-init that does not read is not waited for, and hears the last when it reads again', () => {
  const guard = pipeGuard(openSync(pipe, 'w'));
  const count = 20_000;
  for (let i = 1; i <= count; i++) guard.deadline(i);
  const first = lines();
  expect(first.length).toBeLessThan(count);
  expect(first.at(-1)).toBe(`deadline ${first.length}`);
  guard.deadline(count);
  expect(lines()).toEqual([`deadline ${count}`]);
});
