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
import { execFile } from 'node:child_process';
import { chmod, copyFile, cp, mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { build, type Metafile } from 'esbuild';
import { compileKoscheiInit } from './koschei-init/compile.ts';

const repository = fileURLToPath(new URL('..', import.meta.url));
const result = join(repository, 'dist/koschei');
/** Built beside and renamed, so that nobody finds it half made and two builds do not mix. */
const output = `${result}.${process.pid}`;
const programs = ['agent', 'operator'];

/** Packages in the bundles were written for CommonJS: they expect these three names. */
const banner = `import { createRequire as __createRequire } from 'node:module';
const require = __createRequire(import.meta.url);
const __filename = import.meta.filename;
const __dirname = import.meta.dirname;`;

async function bundle(): Promise<Metafile> {
  const { metafile } = await build({
    absWorkingDir: repository,
    entryPoints: Object.fromEntries(programs.map((name) => [`${name}/main`, `src/${name}/main.ts`])),
    outdir: output,
    outExtension: { '.js': '.mjs' },
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    banner: { js: banner },
    // Not minified: the start is no faster, and stack traces stay readable without source maps.
    // The whole Kubernetes client is only there to read a kubeconfig, which a pod does not have.
    external: ['@kubernetes/client-node'],
    legalComments: 'none',
    metafile: true,
    logLevel: 'warning',
  });
  return metafile;
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

/** The Node that `npm ci` installed for this architecture, or else the one that runs this; without its symbols. */
async function copyNode(): Promise<void> {
  const installed = join(repository, `node_modules/node-linux-${process.arch}/bin/node`);
  const found = await stat(installed).then(
    () => installed,
    () => process.execPath,
  );
  await promisify(execFile)('strip', ['-o', join(output, 'node'), found]);
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

await mkdir(output, { recursive: true });
try {
  const metafile = await bundle();
  await copyLicenses(metafile);
  await copyNode();
  await cp(join(repository, 'node_modules/etcd3/proto'), join(output, 'proto'), { recursive: true });
  await compileKoscheiInit(join(output, 'koschei-init'));
  for (const name of ['node', 'koschei-init']) await chmod(join(output, name), 0o755);
  await rm(result, { recursive: true, force: true });
  await rename(output, result);
} finally {
  await rm(output, { recursive: true, force: true });
}
await report(result);
