import * as z from 'zod';
import { walClaimName } from '../../src/api/names.ts';
import { kubectl, nodeNames } from '../cluster/cluster.ts';
import { docker } from '../cluster/shell.ts';
import { diskFolder, mountScript } from './effects.ts';
import type { Instance } from './fault.ts';

/*
 * Volumes that are file systems of their own: ext4 on a loop device upon a file of the node, so that one volume can be
 * filled or frozen without touching anything else on the machine. The PersistentVolume is a folder inside, which is
 * there only while the file system is mounted: after a restart of the node a pod waits for it, and never starts on an
 * empty folder.
 */

/** Storage classes of these volumes. */
export const diskClass = { data: 'koschei-faults-data', wal: 'koschei-faults-wal' } as const;
const label = 'koschei.dev/faults';
/** Volumes of each kind on each node: the scheduler prefers one instance per node. */
const perNode = 2;
const size = '1Gi';

const names = (['data', 'wal'] as const).flatMap((kind) =>
  Array.from({ length: perNode }, (_, index) => ({ kind, name: `${kind}-${index + 1}` })),
);

/** Makes the volumes and their classes on all nodes, if they are not there. Those in use are left alone. */
export async function createDisks(): Promise<void> {
  const make = names.map(
    ({ name }) =>
      `[ -e ${name}.img ] || { truncate -s 1G ${name}.new && mkfs.ext4 -q -F -m 0 ${name}.new && mv ${name}.new ${name}.img; }`,
  );
  const folders = names.map(({ name }) => `mkdir -p ${diskFolder}/${name}/volume`);
  const script = `set -e\nmkdir -p ${diskFolder}; cd ${diskFolder}\n${make.join('\n')}\n${mountScript}\n${folders.join('\n')}`;
  await Promise.all(nodeNames.map((node) => docker(['exec', node, 'sh', '-c', script])));
  const metadata = (name: string) => ({ name, labels: { [label]: 'true' } });
  const classes = Object.values(diskClass).map((name) => ({
    apiVersion: 'storage.k8s.io/v1',
    kind: 'StorageClass',
    metadata: metadata(name),
    provisioner: 'kubernetes.io/no-provisioner',
    volumeBindingMode: 'WaitForFirstConsumer',
  }));
  const volumes = nodeNames.flatMap((node) =>
    names.map(({ kind, name }) => ({
      apiVersion: 'v1',
      kind: 'PersistentVolume',
      metadata: metadata(`faults-${node}-${name}`),
      spec: {
        capacity: { storage: size },
        accessModes: ['ReadWriteOnce'],
        persistentVolumeReclaimPolicy: 'Retain',
        storageClassName: diskClass[kind],
        local: { path: `${diskFolder}/${name}/volume` },
        nodeAffinity: {
          required: {
            nodeSelectorTerms: [
              { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [node] }] },
            ],
          },
        },
      },
    })),
  );
  const items = [...classes, ...volumes];
  await kubectl(['apply', '-f', '-'], JSON.stringify({ apiVersion: 'v1', kind: 'List', items }));
}

/** Removes the volumes with their data. The pods that use them must be gone. */
export async function removeDisks(): Promise<void> {
  await kubectl(['delete', 'pv,storageclass', '-l', label, '--timeout=30s', '--ignore-not-found']);
  const script = `cd ${diskFolder} 2>/dev/null || exit 0
for image in *.img; do
  [ -e "$image" ] || continue
  for try in $(seq 50); do mountpoint -q "\${image%.img}" || break; umount "\${image%.img}" && break; sleep 0.2; done
done
cd / && rm -rf --one-file-system ${diskFolder}`;
  await Promise.all(nodeNames.map((node) => docker(['exec', node, 'sh', '-c', script])));
}

const VolumeList = z.object({
  items: z.array(
    z.object({
      spec: z.object({
        local: z.object({ path: z.string() }).optional(),
        claimRef: z.object({ namespace: z.string(), name: z.string() }).optional(),
      }),
    }),
  ),
});

/** Where these volumes are mounted on their nodes, by instance. */
export async function disksOf(namespace: string): Promise<Map<string, Instance['disks']>> {
  const { items } = VolumeList.parse(JSON.parse(await kubectl(['get', 'pv', '-l', label, '-o', 'json'])));
  const found = new Map<string, Instance['disks']>();
  for (const { spec } of items) {
    const { local, claimRef } = spec;
    if (local === undefined || claimRef?.namespace !== namespace) continue;
    const instance = claimRef.name.replace(/-wal$/, '');
    const kind = claimRef.name === walClaimName(instance) ? 'wal' : 'data';
    const mount = local.path.replace(/\/volume$/, '');
    found.set(instance, { ...found.get(instance), [kind]: mount });
  }
  return found;
}
