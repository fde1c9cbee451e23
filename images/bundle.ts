/**
 * `npm run build`: puts everything that the image `koschei` holds into dist/koschei:
 *
 *   node                     the Node binary of this machine's architecture
 *   agent/main.mjs           the agent
 *   operator/main.mjs        the operator
 *   proto/                   what etcd3 reads at its start, from `../proto` beside the bundle
 *   koschei-init             process 1 of Postgres pods, static
 *   licenses/                of what is in the bundles
 *
 * `dist/koschei` and `images/koschei/Dockerfile` make the image.
 */
import { existsSync } from 'node:fs';
import { chmod, copyFile, cp, mkdir, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build, type Metafile } from 'esbuild';
import { compileKoscheiInit } from './koschei-init/compile.ts';

const repository = fileURLToPath(new URL('..', import.meta.url));
const output = join(repository, 'dist/koschei');
const programs = ['agent', 'operator'].filter((name) => existsSync(join(repository, `src/${name}/main.ts`)));

/** Packages in the bundles were written for CommonJS: they expect these three names. */
const banner = `import { createRequire as __createRequire } from 'node:module';
const require = __createRequire(import.meta.url);
const __filename = import.meta.filename;
const __dirname = import.meta.dirname;`;

async function bundle(): Promise<Metafile> {
  const result = await build({
    absWorkingDir: repository,
    entryPoints: Object.fromEntries(programs.map((name) => [`${name}/main`, `src/${name}/main.ts`])),
    outdir: output,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    banner: { js: banner },
    // Half the size and a faster start; names stay, for stack traces.
    minifyWhitespace: true,
    minifySyntax: true,
    sourcemap: 'linked',
    sourcesContent: false,
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
  });
  return result.metafile;
}

/** The licences of all packages that are in the bundles. */
async function copyLicenses({ inputs }: Metafile): Promise<void> {
  const packages = new Set(
    Object.keys(inputs).flatMap((file) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(file)?.[1] ?? []),
  );
  await mkdir(join(output, 'licenses'));
  for (const folder of packages) {
    const name = (await readdir(folder)).find((file) => /^(licen[sc]e|copying)/i.test(file));
    const to = join(output, 'licenses', folder.replace(/^.*node_modules\//, '').replace('/', '+'));
    if (name !== undefined) await copyFile(join(folder, name), to);
    else {
      const { license }: { license?: string } = JSON.parse(
        await readFile(join(folder, 'package.json'), 'utf8'),
      );
      await writeFile(to, `${license ?? 'unknown'}\n`);
    }
  }
}

/** The Node that `npm ci` installed for this architecture, or else the one that runs this. */
async function copyNode(): Promise<void> {
  const installed = join(repository, `node_modules/node-linux-${process.arch}/bin/node`);
  const found = await stat(installed).then(
    () => installed,
    () => process.execPath,
  );
  await copyFile(found, join(output, 'node'));
  const license = join(dirname(found), '../LICENSE');
  await copyFile(license, join(output, 'licenses/node')).catch(() => {});
}

async function report(folder: string): Promise<void> {
  for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (!entry.isFile() || path.includes('/licenses/')) continue;
    const { size } = await stat(path);
    console.log(`${(size / 2 ** 20).toFixed(2).padStart(8)} MiB  ${relative(repository, path)}`);
  }
}

await rm(output, { recursive: true, force: true });
await mkdir(output, { recursive: true });
const metafile = await bundle();
await copyLicenses(metafile);
await copyNode();
await cp(join(repository, 'node_modules/etcd3/proto'), join(output, 'proto'), { recursive: true });
await compileKoscheiInit(join(output, 'koschei-init'));
for (const name of ['node', 'koschei-init']) await chmod(join(output, name), 0o755);
await report(output);
