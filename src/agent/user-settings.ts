import { readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import {
  lastLines,
  type PostgresInstallation,
  type PostgresPaths,
  programPath,
  runProgram,
} from '../postgres/index.ts';

const schema = z.object({ parameters: z.record(z.string(), z.string()), hba: z.array(z.string()) });

/** The user's settings that Postgres accepted last; none before the first start. */
export async function readAcceptedSettings(paths: PostgresPaths): Promise<z.infer<typeof schema>> {
  try {
    return schema.parse(JSON.parse(await readFile(file(paths), 'utf8')));
  } catch {
    return { parameters: {}, hba: [] };
  }
}

/** Remembers them. Not fsynced: after a crash an older set does as well. */
export async function writeAcceptedSettings(
  paths: PostgresPaths,
  settings: { readonly parameters: Readonly<Record<string, string>>; readonly hba: readonly string[] },
): Promise<void> {
  const { parameters, hba } = settings;
  await writeFile(`${file(paths)}.new`, JSON.stringify({ parameters, hba }));
  await rename(`${file(paths)}.new`, file(paths));
}

/** Why a Postgres that is not running would refuse its settings files, or undefined (`postgres -C` reads and checks them). */
export async function refusedByProgram(
  { paths, binaries }: PostgresInstallation,
  signal: AbortSignal,
): Promise<string | undefined> {
  const result = await runProgram(
    programPath(binaries, 'postgres'),
    ['-D', paths.pgdata, '-C', 'wal_segment_size'],
    { timeoutMs: 10_000, signal },
  );
  return result.code === 0 ? undefined : lastLines(result.stderr);
}

function file(paths: PostgresPaths): string {
  return join(paths.agentDir, 'user-settings.json');
}
