import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync } from 'node:fs';
import { debianImage } from './images.ts';
import { cache, kubernetesVersion, repository } from './settings.ts';
import { docker, report, run, succeeds } from './shell.ts';

/** Counts changes of how the programs are made: another number is another folder in the cache. */
const recipe = 1;

/**
 * The folder with Kubernetes' programs and `pause.tar`, the image every pod starts from. Made the first time, from
 * Debian's source package; then taken from the cache.
 */
export async function kubernetesPrograms(): Promise<string> {
  const folder = `${cache}/kubernetes-${kubernetesVersion}-${recipe}`;
  if (existsSync(folder)) return folder;
  report(`building Kubernetes ${kubernetesVersion} (first time only, about 4 minutes) ...`);
  const image = await debianImage('bookworm');
  const work = `${folder}.partial`;
  mkdirSync(work, { recursive: true });
  const name = 'koschei-build-kubernetes';
  await succeeds('docker', ['rm', '-f', name]);
  const script = `${repository}/e2e/cluster/kubernetes/build.sh`;
  const options = ['--rm', '--init', '--name', name, '-v', `${work}:/build`, '-v', `${script}:/build.sh:ro`];
  // Docker would let the compilers go on when this program is interrupted.
  const interrupted = () => {
    spawnSync('docker', ['rm', '-f', name]);
    process.exit(130);
  };
  process.once('SIGINT', interrupted).once('SIGTERM', interrupted);
  await docker(['run', ...options, image, '/build.sh', kubernetesVersion], {
    onLine: (line) => line.startsWith('-- ') && report(`  ${line.slice(3)}`),
  });
  process.off('SIGINT', interrupted).off('SIGTERM', interrupted);
  const programs = `${work}/bin`;
  await run('tar', ['-C', programs, '-cf', `${work}/pause-root.tar`, 'pause']);
  const pause = 'localhost/pause:3.2';
  await docker([
    'import',
    '--change',
    'ENTRYPOINT ["/pause"]',
    '--change',
    'USER 65535:65535',
    `${work}/pause-root.tar`,
    pause,
  ]);
  await docker(['save', '-o', `${programs}/pause.tar`, pause]);
  renameSync(programs, folder);
  rmSync(work, { recursive: true, force: true });
  return folder;
}
