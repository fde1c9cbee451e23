import { createHash } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { totalmem } from 'node:os';
import { join } from 'node:path';
import { build } from 'esbuild';
import { buildImage, imageId } from './images.ts';
import { makePki, pkiFingerprint, pkiIsComplete } from './pki.ts';
import {
  apiServer,
  archives,
  cache,
  controlPlane,
  foreignContext,
  type Member,
  network,
  nodes,
  pkiFolder,
  repository,
} from './settings.ts';
import { CommandError, docker, report, run, succeeds } from './shell.ts';

/** Memory that a node offers to pods; otherwise each of them would offer all memory of the machine. */
const offeredMebibytes = 7 * 1024;
/** What the kubelet keeps free (`evictionHard` in entrypoint.sh). */
const evictionMebibytes = 200;

/** Folders of a container that outlive it: name of the volume -> path. */
const volumesOf = (member: Member): Readonly<Record<string, string>> =>
  member === controlPlane
    ? { [`${member.name}-etcd`]: '/var/lib/etcd' }
    : {
        [`${member.name}-containerd`]: '/var/lib/containerd',
        [`${member.name}-kubelet`]: '/var/lib/kubelet',
        [`${member.name}-volumes`]: volumeRoot,
      };

/** Where the data of PersistentVolumes is, on its node. */
const volumeRoot = '/var/lib/koschei-volumes';

/** All that `--privileged` gives, but for CAP_SYS_RESOURCE: where the machine lacks it, `--privileged` fails. */
const privileges = [
  ...['--cap-add=ALL', '--cap-drop=SYS_RESOURCE', '--cgroupns=private', '--device=/dev/kmsg'],
  ...['seccomp=unconfined', 'apparmor=unconfined', 'systempaths=unconfined'].map(
    (each) => `--security-opt=${each}`,
  ),
  '--device-cgroup-rule=a *:* rwm',
  '--pids-limit=10000',
];

/** Builds the image of all nodes and of the control plane. */
export async function nodeImage(kubernetes: string): Promise<string> {
  const folder = `${repository}/e2e/cluster/node`;
  const staging = mkdtempSync(`${cache}/node-image-`);
  try {
    for (const file of ['Dockerfile', 'entrypoint.sh']) copyFileSync(join(folder, file), join(staging, file));
    await build({
      entryPoints: [join(folder, 'services/main.ts')],
      outfile: join(staging, 'node-services.mjs'),
      bundle: true,
      platform: 'node',
      format: 'esm',
      target: 'node24',
      logLevel: 'warning',
      // Without it the bundle, and with it the image, would depend on where the repository is.
      minify: true,
      // dns-packet is CommonJS and calls `require`.
      banner: {
        js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
      },
    });
    const programs = readdirSync(kubernetes).filter((name) => name.startsWith('kube') && name !== 'kubectl');
    return await buildImage({
      name: 'koschei-node:local',
      context: staging,
      files: {
        ...Object.fromEntries(programs.map((name) => [`kubernetes/${name}`, join(kubernetes, name)])),
        'pause.tar': join(kubernetes, 'pause.tar'),
        node: process.execPath,
      },
    });
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/**
 * Makes what runs equal to what is configured. Containers that are as they should be are left alone, stopped ones
 * are started, others are made again with their volumes kept. Without the keys of a present cluster, or with other
 * addresses than it has, everything is made anew.
 */
export async function ensureContainers(image: string): Promise<void> {
  if (!pkiIsComplete()) {
    if (await removeCluster())
      report('removed the cluster that was there: its keys are gone or its addresses differ');
    await makePki();
  }
  if (!(await succeeds('docker', ['network', 'inspect', network.name]))) {
    const { subnet, gateway, bridge, name } = network;
    const options = [
      '--subnet',
      subnet,
      '--gateway',
      gateway,
      '-o',
      `com.docker.network.bridge.name=${bridge}`,
    ];
    await docker(['network', 'create', ...options, name]).catch((error: unknown) => {
      if (error instanceof CommandError && /overlaps/.test(error.output)) {
        throw new Error(
          `Docker has another network that overlaps with ${subnet}. ` +
            'Set KOSCHEI_NODE_SUBNET to a /24 subnet that is free, such as 10.240.78.0/24.',
        );
      }
      throw error;
    });
  }
  mkdirSync(archives.here, { recursive: true });
  const id = (await imageId(image)) ?? image;
  const common = { IMAGE: id, KEYS: pkiFingerprint(), POD_SUBNET_OF_ALL: network.pods };
  await Promise.all([
    ensureContainer(controlPlane, image, {
      ...common,
      ROLE: 'control-plane',
      SERVICE_SUBNET: network.services,
    }),
    ...nodes.map((node) =>
      ensureContainer(node, image, {
        ...common,
        ROLE: 'node',
        POD_SUBNET: node.podSubnet,
        ZONE: node.zone,
        API_SERVER: apiServer,
        VOLUME_ROOT: volumeRoot,
        RESERVED_MEMORY: `${Math.max(0, Math.floor(totalmem() / 2 ** 20) - offeredMebibytes - evictionMebibytes)}Mi`,
      }),
    ),
  ]);
  await setHostRoutes();
}

async function ensureContainer(
  member: Member,
  image: string,
  settings: Readonly<Record<string, string>>,
): Promise<void> {
  const routes = nodes
    .filter((node) => node.name !== member.name)
    .map((node) => `route replace ${node.podSubnet} via ${node.ip}`);
  const environment = { ...settings, NAME: member.name, IP: member.ip, ROUTES: routes.join('\n') };
  const options = [
    ...[
      '--init',
      '--name',
      member.name,
      '--hostname',
      member.name,
      '--network',
      network.name,
      '--ip',
      member.ip,
    ],
    ...privileges,
    ...['--tmpfs', '/run:exec', '--tmpfs', '/tmp:exec'],
    ...Object.entries(volumesOf(member)).flatMap(([volume, path]) => ['-v', `${volume}:${path}`]),
    ...['-v', `${join(pkiFolder, member.name)}:/etc/koschei:ro`],
    ...['-v', `${archives.here}:${archives.there}:ro`],
    ...Object.entries(environment).flatMap(([key, value]) => ['-e', `${key}=${value}`]),
  ];
  const wanted = createHash('sha256').update(JSON.stringify(options)).digest('hex');

  const found = await stateOf(member.name);
  if (found?.configuration === wanted) {
    if (found.status === 'running') return;
    if (found.status === 'paused') await docker(['unpause', member.name]);
    if (found.status === 'exited') await docker(['start', member.name]);
    if (found.status === 'paused' || found.status === 'exited')
      return report(`${member.name}: started again`);
  }
  if (found !== undefined) await docker(['rm', '-f', member.name]);
  await docker(['run', '-d', '--label', `koschei.configuration=${wanted}`, ...options, image]);
  report(`${member.name}: ${found === undefined ? 'created' : 'made again, with its volumes'}`);
}

/** Status as docker names it, and the label with the configuration; undefined if there is no such container. */
async function stateOf(
  container: string,
): Promise<{ readonly status: string; readonly configuration: string } | undefined> {
  const format = '{{.State.Status}} {{index .Config.Labels "koschei.configuration"}}';
  try {
    const [status = '', configuration = ''] = (
      await docker(['container', 'inspect', '--format', format, container])
    ).split(' ');
    return { status, configuration };
  } catch (error) {
    if (error instanceof CommandError && /no such container/i.test(error.output)) return undefined;
    throw error;
  }
}

/**
 * This machine reaches pods through their nodes, and Services through the control plane, whose kube-proxy knows them
 * all and which tests do not kill as they kill nodes.
 */
export async function setHostRoutes(): Promise<void> {
  for (const { podSubnet, ip } of nodes) await run('ip', ['route', 'replace', podSubnet, 'via', ip]);
  await run('ip', ['route', 'replace', network.services, 'via', controlPlane.ip]);
}

/**
 * Removes the containers, volumes, network and keys of the cluster. Images and Kubernetes' programs stay.
 * @returns whether there was any container.
 */
export async function removeCluster(): Promise<boolean> {
  const members = [controlPlane, ...nodes];
  const present = await Promise.all(members.map(async ({ name }) => (await stateOf(name)) !== undefined));
  await Promise.all(
    members.map(async (member, index) => {
      if (present[index] === true) await docker(['rm', '-f', '-v', member.name]);
      for (const volume of Object.keys(volumesOf(member))) await docker(['volume', 'rm', '-f', volume]);
    }),
  );
  if (await succeeds('docker', ['network', 'inspect', network.name]))
    await docker(['network', 'rm', network.name]);
  rmSync(pkiFolder, { recursive: true, force: true });
  return present.includes(true);
}

/** @throws {Error} if KOSCHEI_CONTEXT is set: its nodes are not containers of this machine. */
export function onlyLocal(what: string): void {
  if (foreignContext !== undefined) {
    throw new Error(
      `${what} is possible with the local cluster only, and KOSCHEI_CONTEXT is ${foreignContext}.`,
    );
  }
}
