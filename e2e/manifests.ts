import type { ChosenApis } from '../src/kube/index.ts';

/** The folder of manifests that suits a server (docs/operations.md, "Installing"). */
export function manifestsFor(apis: Pick<ChosenApis, 'hasCelQuantities' | 'serverVersion'>): string {
  if (apis.hasCelQuantities) return 'deploy';
  return `deploy/overlays/kubernetes-${apis.serverVersion.minor >= 25 ? '1.25' : '1.20'}`;
}

/**
 * The manifests with another image of Koschei and, if there is a prefix for all images, with the others below it.
 * @param prefix what stands before the `/` in the names of images; undefined: etcd and Postgres come from where the
 *   manifests say
 */
export function withImages(manifests: string, image: string, prefix: string | undefined): string {
  const named = manifests.replaceAll(/(image: )\S*\/koschei:\S+/g, `$1${image}`);
  if (prefix === undefined) return named;
  return named
    .replaceAll(/(image: )\S*\/etcd:\S+/g, `$1${prefix}/etcd:3.5`)
    .replaceAll(/[^\s"]*\/postgres:\{version\}/g, `${prefix}/postgres:{version}`);
}
