import { volumesOf } from './members.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/**
 * Where a cluster stands with its state in etcd. `fresh`: it has none yet, and no data either; `running`: it has both;
 * `lost`: there are data, or there were, and etcd knows nothing of them: nothing may be started, since nobody knows
 * which volume holds what was acknowledged last; `unknown`: etcd does not answer.
 */
export type Situation = 'fresh' | 'running' | 'lost' | 'unknown';

export function situationOf(snapshot: ClusterSnapshot): Situation {
  if (!snapshot.etcd.known) return 'unknown';
  const { view } = snapshot.etcd.value;
  // A key that cannot be read is there.
  if (view.initialize !== undefined || view.invalid.some(({ key }) => key.endsWith('/initialize')))
    return 'running';
  // A leader was seen before: the cluster has lived.
  if (snapshot.cluster.status?.term !== undefined) return 'lost';
  const filled = volumesOf(snapshot).filter((volume) => volume.initialized);
  const founder = snapshot.instances.find((instance) => instance.spec.initMode === 'initdb');
  // The founder's volume is filled before its agent writes to etcd.
  return filled.every((volume) => volume.instance === founder?.metadata.name) ? 'fresh' : 'lost';
}
