import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { boundedOutput, waitingBytes } from './output.ts';

const directory = mkdtempSync(join(tmpdir(), 'koschei-output-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

/** A program that logs much more than any pipe holds and goes on. */
const program = join(directory, 'program.ts');
writeFileSync(
  program,
  `import { writeSync } from 'node:fs';
  import { createLogger } from ${JSON.stringify(join(import.meta.dirname, 'logger.ts'))};
  const log = createLogger({ name: 'test', level: 'info' });
  for (let i = 0; i < 4_000; i++) log.info({ filler: 'x'.repeat(1_000) }, 'a line');
  setTimeout(() => {
    writeSync(2, 'a timer went off');
    process.exit(3);
  }, 50);`,
);

describe('an output that nobody reads', () => {
  it.each(['a pipe', 'a socket'])(
    'does not stop the program: %s',
    async (kind) => {
      const fifo = join(directory, 'fifo');
      if (kind === 'a pipe') execFileSync('mkfifo', [fifo]);
      // Open for reading, too, and never read.
      const output = kind === 'a pipe' ? openSync(fifo, 'r+') : 'pipe';
      const child = spawn(process.execPath, [program], {
        stdio: ['ignore', output, 'pipe'],
        timeout: 30_000,
      });
      if (typeof output === 'number') closeSync(output);
      let said = '';
      child.stderr?.setEncoding('utf8').on('data', (text: string) => {
        said += text;
      });
      expect(await once(child, 'exit')).toEqual([3, null]);
      expect(said).toContain('a timer went off');
    },
    40_000,
  );

  it('drops lines beyond its bound, and counts them when it is read again', () => {
    const written: string[] = [];
    const stream = {
      writableLength: 0,
      write: (text: string) => written.push(text) > 0,
      on: () => undefined,
    };
    const output = boundedOutput(stream, 'agent');
    output.write('first\n');
    stream.writableLength = waitingBytes;
    output.write('second\n');
    output.write('third\n');
    stream.writableLength = 0;
    output.write('fourth\n');
    expect(written.map((line) => (line.startsWith('{') ? JSON.parse(line) : line))).toEqual([
      'first\n',
      expect.objectContaining({ level: 'warn', name: 'agent', dropped: 2 }),
      'fourth\n',
    ]);
  });
});
