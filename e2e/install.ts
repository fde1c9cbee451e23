import { pathToFileURL } from 'node:url';
import { context, imageName, kubeconfig, kubectl, provideImage } from './cluster/cluster.ts';
import { foreignContext, repository } from './cluster/settings.ts';
import { report, run } from './cluster/shell.ts';
import { koscheiSource } from './image.ts';
import { kubernetes } from './kubernetes.ts';
import { manifestsFor, withImages } from './manifests.ts';

const help = `Usage: npm run node -- e2e/install.ts

Brings up the local Kubernetes, builds Koschei's image, loads it into the nodes, installs Koschei with
deploy/overlays/local and waits until it is ready. Does only what is missing.

Environment
  KOSCHEI_CONTEXT       a context of your own kubeconfig: Koschei is installed there, with the manifests for its
                        version, and no image is built (docs/development.md)
  KOSCHEI_IMAGE         the whole name of Koschei's image there (default <prefix>/koschei:dev)
  KOSCHEI_IMAGE_PREFIX  what stands before the / in the names of all images there; without it, etcd and Postgres
                        come from where the manifests say
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

/** Builds Koschei's image and loads it into the nodes; on the user's own cluster, the name that it is expected under. */
async function koscheiImage(): Promise<string> {
  if (foreignContext !== undefined) return process.env.KOSCHEI_IMAGE || imageName('koschei:dev');
  return provideImage(await koscheiSource());
}

async function apply(image: string): Promise<void> {
  const { apis } = await kubernetes();
  const folder = foreignContext === undefined ? 'deploy/overlays/local' : manifestsFor(apis);
  const rendered = await kubectl(['kustomize', `${repository}/${folder}`]);
  await kubectl(
    ['apply', '-f', '-'],
    withImages(rendered, image, process.env.KOSCHEI_IMAGE_PREFIX || undefined),
  );
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
