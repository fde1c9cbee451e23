import { report, run, succeeds } from './cluster/shell.ts';

/** Programs that this machine may lack, as a shell pattern, and the Debian packages that have them. */
export const debianPackages = {
  compiler: ['/usr/bin/gcc /usr/include/stdio.h', 'gcc libc6-dev'],
  postgres: ['/usr/lib/postgresql/*/bin/postgres', 'postgresql'],
  etcd: ['/usr/bin/etcd', 'etcd-server'],
  openssl: ['/usr/bin/openssl', 'openssl'],
  spin: ['/usr/bin/spin', 'spin'],
} as const;

/**
 * Installs what is missing, on Debian and its kin as root.
 * @throws {CommandError} with the words of apt-get.
 */
export async function installMissing(...wanted: (keyof typeof debianPackages)[]): Promise<void> {
  const missing: string[] = [];
  for (const name of wanted) {
    const [files, packages] = debianPackages[name];
    if (!(await succeeds('sh', ['-c', `ls ${files}`]))) missing.push(...packages.split(' '));
  }
  if (missing.length === 0) return;
  report(`installing ${missing.join(', ')} ...`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  await run('apt-get', ['update', '-q'], { env });
  await run('apt-get', ['install', '-q', '-y', '--no-install-recommends', ...missing], { env });
}
