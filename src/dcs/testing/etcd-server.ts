import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { freePorts } from '../../kube/testing/free-ports.ts';
import { Etcd } from '../etcd.ts';

/** A real single-member etcd on loopback, for integration tests. */
export interface EtcdServer {
  readonly endpoint: string;
  /** Client and peer port. */
  readonly ports: readonly [number, number];
  readonly pid: number;
  /** Sends a signal, e.g. SIGSTOP to make it hang. */
  signal(signal: NodeJS.Signals): void;
  stop(): Promise<void>;
}

/**
 * Starts etcd (Debian package `etcd-server`) with its data in a new temporary folder and waits until it answers.
 * @param ports those of a server that was stopped, to take its place
 */
export async function startEtcd(ports?: readonly [number, number]): Promise<EtcdServer> {
  const folder = await mkdtemp(join(tmpdir(), 'koschei-etcd-'));
  const [client = 0, peer = 0] = ports ?? (await freePorts(2));
  const endpoint = `http://127.0.0.1:${client}`;
  const args = ['--name=test', `--data-dir=${folder}`, `--listen-client-urls=${endpoint}`];
  args.push(`--advertise-client-urls=${endpoint}`, `--listen-peer-urls=http://127.0.0.1:${peer}`);
  args.push(
    `--initial-advertise-peer-urls=http://127.0.0.1:${peer}`,
    `--initial-cluster=test=http://127.0.0.1:${peer}`,
  );
  const child: ChildProcess = spawn('etcd', args, { stdio: 'ignore' });
  const probe = new Etcd({ endpoints: [endpoint], timeoutMs: 500 });
  const deadline = performance.now() + 20_000;
  for (;;) {
    try {
      await probe.readPrefix('/');
      break;
    } catch (error) {
      if (performance.now() > deadline || child.exitCode !== null) throw error;
      await sleep(50);
    }
  }
  probe.close();
  return {
    endpoint,
    ports: [client, peer],
    pid: child.pid ?? 0,
    signal: (signal) => void child.kill(signal),
    stop: async () => {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
      await rm(folder, { recursive: true, force: true });
    },
  };
}
