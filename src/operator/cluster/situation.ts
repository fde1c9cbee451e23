import type { ClusterView } from '../../dcs/index.ts';
import { knownTerm, promotedTerm } from './evidence.ts';
import { volumesOf } from './members.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/**
 * Where a cluster stands with its state in etcd. `fresh`: it has none yet, and no data either; `running`: it has both;
 * `lost`: there are data, or there were, and etcd knows nothing of them: nothing may be started, since nobody knows
 * which volume holds what was acknowledged last; `stale`: etcd knows of them, but less than they do, as after the restore
 * of an old copy: what it says of the synchronous set may be wrong; `unknown`: etcd does not answer.
 */
export type Situation = 'fresh' | 'running' | 'lost' | 'stale' | 'unknown';

/** Whether a person has to say which instance to go on with. */
export const isUndecided = (situation: Situation): boolean => situation === 'lost' || situation === 'stale';

export function situationOf(snapshot: ClusterSnapshot): Situation {
  if (!snapshot.etcd.known) return 'unknown';
  const { view } = snapshot.etcd.value;
  // A key that cannot be read is there.
  if (view.initialize !== undefined || view.invalid.some(({ key }) => key.endsWith('/initialize')))
    return isStale(snapshot, view) ? 'stale' : 'running';
  // A leader was seen before: the cluster has lived.
  if (snapshot.cluster.status?.term !== undefined) return 'lost';
  const filled = volumesOf(snapshot).filter((volume) => volume.initialized);
  const founder = snapshot.instances.find((instance) => instance.spec.initMode === 'initdb');
  // The founder's volume is filled before its agent writes to etcd.
  return filled.every((volume) => volume.instance === founder?.metadata.name) ? 'fresh' : 'lost';
}

/**
 * Whether there has been a later term than etcd knows of. A term is won in etcd before anything else bears it, so etcd is
 * never behind by itself. A leader key that cannot be read was written by a newer version, and says nothing.
 */
function isStale(snapshot: ClusterSnapshot, { leader, invalid }: ClusterView): boolean {
  if (invalid.some(({ key }) => key.endsWith('/leader'))) return false;
  return Math.max(knownTerm(snapshot), promotedTerm(snapshot)) > (leader?.value.term ?? 0);
}
