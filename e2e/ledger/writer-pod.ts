import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { context, kubeconfig, kubectl } from '../cluster/cluster.ts';
import type { WriterCommand } from './ledger.ts';

const name = 'ledger';

/**
 * The workload in a pod, for clusters whose pods cannot be reached from this machine: Koschei's own image has Node,
 * and the program comes as a ConfigMap.
 */
export async function writerPod(namespace: string): Promise<WriterCommand> {
  const image = await kubectl([
    ...['-n', 'koschei-system', 'get', 'deployment', 'koschei-operator'],
    ...['-o', 'jsonpath={.spec.template.spec.containers[0].image}'],
  ]);
  const metadata = { name, namespace };
  const objects = [
    { apiVersion: 'v1', kind: 'ConfigMap', metadata, data: { 'writer.mjs': await program() } },
    { apiVersion: 'v1', kind: 'Pod', metadata, spec: podSpec(image) },
  ];
  // On the server's side: the annotation of the other way has no room for the program.
  const list = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
  await kubectl(['apply', '--server-side', '-f', '-'], list);
  await kubectl(['-n', namespace, 'wait', '--for=condition=Ready', `pod/${name}`, '--timeout=60s']);
  const options = ['--kubeconfig', kubeconfig, '--context', context, '-n', namespace];
  return ['kubectl', ...options, 'exec', '-i', name, '--', '/opt/koschei/node', '/program/writer.mjs'];
}

/** The workload as one file. */
async function program(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('writer.ts', import.meta.url))],
    bundle: true,
    minify: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    write: false,
    external: ['pg-native'],
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
  });
  return outputFiles[0]?.text ?? '';
}

/** Waits to be used; satisfies the Pod Security Standard "restricted". */
const podSpec = (image: string) => ({
  restartPolicy: 'Never',
  terminationGracePeriodSeconds: 0,
  automountServiceAccountToken: false,
  securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: 'RuntimeDefault' } },
  containers: [
    {
      name,
      image,
      command: ['/opt/koschei/node', '-e', 'setInterval(() => {}, 1e9)'],
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
      volumeMounts: [{ name: 'program', mountPath: '/program', readOnly: true }],
    },
  ],
  volumes: [{ name: 'program', configMap: { name } }],
});
