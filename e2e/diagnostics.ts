import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { kubectl } from './cluster/cluster.ts';
import { repository } from './cluster/settings.ts';
import { stateInEtcd } from './etcd.ts';
import { systemNamespace } from './install.ts';
import type { Attempt } from './ledger/history.ts';
import type { PostgresCluster } from './postgres-cluster.ts';

/**
 * Writes what helps to understand a failure into `.state/diagnostics/<name>`: objects, events, logs, the state in etcd
 * and the history of the workload.
 * @returns the folder.
 */
export async function dumpDiagnostics(
  name: string,
  cluster: PostgresCluster | undefined,
  attempts: readonly Attempt[] = [],
): Promise<string> {
  const folder = join(repository, '.state/diagnostics', name.replaceAll(/[^a-zA-Z0-9-]+/g, '-'));
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const save = (file: string, text: string) => writeFileSync(join(folder, file), text);
  const saveOutput = async (file: string, ...args: string[]) =>
    save(file, await kubectl(['--request-timeout=20s', ...args]).catch((error: Error) => error.message));

  if (attempts.length > 0) {
    save('attempts.jsonl', `${attempts.map((each) => JSON.stringify(each)).join('\n')}\n`);
  }
  await saveOutput('nodes.txt', 'get', 'nodes', '-o', 'wide');
  await saveOutput('system.txt', '-n', systemNamespace, 'get', 'pods', '-o', 'wide');
  await saveOutput(
    'operator.log',
    ...['-n', systemNamespace, 'logs', '-l', 'app.kubernetes.io/name=koschei-operator', '--tail=2000'],
  );
  if (cluster === undefined) return folder;
  const { namespace } = cluster;
  const kinds = 'pgc,pgi,pods,jobs,statefulsets,pvc,services,endpointslices';
  await saveOutput('objects.txt', '-n', namespace, 'get', kinds, '-o', 'wide');
  await saveOutput('objects.yaml', '-n', namespace, 'get', kinds, '-o', 'yaml');
  await saveOutput('events.txt', '-n', namespace, 'get', 'events', '--sort-by=.lastTimestamp');
  save(
    'etcd.txt',
    await stateInEtcd(namespace).then(
      (keys) => keys.map(({ key, value, modRevision }) => `${modRevision} ${key}\n  ${value}\n`).join(''),
      (error: Error) => error.message,
    ),
  );
  const pods = await kubectl(['-n', namespace, 'get', 'pods', '-o', 'name']).catch(() => '');
  for (const pod of pods.split('\n').filter((line) => line !== '')) {
    const file = pod.replace('pod/', '');
    await saveOutput(`${file}.log`, '-n', namespace, 'logs', pod, '--all-containers', '--tail=3000');
    await saveOutput(`${file}.previous.log`, ...['-n', namespace, 'logs', pod, '--previous', '--tail=2000']);
  }
  return folder;
}
