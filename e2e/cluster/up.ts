import { Resolver } from 'node:dns/promises';
import { copyFileSync, mkdirSync } from 'node:fs';
import { dirname } from 'node:path';
import { apiServerAnswers, kubectl, nodeNames, waitForNode } from './cluster.ts';
import { ensureContainers, nodeImage } from './containers.ts';
import { provideStandIns } from './images.ts';
import { kubernetesPrograms } from './kubernetes.ts';
import { alone, installPrograms, prepareKernel, provideKubectl, startDocker } from './machine.ts';
import { adminKubeconfig } from './pki.ts';
import { foreignContext, imagePrefix, localContext, localKubeconfig, nodes, repository } from './settings.ts';
import { report, run, waitUntil } from './shell.ts';

const help = `Usage: npm run cluster:up

Brings up a Kubernetes of three nodes in containers on this machine, or takes over the one that is up.
Needs root on Debian; installs docker.io and mmdebstrap if they are missing. The first time it builds Kubernetes
from source, which takes about 5 minutes; later it takes seconds. Interrupted, it goes on when run again.

Then: export KUBECONFIG=${localKubeconfig}

Environment
  KOSCHEI_CACHE           what is kept between clones of the repository (default /var/cache/koschei)
  KOSCHEI_NODE_SUBNET     /24 subnet of the nodes (default 10.240.77.0/24)
  KOSCHEI_POD_SUBNET      /16 subnet of the pods (default 10.244.0.0/16)
  KOSCHEI_SERVICE_SUBNET  /16 subnet of the Services (default 10.96.0.0/16)
  KOSCHEI_CONTEXT         a context of your own kubeconfig: only checks that it answers. You then build the images,
                          push them to a registry that the cluster can pull from, and name it with
  KOSCHEI_IMAGE_PREFIX    what stands before the / in the names of images (default localhost)
`;

if (process.argv.includes('--help') || process.argv.includes('-h')) console.log(help);
else if (foreignContext !== undefined) await checkForeign(foreignContext);
else await alone(up);

async function checkForeign(context: string): Promise<void> {
  if (!(await apiServerAnswers())) {
    console.error(
      `The cluster of the context ${context} does not answer. Try: kubectl --context ${context} get nodes`,
    );
    process.exitCode = 1;
    return;
  }
  report(`KOSCHEI_CONTEXT is set: the cluster of ${context} answers, and is left as it is.`);
  report('Not done: no node is started, no image built or loaded, no StorageClass made.');
  report(`Images are expected at ${imagePrefix}/..., as KOSCHEI_IMAGE_PREFIX says.`);
}

async function up(): Promise<void> {
  await installPrograms();
  await startDocker();
  await prepareKernel();
  const programs = await kubernetesPrograms();
  await provideKubectl(`${programs}/kubectl`);
  const image = await nodeImage(programs);
  await ensureContainers(image);
  mkdirSync(dirname(localKubeconfig), { recursive: true });
  copyFileSync(adminKubeconfig, localKubeconfig);

  // The images are loaded while Kubernetes starts.
  await Promise.all([whenReady(), whenContainerd().then(provideStandIns)]);
  report(`ready: export KUBECONFIG=${localKubeconfig} (context ${localContext})`);
}

async function whenReady(): Promise<void> {
  await waitUntil('the API server to be ready', 90_000, apiServerAnswers);
  report('the API server is ready');
  await waitUntil('the API server to take the manifests', 30_000, () =>
    kubectl(['apply', '-f', `${repository}/e2e/cluster/node/manifests.yaml`]).then(
      () => true,
      () => false,
    ),
  );
  await Promise.all(nodeNames.map((node) => waitForNode(node, true, 90_000)));
  report(`the nodes ${nodeNames.join(', ')} are ready`);
  await waitUntil('the default ServiceAccount', 30_000, () =>
    kubectl(['get', 'serviceaccount', 'default']).then(
      () => true,
      () => false,
    ),
  );
  await Promise.all(
    nodes.map(({ name, ip }) => {
      const resolver = new Resolver({ timeout: 500, tries: 1 });
      resolver.setServers([ip]);
      return waitUntil(`the DNS of ${name}`, 30_000, () =>
        resolver.resolve4('kubernetes.default.svc.cluster.local').then(
          () => true,
          () => false,
        ),
      );
    }),
  );
  report('DNS answers on every node');
}

async function whenContainerd(): Promise<void> {
  await Promise.all(
    nodes.map(({ name }) =>
      waitUntil(`containerd on ${name}`, 60_000, () =>
        run('docker', ['exec', name, 'ctr', 'version']).then(
          () => true,
          () => false,
        ),
      ),
    ),
  );
}
