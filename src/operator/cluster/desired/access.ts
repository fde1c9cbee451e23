import { agentAccountName, clusterLabels, leaderEndpointSliceName, podName } from '../../../api/names.ts';
import type { KubeObject, Role, RoleBinding, ServiceAccount } from '../../../kube/index.ts';
import { ownedBy } from '../../owner.ts';
import type { AcceptedCluster } from '../snapshot.ts';

/**
 * What the agents may do with the Kubernetes API: point `-rw` at themselves, and label their pods. An agent needs no more
 * than its own pod's label, but RBAC knows neither fields nor who asks within one ServiceAccount: with these rights an
 * agent can change whatever can be changed in any pod of its own cluster, their images among it. No other cluster's pods.
 */
export function agentAccess(
  cluster: AcceptedCluster,
  instances: readonly string[],
): [ServiceAccount, Role, RoleBinding] {
  const { name, namespace } = cluster.metadata;
  const metadata: KubeObject['metadata'] = {
    name: agentAccountName(name),
    namespace,
    labels: clusterLabels(name, cluster.clusterId),
    ownerReferences: ownedBy(cluster),
  };
  return [
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata, automountServiceAccountToken: false },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'Role',
      metadata,
      rules: [
        {
          apiGroups: ['discovery.k8s.io'],
          resources: ['endpointslices'],
          resourceNames: [leaderEndpointSliceName(name)],
          verbs: ['get', 'update'],
        },
        ...(instances.length === 0
          ? []
          : [
              {
                apiGroups: [''],
                resources: ['pods'],
                resourceNames: instances.map(podName),
                verbs: ['patch'],
              },
            ]),
      ],
    },
    {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'RoleBinding',
      metadata,
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: agentAccountName(name) },
      subjects: [{ kind: 'ServiceAccount', name: agentAccountName(name), namespace }],
    },
  ];
}
