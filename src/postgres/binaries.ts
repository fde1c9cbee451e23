import { access, constants, readdir } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { PostgresError } from './errors.ts';
import type { PostgresPaths } from './paths.ts';
import { runProgram } from './program.ts';

/** The programs of one Postgres installation, of one checked major version. */
export interface PostgresBinaries {
  readonly directory: string;
  /** Major version, for example 17. */
  readonly major: number;
  /** As it says itself, for example `17.5 (Debian 17.5-1)`. */
  readonly version: string;
}

/** A Postgres that can be worked on: where its files are and which programs it has. */
export interface PostgresInstallation {
  readonly paths: PostgresPaths;
  readonly binaries: PostgresBinaries;
}

/** Path of one program of the installation. */
export function programPath(binaries: PostgresBinaries, name: string): string {
  return join(binaries.directory, name);
}

/**
 * Finds the Postgres programs of a major version: `/usr/lib/postgresql/<major>/bin` first (Debian), then PATH.
 * Throws PostgresError `MuslImage` when the image's C library is musl (its collations differ and the agent's Node does
 * not run there), `NoPostgresInImage` when there is no Postgres, `WrongPostgresVersion` when it is of another version.
 */
export async function findBinaries(
  major: number,
  options: { searchPath?: readonly string[]; libraryDir?: string } = {},
): Promise<PostgresBinaries> {
  const libraries = await readdir(options.libraryDir ?? '/lib').catch(() => []);
  const musl = libraries.find((name) => name.startsWith('ld-musl-'));
  if (musl !== undefined) {
    throw new PostgresError('MuslImage', {
      expected: 'a Postgres image with glibc (Debian-based)',
      found: `musl (${musl})`,
      advice: 'use the Debian variant of the image, for example postgres:17 instead of postgres:17-alpine',
    });
  }
  const searchPath = options.searchPath ?? [
    `/usr/lib/postgresql/${major}/bin`,
    ...(process.env.PATH ?? '').split(delimiter).filter((directory) => directory !== ''),
  ];
  const directory = await firstWithPostgres(searchPath);
  if (directory === undefined) {
    throw new PostgresError('NoPostgresInImage', {
      expected: `postgres, initdb and pg_rewind of Postgres ${major}`,
      found: `none in ${searchPath.join(', ')}`,
      advice: 'set spec.postgres.image to an image that holds this Postgres version',
    });
  }
  const { stdout } = await runProgram(join(directory, 'postgres'), ['--version'], { timeoutMs: 10_000 });
  const version = /^postgres \(PostgreSQL\) (.+)$/m.exec(stdout)?.[1];
  if (version === undefined || Number.parseInt(version, 10) !== major) {
    throw new PostgresError('WrongPostgresVersion', {
      expected: `Postgres ${major} in ${directory}`,
      found: version ?? JSON.stringify(stdout.slice(0, 200)),
      advice: 'make spec.postgres.version and spec.postgres.image agree',
    });
  }
  return { directory, major, version };
}

async function firstWithPostgres(searchPath: readonly string[]): Promise<string | undefined> {
  const needed = ['postgres', 'initdb', 'pg_controldata', 'pg_basebackup', 'pg_rewind'];
  for (const directory of searchPath) {
    try {
      await Promise.all(needed.map((name) => access(join(directory, name), constants.X_OK)));
      return directory;
    } catch {
      // Not here, or not complete: try the next directory.
    }
  }
  return undefined;
}
