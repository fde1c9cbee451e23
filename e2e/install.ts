import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import type { ChosenApis } from '../src/kube/index.ts';
import { context, imageName, kubeconfig, kubectl, provideImage } from './cluster/cluster.ts';
import { foreignContext, repository } from './cluster/settings.ts';
import { report, run } from './cluster/shell.ts';
import { kubernetes } from './kubernetes.ts';
import { installMissing } from './packages.ts';

const help = `Usage: npm run node -- e2e/install.ts

Brings up the local Kubernetes, builds Koschei's image, loads it into the nodes, installs Koschei with
deploy/overlays/local and waits until it is ready. Does only what is missing.

Environment
  KOSCHEI_CONTEXT       a context of your own kubeconfig: Koschei is installed there, and no image is built
  KOSCHEI_IMAGE_PREFIX  what stands before the / in the names of images there (default localhost)
  KOSCHEI_IMAGE         the whole name of Koschei's image there (default <prefix>/koschei:dev)
`;

/** Where Koschei itself lives. */
export const systemNamespace = 'koschei-system';

/**
 * Brings up the cluster (unless it is the user's own) and installs Koschei; does only what is missing.
 * @throws {Error} with the last lines of the command that failed.
 */
export async function install(): Promise<void> {
  await bringUp();
  const image = await koscheiImage();
  report('installing Koschei ...');
  await apply(image);
  await waitUntilInstalled();
  report(`Koschei is installed (${image})`);
}

/** `npm run cluster:up`. */
export async function bringUp(): Promise<void> {
  await run(process.execPath, [`${repository}/e2e/cluster/up.ts`], { onLine: (line) => console.log(line) });
}

/** Builds Koschei's image and loads it into the nodes. Its tag is a digest of its content, so that a change rolls out. */
async function koscheiImage(): Promise<string> {
  if (foreignContext !== undefined) return process.env.KOSCHEI_IMAGE ?? imageName('koschei:dev');
  await installMissing('compiler');
  report("building Koschei's programs ...");
  await run(process.execPath, [`${repository}/images/bundle.ts`]);
  const hash = createHash('sha256');
  for (const folder of ['dist/koschei', 'images/koschei']) {
    for (const [path, content] of filesOf(join(repository, folder))) hash.update(`${path}\0`).update(content);
  }
  return provideImage({
    name: `koschei:dev-${hash.digest('hex').slice(0, 12)}`,
    context: `${repository}/images/koschei`,
    files: { programs: `${repository}/dist/koschei` },
  });
}

function* filesOf(folder: string): Generator<[string, Buffer]> {
  for (const name of readdirSync(folder).sort()) {
    const path = join(folder, name);
    if (lstatSync(path).isDirectory()) yield* filesOf(path);
    else if (!name.endsWith('.map')) yield [path.slice(repository.length), readFileSync(path)];
  }
}

async function apply(image: string): Promise<void> {
  const { apis } = await kubernetes();
  const folder = foreignContext === undefined ? 'deploy/overlays/local' : manifestsFor(apis);
  const rendered = await kubectl(['kustomize', `${repository}/${folder}`]);
  await kubectl(['apply', '-f', '-'], withImages(rendered, image));
}

/** The folder of manifests that suits a server (docs/operations.md). */
function manifestsFor(apis: ChosenApis): string {
  if (apis.hasCelQuantities) return 'deploy';
  return `deploy/overlays/${apis.serverVersion.minor >= 25 ? 'kubernetes-1.25' : 'local'}`;
}

/** The manifests with Koschei's image and, if there is a prefix for all images, with the others below it. */
function withImages(manifests: string, image: string): string {
  const named = manifests.replaceAll(/(image: )\S*\/koschei:\S+/g, `$1${image}`);
  if (process.env.KOSCHEI_IMAGE_PREFIX === undefined) return named;
  return named
    .replaceAll(/(image: )\S*\/etcd:\S+/g, `$1${imageName('etcd:3.5')}`)
    .replaceAll(/[^\s"]*\/postgres:\{version\}/g, imageName('postgres:{version}'));
}

async function waitUntilInstalled(): Promise<void> {
  for (const workload of ['statefulset/koschei-etcd', 'deployment/koschei-operator']) {
    await kubectl(['-n', systemNamespace, 'rollout', 'status', workload, '--timeout=180s']);
  }
  await kubectl(['wait', '--for=condition=Established', 'crd/pgclusters.koschei.dev', '--timeout=30s']);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  if (process.argv.includes('--help') || process.argv.includes('-h')) console.log(help);
  else {
    try {
      await install();
      report(`ready: kubectl --kubeconfig ${kubeconfig} --context ${context} get koschei`);
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      process.exitCode = 1;
    }
  }
}
