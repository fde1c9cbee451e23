import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { exists, ifThere, removeDurably, writeDurably } from './durable-files.ts';
import type { PostgresPaths } from './paths.ts';
import { type RenderedSettings, type SettingsFileName, withoutSettings } from './settings.ts';

/** Written in this order: a file is there before another includes it. */
const fileNames: readonly SettingsFileName[] = [
  'user.conf',
  'koschei.conf',
  'pg_ident.conf',
  'pg_hba.conf',
  'postgresql.conf',
];

const autoConf = 'postgresql.auto.conf';

/**
 * Writes the settings files whose content differs, each durably (temporary file, fsync, rename, fsync of the directory),
 * and removes owned names from `postgresql.auto.conf`, which Postgres reads last. Returns the changed files' names;
 * Postgres must be told with `reload` or a start.
 */
export async function writeSettings(
  paths: PostgresPaths,
  rendered: RenderedSettings,
): Promise<(SettingsFileName | 'postgresql.auto.conf')[]> {
  const changed: (SettingsFileName | 'postgresql.auto.conf')[] = [];
  const writeIfChanged = async (name: SettingsFileName | typeof autoConf, content: string): Promise<void> => {
    const path = join(paths.pgdata, name);
    if ((await ifThere(readFile(path, 'utf8'))) === content) return;
    await writeDurably(path, content);
    changed.push(name);
  };
  for (const name of fileNames) await writeIfChanged(name, rendered.files[name]);
  const automatic = await ifThere(readFile(join(paths.pgdata, autoConf), 'utf8'));
  if (automatic !== undefined) {
    await writeIfChanged(
      autoConf,
      withoutSettings(automatic, [...Object.keys(rendered.owned), 'synchronized_standby_slots']),
    );
  }
  return changed;
}

/** R10: makes the next start one as standby (true) or as primary (false), durably. */
export async function setStandbySignal(paths: PostgresPaths, standby: boolean): Promise<void> {
  const file = standbySignal(paths);
  if (!standby) await removeDurably(file);
  else if (!(await exists(file))) await writeDurably(file, '');
}

/** Would the next start be one as standby? */
export function hasStandbySignal(paths: PostgresPaths): Promise<boolean> {
  return exists(standbySignal(paths));
}

function standbySignal(paths: PostgresPaths): string {
  return join(paths.pgdata, 'standby.signal');
}
