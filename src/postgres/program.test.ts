import { expect, test } from 'vitest';
import { mustRunProgram, runProgram } from './program.ts';

test('output, exit code and input', async () => {
  expect(await runProgram('/bin/sh', ['-c', 'cat; echo err >&2; exit 3'], { input: 'in' })).toEqual({
    code: 3,
    stdout: 'in',
    stderr: 'err\n',
  });
  await expect(mustRunProgram('/bin/sh', ['-c', 'echo why >&2; exit 3'])).rejects.toMatchObject({
    code: 'ProgramFailed',
    found: 'exit code 3: why',
  });
});

test('the environment is not passed on', async () => {
  process.env.KOSCHEI_TEST_SECRET = 'geheim';
  const { stdout } = await runProgram('/usr/bin/env', [], { env: { PGCLIENTENCODING: 'UTF8' } });
  expect(stdout).not.toContain('geheim');
  expect(stdout).toContain('PGCLIENTENCODING=UTF8');
});

test('what takes too long is killed with its children', async () => {
  const script = 'sleep 60 & echo $!; wait';
  const begin = performance.now();
  await expect(runProgram('/bin/sh', ['-c', script], { timeoutMs: 100 })).rejects.toMatchObject({
    code: 'ProgramTimeout',
  });
  const reason = new Error('enough');
  await expect(
    runProgram('/bin/sh', ['-c', script], { signal: AbortSignal.any([AbortSignal.abort(reason)]) }),
  ).rejects.toBe(reason);
  const controller = new AbortController();
  const running = runProgram('/bin/sh', ['-c', script], { signal: controller.signal });
  controller.abort(reason);
  await expect(running).rejects.toBe(reason);
  // The pipes close only when the children are gone, too.
  expect(performance.now() - begin).toBeLessThan(5_000);
});

test('a program that is not there', async () => {
  await expect(runProgram('/nowhere/postgres', [])).rejects.toMatchObject({ code: 'ProgramFailed' });
});
