import type { PostgresPaths } from './paths.ts';
import type { RenderedSettings, SettingsFileName } from './settings.ts';

/**
 * Writes the settings files whose content differs, each durably (temporary file, fsync, rename, fsync of the directory),
 * and removes owned names from `postgresql.auto.conf`, which Postgres reads last. Returns the changed files' names;
 * Postgres must be told with `reload` or a start.
 */
export async function writeSettings(
  _paths: PostgresPaths,
  _rendered: RenderedSettings,
): Promise<(SettingsFileName | 'postgresql.auto.conf')[]> {
  throw new Error('not written yet');
}

/** R10: makes the next start one as standby (true) or as primary (false), durably. */
export async function setStandbySignal(_paths: PostgresPaths, _standby: boolean): Promise<void> {
  throw new Error('not written yet');
}

/** Would the next start be one as standby? */
export async function hasStandbySignal(_paths: PostgresPaths): Promise<boolean> {
  throw new Error('not written yet');
}
