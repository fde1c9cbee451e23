import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { buildImage, type ImageSource } from './cluster/images.ts';
import { repository } from './cluster/settings.ts';
import { report, run } from './cluster/shell.ts';
import { installMissing } from './packages.ts';

const help = `Usage: npm run image -- <name> [<base image>]

Builds Koschei's image (operator and agent) with docker under the name given, such as
registry.example/me/koschei:dev. Push it with docker push.

  base image  any small image with glibc and cp, such as docker.io/library/debian:trixie-slim; without one,
              localhost/debian:trixie, which is made from Debian's packages with mmdebstrap (needs root on Debian)
`;

/** Compiles and bundles Koschei's programs into dist/koschei; gcc is installed if it is missing. */
async function buildPrograms(): Promise<void> {
  await installMissing('compiler');
  report("building Koschei's programs ...");
  await run(process.execPath, [`${repository}/images/bundle.ts`]);
}

/** Builds Koschei's programs. Its image has a tag that is a digest of its content, so that a change rolls out. */
export async function koscheiSource(): Promise<ImageSource> {
  await buildPrograms();
  const hash = createHash('sha256');
  for (const folder of ['dist/koschei', 'images/koschei']) {
    for (const [path, content] of filesOf(join(repository, folder))) hash.update(`${path}\0`).update(content);
  }
  return {
    name: `koschei:dev-${hash.digest('hex').slice(0, 12)}`,
    context: `${repository}/images/koschei`,
    files: { programs: `${repository}/dist/koschei` },
  };
}

function* filesOf(folder: string): Generator<[string, Buffer]> {
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    if (lstatSync(path).isDirectory()) yield* filesOf(path);
    else if (!name.endsWith('.map')) yield [path.slice(repository.length), readFileSync(path)];
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const [fullName, base] = process.argv.slice(2);
  if (fullName === undefined || fullName.startsWith('-')) {
    console.log(help);
    process.exitCode = fullName === '--help' || fullName === '-h' ? 0 : 1;
  } else {
    try {
      const source = await koscheiSource();
      await buildImage({ ...source, fullName, ...(base === undefined ? {} : { base }) });
      report(`built ${fullName}: docker push ${fullName}`);
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      process.exitCode = 1;
    }
  }
}
