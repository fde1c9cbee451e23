import {
  apiVersion,
  etcdTlsSecretName,
  instanceLabels,
  instanceName,
  resources,
} from '../../../api/names.ts';
import type { PgClusterSpec } from '../../../api/pgcluster.ts';
import type { PgInstance, PgInstanceSpec } from '../../../api/pginstance.ts';
import type { KubeObject } from '../../../kube/index.ts';
import { ownedBy } from '../../owner.ts';
import type { AcceptedCluster, Installation } from '../snapshot.ts';

/** The image of Postgres that a cluster runs. */
export const imageOf = (spec: PgClusterSpec, installation: Installation): string =>
  spec.postgres.image ??
  installation.postgresImageTemplate.replaceAll('{version}', String(spec.postgres.version));

/**
 * A PgInstance as the spec in force wants it. What was decided at its creation stays: the agent's image, so that an
 * upgrade of the operator changes no pod until somebody asks for it, and how its volume is filled.
 */
export function pgInstance(
  cluster: AcceptedCluster,
  installation: Installation,
  ordinal: number,
  found: PgInstance | undefined,
  initMode: PgInstanceSpec['initMode'],
): KubeObject & { spec: PgInstanceSpec } {
  const { name, namespace } = cluster.metadata;
  const { spec } = cluster;
  return {
    apiVersion,
    kind: resources.PgInstance.kind,
    metadata: {
      name: instanceName(name, ordinal),
      namespace,
      labels: instanceLabels(name, cluster.clusterId, instanceName(name, ordinal)),
      ownerReferences: ownedBy(cluster),
    },
    spec: {
      cluster: name,
      clusterId: cluster.clusterId,
      ordinal,
      agentImage: found?.spec.agentImage ?? installation.agentImage,
      postgres: { version: spec.postgres.version, image: imageOf(spec, installation) },
      storage: spec.storage,
      ...(spec.resources === undefined ? {} : { resources: spec.resources }),
      placement: spec.placement,
      ...(spec.imagePullSecrets === undefined ? {} : { imagePullSecrets: spec.imagePullSecrets }),
      ...(spec.imagePullPolicy === undefined ? {} : { imagePullPolicy: spec.imagePullPolicy }),
      ...(spec.podMetadata === undefined ? {} : { podMetadata: spec.podMetadata }),
      logLevel: spec.logLevel,
      security: spec.security,
      etcd: spec.etcd ?? {
        endpoints: [...installation.etcdEndpoints],
        tlsSecret: etcdTlsSecretName(name),
      },
      initMode: found?.spec.initMode ?? initMode,
    },
  };
}
