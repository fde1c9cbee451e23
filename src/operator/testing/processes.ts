import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Secret } from '../../kube/index.ts';
import { freePort } from '../../kube/testing/free-ports.ts';

/** A process of a test; the kernel ends it when the test's process ends in whatever way. `stop` kills it. */
export interface Running {
  readonly signal: (name: NodeJS.Signals) => void;
  readonly stop: () => Promise<void>;
}

/** Starts a program, with more variables in its environment. */
export function run(
  program: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Running {
  const quiet = process.env.KOSCHEI_TEST_OUTPUT === undefined;
  const child: ChildProcess = spawn('setpriv', ['--pdeathsig', 'KILL', program, ...args], {
    env: { ...process.env, ...environment },
    stdio: quiet ? 'ignore' : ['ignore', 'inherit', 'inherit'],
  });
  return {
    signal: (name) => void child.kill(name),
    stop: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGCONT');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

/**
 * The real controllers of StatefulSets, Jobs and garbage, as the local cluster built them. There is no scheduler and
 * no kubelet: pods stay as they are made.
 */
export async function startControllers(kubeconfig: string): Promise<Running> {
  const cache = process.env.KOSCHEI_CACHE ?? '/var/cache/koschei';
  const built = (await readdir(cache)).find((name) => /^kubernetes-[\d.]+(-\d+)?$/.test(name));
  if (built === undefined) throw new Error(`no Kubernetes below ${cache}: run 'npm run cluster:up' once`);
  return run(join(cache, built, 'kube-controller-manager'), [
    `--kubeconfig=${kubeconfig}`,
    '--controllers=statefulset,job,garbagecollector,disruption',
    '--leader-elect=false',
    '--port=0',
    '--secure-port=0',
    '--kube-api-qps=200',
    '--kube-api-burst=400',
  ]);
}

export interface SecureEtcd extends Running {
  readonly start: () => void;
}

/** etcd with TLS and client certificates on a port of this machine, with the certificates of a Secret. */
export async function secureEtcd(port: number, server: Secret, host = '127.0.0.1'): Promise<SecureEtcd> {
  const folder = await mkdtemp(join(tmpdir(), 'koschei-tls-etcd-'));
  for (const [name, value] of Object.entries(server.data ?? {})) {
    await writeFile(join(folder, name), Buffer.from(value, 'base64'), { mode: 0o600 });
  }
  const url = `https://${host}:${port}`;
  const peer = `http://127.0.0.1:${await freePort()}`;
  const start = () =>
    run('etcd', [
      '--name=test',
      `--data-dir=${join(folder, 'data')}`,
      `--listen-client-urls=${url}`,
      `--advertise-client-urls=${url}`,
      `--listen-peer-urls=${peer}`,
      `--initial-advertise-peer-urls=${peer}`,
      `--initial-cluster=test=${peer}`,
      '--client-cert-auth=true',
      `--trusted-ca-file=${join(folder, 'ca.crt')}`,
      `--cert-file=${join(folder, 'tls.crt')}`,
      `--key-file=${join(folder, 'tls.key')}`,
      '--unsafe-no-fsync',
    ]);
  let running = start();
  return {
    start: () => {
      running = start();
    },
    signal: (name) => running.signal(name),
    stop: async () => {
      await running.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}
