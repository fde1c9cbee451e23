import { defaultTiming } from '../../dcs/index.ts';
import { knownTerm, promotedTerm } from './evidence.ts';
import { volumesOf } from './members.ts';
import type { ClusterSnapshot, EtcdFacts } from './snapshot.ts';

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
    return isStale(snapshot, snapshot.etcd.value) ? 'stale' : 'running';
  // A leader was seen before: the cluster has lived.
  if (snapshot.cluster.status?.term !== undefined) return 'lost';
  const filled = volumesOf(snapshot).filter((volume) => volume.initialized);
  const founder = snapshot.instances.find((instance) => instance.spec.initMode === 'initdb');
  // The founder's volume is filled before its agent writes to etcd.
  return filled.every((volume) => volume.instance === founder?.metadata.name) ? 'fresh' : 'lost';
}

/** A heartbeat is overdue for the eyes of people this long after the leader's time has run out, ms. */
export const overdueMs = 2_000;

/** What agents say that know of more than etcd does (src/agent/ha/restored-state.ts). */
export const olderThanData = 'StateOlderThanData';

/**
 * Whether etcd knows less than there has been. A term is won in etcd before anything else bears it, so etcd is never behind
 * by itself. What only agents say counts while nobody leads: an instance that was given up, and comes back with data that
 * nobody knew of, must not stop a cluster that works. A leader key that cannot be read was written by a newer version, and
 * says nothing.
 */
function isStale(snapshot: ClusterSnapshot, { view, leaderSilentMs }: EtcdFacts): boolean {
  const { leader, members, invalid } = view;
  if (invalid.some(({ key }) => key.endsWith('/leader'))) return false;
  const term = leader?.value.term ?? 0;
  if (knownTerm(snapshot) > term) return true;
  const refuses = members.get(leader?.value.instance ?? '')?.value.problem?.reason === olderThanData;
  const leads =
    leader?.value.phase === 'leading' &&
    leaderSilentMs < (leader.value.ttlMs ?? defaultTiming.ttlMs) + overdueMs;
  return refuses || (!leads && promotedTerm(snapshot) > term);
}
