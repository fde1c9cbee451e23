import { clusterLabels, disruptionBudgetName } from '../../../api/names.ts';
import { instanceCount } from '../../../api/pgcluster.ts';
import type { ChosenApis, PodDisruptionBudget } from '../../../kube/index.ts';
import { podSelector } from '../../labels.ts';
import { ownedBy } from '../../owner.ts';
import type { AcceptedCluster } from '../snapshot.ts';

/**
 * Drains leave a primary and its synchronous standbys, where there are more instances than these, and take at least one:
 * an instance whose local volume is on the drained node cannot come up elsewhere, and must not keep the next one there.
 * Undefined where the server has no PodDisruptionBudgets.
 */
export function disruptionBudget(
  cluster: AcceptedCluster,
  apis: ChosenApis,
): PodDisruptionBudget | undefined {
  if (apis.podDisruptionBudget === undefined) return undefined;
  const { name, namespace } = cluster.metadata;
  const { replicas } = cluster.spec;
  return {
    apiVersion: apis.podDisruptionBudget,
    kind: 'PodDisruptionBudget',
    metadata: {
      name: disruptionBudgetName(name),
      namespace,
      labels: clusterLabels(name, cluster.clusterId),
      ownerReferences: ownedBy(cluster),
    },
    spec: {
      maxUnavailable: Math.max(1, instanceCount(replicas) - 1 - replicas.synchronous),
      selector: { matchLabels: podSelector(name) },
      // An instance that is broken anyway must not keep its node from being drained.
      ...(apis.hasUnhealthyPodEvictionPolicy ? { unhealthyPodEvictionPolicy: 'AlwaysAllow' } : {}),
    },
  };
}
