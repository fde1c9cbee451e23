import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { Etcd, type KeyValue } from '../src/dcs/index.ts';
import { resources } from '../src/kube/index.ts';
import { context, kubeconfig } from './cluster/cluster.ts';
import { systemNamespace } from './install.ts';
import { kubernetes } from './kubernetes.ts';

/** Milliseconds until kubectl must have opened the way to etcd. */
const patience = 10_000;

/** Talks to the managed etcd as its administrator, through `kubectl port-forward` to a member that is ready. */
export async function withEtcd<T>(use: (etcd: Etcd) => Promise<T>): Promise<T> {
  const { client } = await kubernetes();
  const { items } = await client.list(resources.pods, {
    namespace: systemNamespace,
    labelSelector: 'app.kubernetes.io/name=koschei-etcd',
  });
  const member = items.find(({ status }) =>
    status?.conditions?.some((each) => each.type === 'Ready' && each.status === 'True'),
  );
  if (member === undefined) throw new Error('expected a member of etcd that is ready, found none');
  const secret = await client.get(resources.secrets, {
    namespace: systemNamespace,
    name: 'koschei-etcd-root',
  });
  const pem = (key: string) => Buffer.from(secret.data?.[key] ?? '', 'base64');
  const forward = spawn(
    'kubectl',
    [
      ...['--kubeconfig', kubeconfig, '--context', context, '-n', systemNamespace],
      ...['port-forward', `pod/${member.metadata.name}`, ':2379'],
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  );
  try {
    const etcd = new Etcd({
      endpoints: [`https://localhost:${await forwardedPort(forward)}`],
      tls: { ca: pem('ca.crt'), cert: pem('tls.crt'), key: pem('tls.key') },
      timeoutMs: 5_000,
    });
    try {
      return await use(etcd);
    } finally {
      etcd.close();
    }
  } finally {
    forward.kill();
  }
}

/** Everything that etcd holds about the clusters of a namespace. */
export async function stateInEtcd(namespace: string): Promise<readonly KeyValue[]> {
  return withEtcd(async (etcd) => (await etcd.readPrefix(`/koschei/${namespace}/`)).keys);
}

/** Whether the managed etcd knows a user and a role of this name. */
export async function accessInEtcd(name: string): Promise<{ user: boolean; role: boolean }> {
  return withEtcd(async ({ administration: { auth } }) => {
    const [{ users }, { roles }] = [await auth.userList(), await auth.roleList()];
    return { user: users.includes(name), role: roles.includes(name) };
  });
}

/** Removes everything that etcd holds about the clusters of a namespace. */
export async function forgetInEtcd(namespace: string): Promise<void> {
  await withEtcd((etcd) => etcd.transact([], [{ op: 'deletePrefix', key: `/koschei/${namespace}/` }]));
}

/** The port of this machine that kubectl chose. */
function forwardedPort(forward: ChildProcess): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('kubectl port-forward says nothing')), patience);
    let errors = '';
    forward.stderr?.on('data', (text: Buffer) => {
      errors += text.toString();
    });
    forward.on('close', () => reject(new Error(`kubectl port-forward ended: ${errors}`)));
    if (forward.stdout === null) return;
    createInterface({ input: forward.stdout }).on('line', (line) => {
      const port = /127\.0\.0\.1:(\d+) ->/.exec(line)?.[1];
      if (port === undefined) return;
      clearTimeout(timer);
      resolve(Number(port));
    });
  });
}
