import { annotation, ordinalOf } from '../../api/names.ts';
import { resources } from '../../kube/index.ts';
import type { Action } from '../action.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/** The value of the annotation that leaves the choice to the primary. */
const anyStandby = 'any';

/**
 * A switchover that a person asks for by annotating the PgCluster: it becomes a request to the primary, then the
 * annotation goes. Empty: nobody asks, or an earlier request is still there.
 */
export function askedSwitchover({ cluster, etcd, random }: ClusterSnapshot): Action[] {
  const { name, namespace, annotations } = cluster.metadata;
  const asked = annotations?.[annotation.switchover];
  if (asked === undefined || !etcd.known) return [];
  const { leader, request } = etcd.value.view;
  const done = (because: string): Action => ({
    do: 'annotate',
    resource: resources.pgClusters,
    ref: { namespace, name },
    annotations: { [annotation.switchover]: null },
    because,
  });
  if (asked === leader?.value.instance && leader.value.phase === 'leading')
    return [done(`no switchover: ${asked} is the primary`)];
  if (asked !== anyStandby && ordinalOf(name, asked) === undefined)
    return [done(`no switchover: ${asked} is neither an instance of ${name} nor "${anyStandby}"`)];
  if (request !== undefined) return [];
  const because = `a person asks for it (annotation ${annotation.switchover})`;
  return [
    {
      do: 'request',
      value: {
        id: random.requestId,
        kind: 'switchover',
        ...(asked === anyStandby ? {} : { to: asked }),
        by: 'annotation',
      },
      because,
    },
    done('the switchover is asked for'),
  ];
}
