import { spawn } from 'node:child_process';
import { existsSync, mkdirSync, openSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { cache } from './settings.ts';
import { report, run, succeeds, waitUntil } from './shell.ts';

const dockerLog = `${cache}/state/dockerd.log`;
const dockerPid = `${cache}/state/dockerd.pid`;

/** Takes the lock that lets one program at a time change the cluster, by running this program again under flock. */
export async function alone(main: () => Promise<void>): Promise<void> {
  try {
    if (process.env.KOSCHEI_CLUSTER_LOCKED === undefined) {
      if (process.getuid?.() !== 0) {
        throw new Error('The local cluster needs root: it starts containers and sets routes.');
      }
      mkdirSync(`${cache}/state`, { recursive: true });
      // -o: programs that outlive this one, such as dockerd, must not inherit the lock.
      const again = spawn(
        'flock',
        ['-o', `${cache}/state/lock`, process.execPath, ...process.argv.slice(1)],
        {
          stdio: 'inherit',
          env: { ...process.env, KOSCHEI_CLUSTER_LOCKED: '1' },
        },
      );
      process.exitCode = await new Promise((resolve) => again.on('close', (code) => resolve(code ?? 1)));
      return;
    }
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    // Steps that run beside the failed one must not go on.
    process.exit(1);
  }
}

/** Installs what is missing of the few programs that are needed outside containers (Debian and its kin). */
export async function installPrograms(): Promise<void> {
  const onPath = (program: string) => succeeds('sh', ['-c', 'command -v "$0"', program]);
  const packages: string[] = [];
  for (const [program, name] of [
    ['dockerd', 'docker.io'],
    ['docker', 'docker.io'],
    ['mmdebstrap', 'mmdebstrap'],
    ['iptables', 'iptables'],
    ['ip', 'iproute2'],
  ] as const) {
    if (!(await onPath(program)) && !packages.includes(name)) packages.push(name);
  }
  if (packages.length === 0) return;
  report(`installing ${packages.join(', ')} ...`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await run('apt-get', ['update', '-q'], { env });
  await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', ...packages], { env });
  // Debian 13 and newer have the client in a package of its own.
  if (!(await onPath('docker'))) await run('apt-get', ['install', '-q', '-y', 'docker-cli'], { env });
}

/** Starts a docker daemon that outlives this program, unless one answers. */
export async function startDocker(): Promise<void> {
  const answers = () => succeeds('docker', ['version'], { timeout: 20_000 });
  if (await answers()) return;
  if (existsSync('/run/systemd/system') && (await succeeds('systemctl', ['start', 'docker']))) {
    return waitUntil('docker to answer after `systemctl start docker`', 60_000, answers);
  }
  report(`starting dockerd (log in ${dockerLog}) ...`);
  const log = openSync(dockerLog, 'a');
  const daemon = spawn('dockerd', ['--log-level', 'warn'], { detached: true, stdio: ['ignore', log, log] });
  let ended = false;
  daemon.on('error', () => (ended = true)).on('exit', () => (ended = true));
  await waitUntil('dockerd to answer', 60_000, async () => {
    if (ended) throw new Error(`dockerd ended at once; the reason is in ${dockerLog}.`);
    return answers();
  });
  writeFileSync(dockerPid, `${daemon.pid}\n`);
  daemon.unref();
}

/** Sees to what the kernel of this machine must allow; prints what it changes. */
export async function prepareKernel(): Promise<void> {
  // Modules may be built in, or not to be loaded from here; the cluster says itself what it misses.
  await succeeds('modprobe', ['-a', 'br_netfilter', 'overlay', 'nf_conntrack']);
  const file = '/proc/sys/fs/inotify/max_user_instances';
  if (Number(readFileSync(file, 'utf8')) < 512) {
    writeFileSync(file, '512');
    report('raised fs.inotify.max_user_instances to 512');
  }
}

/** Makes `kubectl` callable by everybody, with the one at `built`, unless there is one on PATH. */
export async function provideKubectl(built: string): Promise<void> {
  if (await succeeds('kubectl', ['version', '--client'])) return;
  rmSync('/usr/local/bin/kubectl', { force: true });
  symlinkSync(built, '/usr/local/bin/kubectl');
  report(`linked /usr/local/bin/kubectl to ${built}`);
}
