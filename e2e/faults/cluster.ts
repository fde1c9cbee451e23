import type { PgClusterSpecInput } from '../../src/api/pgcluster.ts';
import { kubectl } from '../cluster/cluster.ts';
import { report } from '../cluster/shell.ts';
import { messageOf } from '../ledger/connection.ts';
import { PostgresCluster } from '../postgres-cluster.ts';
import { createDisks, diskClass, removeDisks } from './disks.ts';
import type { Fault } from './fault.ts';

/** The cluster that faults happen to: small, because the machine is. */
export interface Arena {
  /** The cluster, when all is well; one that does not become well is replaced. */
  healthy(): Promise<PostgresCluster>;
  remove(): Promise<void>;
}

/** A primary, a synchronous and an asynchronous standby, on file systems of their own if a fault needs them. */
export function specFor(disks: readonly Fault['disks'][]): PgClusterSpecInput {
  const own = disks.some((each) => each !== undefined);
  return {
    postgres: { parameters: { shared_buffers: '64MB', max_connections: 50 } },
    replicas: { synchronous: 1, asynchronous: 1 },
    storage: {
      size: '1Gi',
      ...(own ? { storageClassName: diskClass.data } : {}),
      ...(disks.includes('wal') ? { wal: { size: '1Gi', storageClassName: diskClass.wal } } : {}),
    },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
    deletionPolicy: 'Delete',
  };
}

/** Makes the cluster, or takes over the one that an earlier run kept if it is like it. */
export async function openCluster(disks: readonly Fault['disks'][]): Promise<Arena> {
  const spec = specFor(disks);
  const own = spec.storage.storageClassName !== undefined;
  const kind = own ? (spec.storage.wal === undefined ? '-disks' : '-wal-disks') : '';
  const cluster = await PostgresCluster.at(`e2e-faults${kind}`, 'shop');
  const create = async () => {
    if (own) await createDisks();
    await cluster.createNamespace();
    await cluster.apply(spec);
  };
  const remove = async () => {
    await cluster.remove();
    await kubectl(['wait', '--for=delete', `namespace/${cluster.namespace}`, '--timeout=120s']);
    if (own) await removeDisks();
  };
  await create();
  return {
    async healthy() {
      try {
        await cluster.waitHealthy(180_000);
      } catch (error) {
        report(`the cluster is not well, and is made anew: ${messageOf(error)}`);
        await remove();
        await create();
        await cluster.waitHealthy(180_000);
      }
      return cluster;
    },
    remove,
  };
}
