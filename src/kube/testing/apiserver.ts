import { type ChildProcess, spawn } from 'node:child_process';
import { generateKeyPairSync, randomBytes } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { access, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { parseAllDocuments } from 'yaml';
import { KubeClient, type KubeClientOptions } from '../client.ts';
import type { Credentials } from '../credentials.ts';
import { resources } from '../resources.ts';
import type { KubeObject } from '../types.ts';
import { eventually } from './eventually.ts';
import { freePorts } from './free-ports.ts';

export interface ApiServerOptions {
  /** Files or folders with CRDs to install, YAML. Default: the repository's `crds/`. */
  readonly crds?: readonly string[];
  /** Further flags of kube-apiserver. */
  readonly flags?: readonly string[];
}

/** A real kube-apiserver with its etcd on loopback: no controllers, no scheduler, no kubelets. RBAC is on. */
export interface ApiServer {
  readonly url: string;
  /** Of etcd, plain HTTP. */
  readonly etcdUrl: string;
  readonly ca: string;
  /** The token of a member of system:masters. */
  readonly adminToken: string;
  /** A new client of system:masters. Close it. */
  client(options?: Partial<KubeClientOptions>): KubeClient;
  /** A new client with this token. `restrictedToken` belongs to user `restricted`, who may do nothing. */
  clientWithToken(token: string, options?: Partial<KubeClientOptions>): KubeClient;
  readonly restrictedToken: string;
  /** A kubeconfig file of system:masters. */
  readonly kubeconfig: string;
  /** Installs the CRDs in these files or folders and waits until they are served. */
  install(crds: readonly string[]): Promise<void>;
  /** Sends the API server a signal: SIGSTOP makes it hang, SIGCONT wakes it. */
  signal(name: NodeJS.Signals): void;
  /** Kills the API server; etcd and the data stay. */
  kill(): Promise<void>;
  /** Starts it again on the same port after `kill`, and waits until it is ready. */
  restart(): Promise<void>;
  /** Ends both processes and removes their data. */
  stop(): Promise<void>;
}

const repository = join(import.meta.dirname, '../../..');

/**
 * Starts both and waits until the API server is ready: about 5 s. Needs `etcd` on PATH (Debian: etcd-server) and
 * kube-apiserver: KOSCHEI_KUBE_APISERVER, or as the local cluster built it below KOSCHEI_CACHE, or on PATH.
 */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const program = await findApiServer();
  const folder = await mkdtemp(join(tmpdir(), 'koschei-apiserver-'));
  const [etcdPort, peerPort, port] = await freePorts(3);
  const etcdUrl = `http://127.0.0.1:${etcdPort}`;
  const url = `https://127.0.0.1:${port}`;
  const adminToken = randomBytes(16).toString('hex');
  const restrictedToken = randomBytes(16).toString('hex');
  await writeFile(
    join(folder, 'tokens.csv'),
    `${adminToken},admin,admin,system:masters\n${restrictedToken},restricted,restricted\n`,
    { mode: 0o600 },
  );
  const { privateKey, publicKey } = generateKeyPairSync('rsa', {
    modulusLength: 2048,
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
    publicKeyEncoding: { type: 'spki', format: 'pem' },
  });
  await writeFile(join(folder, 'sa.key'), privateKey, { mode: 0o600 });
  await writeFile(join(folder, 'sa.pub'), publicKey);
  await mkdir(join(folder, 'certs'));

  const etcd = await run(folder, 'etcd', [
    '--name=test',
    `--data-dir=${join(folder, 'etcd')}`,
    `--listen-client-urls=${etcdUrl}`,
    `--advertise-client-urls=${etcdUrl}`,
    `--listen-peer-urls=http://127.0.0.1:${peerPort}`,
    `--initial-advertise-peer-urls=http://127.0.0.1:${peerPort}`,
    `--initial-cluster=test=http://127.0.0.1:${peerPort}`,
    '--unsafe-no-fsync',
  ]);
  const startServer = () =>
    run(folder, program, [
      `--etcd-servers=${etcdUrl}`,
      `--secure-port=${port}`,
      '--bind-address=127.0.0.1',
      // It makes its own certificate there.
      `--cert-dir=${join(folder, 'certs')}`,
      `--token-auth-file=${join(folder, 'tokens.csv')}`,
      '--service-account-issuer=https://kubernetes.default.svc',
      `--service-account-key-file=${join(folder, 'sa.pub')}`,
      `--service-account-signing-key-file=${join(folder, 'sa.key')}`,
      '--authorization-mode=RBAC',
      '--service-cluster-ip-range=10.96.0.0/16',
      // Its own address is on loopback, which Endpoints refuse.
      '--endpoint-reconciler-type=none',
      // Nobody makes the default service accounts that it would ask for.
      '--disable-admission-plugins=ServiceAccount',
      '--allow-privileged=true',
      ...(options.flags ?? []),
    ]);
  let server = await startServer();
  const caFile = join(folder, 'certs/apiserver.crt');
  let ca = '';

  const clientWithToken = (token: string, more: Partial<KubeClientOptions> = {}): KubeClient => {
    const connection = { server: url, tls: { ca }, headers: { authorization: `Bearer ${token}` } };
    const credentials: Credentials = { namespace: 'default', connection: async () => connection };
    return new KubeClient({ credentials, fieldManager: 'koschei-test', ...more });
  };
  const ready = async (): Promise<void> => {
    await eventually('kube-apiserver has written its certificate', () => exists(caFile), 30_000);
    ca = await readFile(caFile, 'utf8');
    const client = clientWithToken(adminToken, { timeoutMs: 2_000 });
    try {
      await eventually(
        'kube-apiserver is ready',
        async () => {
          if (server.exitCode !== null) return false;
          await client.raw('/apis/coordination.k8s.io/v1/leases');
          return (await client.find(resources.namespaces, { name: 'default' })) !== undefined;
        },
        60_000,
      );
    } finally {
      await client.close();
    }
  };
  const install = async (paths: readonly string[]): Promise<void> => {
    const client = clientWithToken(adminToken);
    try {
      for (const crd of await readCrds(paths)) {
        const { name } = crd.metadata;
        await createOrReplace(client, crd);
        await eventually(`the CRD ${name} is served`, async () => {
          const found = await client.get(resources.customResourceDefinitions, { name });
          return isEstablished(found) && (await isServed(client, crd));
        });
      }
    } finally {
      await client.close();
    }
  };
  const stop = async (): Promise<void> => {
    await Promise.all([end(server), end(etcd)]);
    await rm(folder, { recursive: true, force: true });
  };
  const kubeconfig = join(folder, 'kubeconfig');
  try {
    await ready();
    await writeFile(kubeconfig, kubeconfigText(url, ca, adminToken), { mode: 0o600 });
    await install(options.crds ?? [join(repository, 'crds')]);
  } catch (cause) {
    const log = await readFile(join(folder, 'kube-apiserver.log'), 'utf8').catch(() => '');
    await stop();
    throw new Error(`kube-apiserver did not start: ${log.slice(-2_000)}`, { cause });
  }
  return {
    ...{ url, etcdUrl, ca, adminToken, restrictedToken, kubeconfig },
    client: (more) => clientWithToken(adminToken, more),
    ...{ clientWithToken, install, stop },
    signal: (name) => void server.kill(name),
    kill: () => end(server),
    restart: async () => {
      server = await startServer();
      await ready();
    },
  };
}

async function findApiServer(): Promise<string> {
  const cache = process.env.KOSCHEI_CACHE ?? '/var/cache/koschei';
  const built = (await readdir(cache).catch(() => [])).filter((name) => name.startsWith('kubernetes-'));
  const candidates = [
    process.env.KOSCHEI_KUBE_APISERVER ?? '',
    ...built.map((name) => join(cache, name, 'kube-apiserver')),
    ...(process.env.PATH ?? '').split(delimiter).map((dir) => join(dir, 'kube-apiserver')),
  ];
  for (const candidate of candidates) if (candidate !== '' && (await exists(candidate))) return candidate;
  throw new Error(
    `no kube-apiserver below ${cache} nor on PATH: run 'npm run cluster:up' once, which builds it, or name one in KOSCHEI_KUBE_APISERVER`,
  );
}

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Starts a program that the kernel ends when this process ends in whatever way; its output goes to a file. */
async function run(folder: string, program: string, args: readonly string[]): Promise<ChildProcess> {
  const name = program.split('/').pop() ?? program;
  const child = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
    cwd: folder,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const log = createWriteStream(join(folder, `${name}.log`), { flags: 'a' });
  child.stdout?.pipe(log, { end: false });
  child.stderr?.pipe(log, { end: false });
  child.once('close', () => log.end());
  await new Promise((resolve, reject) => {
    child.once('spawn', resolve);
    child.once('error', reject);
  });
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('close', resolve));
  child.kill('SIGKILL');
  await gone;
}

async function readCrds(paths: readonly string[]): Promise<KubeObject[]> {
  const crds: KubeObject[] = [];
  for (const path of paths) {
    const entries = await readdir(path).catch(() => undefined);
    const files = entries === undefined ? [path] : entries.sort().map((entry) => join(path, entry));
    for (const file of files.filter((name) => /\.ya?ml$/.test(name))) {
      for (const document of parseAllDocuments(await readFile(file, 'utf8'))) {
        const object = document.toJS() as KubeObject | null;
        if (object?.kind === 'CustomResourceDefinition') crds.push(object);
      }
    }
  }
  return crds;
}

/** Not server-side apply: old servers refuse there what they do not know, such as CEL rules, instead of dropping it. */
async function createOrReplace(client: KubeClient, crd: KubeObject): Promise<void> {
  const found = await client.find(resources.customResourceDefinitions, crd.metadata);
  const { resourceVersion } = found?.metadata ?? {};
  if (resourceVersion === undefined) await client.create(resources.customResourceDefinitions, crd);
  else {
    const metadata = { ...crd.metadata, resourceVersion };
    await client.update(resources.customResourceDefinitions, { ...crd, metadata });
  }
}

const isEstablished = (crd: KubeObject): boolean =>
  (crd as CustomResourceDefinition).status?.conditions?.some(
    ({ type, status }) => type === 'Established' && status === 'True',
  ) ?? false;

/** "Established" comes a moment before the first request is answered. */
async function isServed(client: KubeClient, crd: KubeObject): Promise<boolean> {
  const { group, names, versions } = (crd as CustomResourceDefinition).spec;
  for (const { name, served } of versions) {
    if (served) await client.raw(`/apis/${group}/${name}/${names.plural}?limit=1`);
  }
  return true;
}

interface CustomResourceDefinition extends KubeObject {
  spec: { group: string; names: { plural: string }; versions: { name: string; served: boolean }[] };
  status?: { conditions?: { type: string; status: string }[] };
}

const kubeconfigText = (url: string, ca: string, token: string): string =>
  JSON.stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: 'test',
        cluster: { server: url, 'certificate-authority-data': Buffer.from(ca).toString('base64') },
      },
    ],
    users: [{ name: 'admin', user: { token } }],
    contexts: [{ name: 'test', context: { cluster: 'test', user: 'admin' } }],
    'current-context': 'test',
  });
