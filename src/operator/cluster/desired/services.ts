import {
  clusterLabels,
  leaderEndpointSliceName,
  podsServiceName,
  port,
  readOnlyServiceName,
  readServiceName,
  readWriteServiceName,
} from '../../../api/names.ts';
import type { ChosenApis, EndpointSlice, Service } from '../../../kube/index.ts';
import { podSelector } from '../../labels.ts';
import { ownedBy } from '../../owner.ts';
import type { AcceptedCluster } from '../snapshot.ts';

/** `-rw`, `-ro`, `-r` and the headless Service of the pods' own names. */
export function services(cluster: AcceptedCluster): Service[] {
  const { name } = cluster.metadata;
  const { type, annotations } = cluster.spec.service;
  const facing = (serviceName: string, selector: Record<string, string> | undefined): Service => ({
    ...base(cluster, serviceName, annotations),
    spec: {
      type,
      ports: [{ name: 'postgres', port: port.postgres, targetPort: port.postgres, protocol: 'TCP' }],
      ...(selector === undefined ? {} : { selector }),
    },
  });
  return [
    // Without a selector: the leader itself writes where this one leads.
    facing(readWriteServiceName(name), undefined),
    facing(readOnlyServiceName(name), podSelector(name, 'standby')),
    facing(readServiceName(name), podSelector(name)),
    {
      ...base(cluster, podsServiceName(name)),
      spec: {
        type: 'ClusterIP',
        clusterIP: 'None',
        // Instances must find each other before they are ready.
        publishNotReadyAddresses: true,
        ports: [
          { name: 'postgres', port: port.postgres, targetPort: port.postgres, protocol: 'TCP' },
          { name: 'agent', port: port.agent, targetPort: port.agent, protocol: 'TCP' },
        ],
        selector: podSelector(name),
      },
    },
  ];
}

const base = (cluster: AcceptedCluster, name: string, annotations?: Record<string, string>) => ({
  apiVersion: 'v1',
  kind: 'Service',
  metadata: {
    name,
    namespace: cluster.metadata.namespace,
    labels: clusterLabels(cluster.metadata.name, cluster.clusterId),
    ...(annotations === undefined ? {} : { annotations }),
    ownerReferences: ownedBy(cluster),
  },
});

/** The slice of `-rw` as it is created: empty. From then on it belongs to the leader. */
export function leaderSlice(cluster: AcceptedCluster, service: Service, apis: ChosenApis): EndpointSlice {
  const { name, namespace } = cluster.metadata;
  return {
    apiVersion: apis.endpointSlice,
    kind: 'EndpointSlice',
    metadata: {
      name: leaderEndpointSliceName(name),
      namespace,
      labels: {
        ...clusterLabels(name, cluster.clusterId),
        'kubernetes.io/service-name': readWriteServiceName(name),
        'endpointslice.kubernetes.io/managed-by': 'koschei.dev',
      },
      ownerReferences: ownedBy(cluster),
    },
    addressType: service.spec?.clusterIP?.includes(':') === true ? 'IPv6' : 'IPv4',
    endpoints: [],
    ports: [{ name: 'postgres', port: port.postgres, protocol: 'TCP' }],
  };
}
