import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { findBinaries } from './binaries.ts';

let directory: string;
beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'koschei-'));
});
afterEach(() => rm(directory, { recursive: true }));

async function install(name: string, version: string): Promise<string> {
  const bin = join(directory, name);
  await mkdir(bin);
  for (const each of ['postgres', 'initdb', 'pg_controldata', 'pg_basebackup', 'pg_rewind']) {
    await writeFile(join(bin, each), `#!/bin/sh\necho "${each} (PostgreSQL) ${version}"\n`);
    await chmod(join(bin, each), 0o755);
  }
  return bin;
}

test('the first complete directory counts', async () => {
  await mkdir(join(directory, 'empty'));
  const bin = await install('bin', '17.5 (Debian 17.5-1)');
  expect(
    await findBinaries(17, { searchPath: [join(directory, 'empty'), join(directory, 'none'), bin] }),
  ).toEqual({
    directory: bin,
    major: 17,
    version: '17.5 (Debian 17.5-1)',
  });
});

test('no Postgres, another version and musl are told apart', async () => {
  await expect(findBinaries(17, { searchPath: [directory] })).rejects.toMatchObject({
    code: 'NoPostgresInImage',
  });
  const bin = await install('bin', '16.9');
  await expect(findBinaries(17, { searchPath: [bin] })).rejects.toMatchObject({
    code: 'WrongPostgresVersion',
    found: '16.9',
  });
  await writeFile(join(directory, 'ld-musl-x86_64.so.1'), '');
  await expect(findBinaries(16, { searchPath: [bin], libraryDir: directory })).rejects.toMatchObject({
    code: 'MuslImage',
  });
});
