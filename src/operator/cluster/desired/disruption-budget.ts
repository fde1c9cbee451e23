import { clusterLabels, disruptionBudgetName } from '../../../api/names.ts';
import type { ChosenApis, PodDisruptionBudget } from '../../../kube/index.ts';
import { podSelector } from '../../labels.ts';
import { ownedBy } from '../../owner.ts';
import type { AcceptedCluster } from '../snapshot.ts';

/** Drains take one instance at a time; undefined where the server has no PodDisruptionBudgets. */
export function disruptionBudget(
  cluster: AcceptedCluster,
  apis: ChosenApis,
): PodDisruptionBudget | undefined {
  if (apis.podDisruptionBudget === undefined) return undefined;
  const { name, namespace } = cluster.metadata;
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
      maxUnavailable: 1,
      selector: { matchLabels: podSelector(name) },
      // An instance that is broken anyway must not keep its node from being drained.
      ...(apis.hasUnhealthyPodEvictionPolicy ? { unhealthyPodEvictionPolicy: 'AlwaysAllow' } : {}),
    },
  };
}
