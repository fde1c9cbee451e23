import { instanceLabels, podsServiceName, statefulSetName } from '../../../api/names.ts';
import type { PgInstance } from '../../../api/pginstance.ts';
import type { StatefulSet } from '../../../kube/index.ts';
import { ownedBy } from '../../owner.ts';
import { instanceSelector, podTemplate } from './pod.ts';

/**
 * The StatefulSet of one pod: Kubernetes starts a second pod on the volume only when the first is certainly gone.
 * `OnDelete`: a changed template takes effect when the cluster controller deletes the pod, in its own order.
 * @param found the present one: its log level stays, because the level in force travels through etcd
 */
export function statefulSet(
  instance: PgInstance,
  endpointSliceApi: string,
  found: StatefulSet | undefined,
): StatefulSet {
  const { spec, metadata } = instance;
  const labels = instanceLabels(spec.cluster, spec.clusterId, metadata.name);
  return {
    apiVersion: 'apps/v1',
    kind: 'StatefulSet',
    metadata: {
      name: statefulSetName(metadata.name),
      namespace: metadata.namespace,
      labels,
      ownerReferences: ownedBy(instance),
    },
    spec: {
      replicas: 1,
      serviceName: podsServiceName(spec.cluster),
      podManagementPolicy: 'Parallel',
      updateStrategy: { type: 'OnDelete' },
      revisionHistoryLimit: 2,
      selector: { matchLabels: instanceSelector(instance) },
      template: podTemplate({
        instance,
        endpointSliceApi,
        purpose: { do: 'run', logLevel: presentLogLevel(found) ?? spec.logLevel },
      }),
    },
  };
}

function presentLogLevel(found: StatefulSet | undefined): 'debug' | 'info' | 'warn' | undefined {
  const env = found?.spec?.template.spec?.containers.find(({ name }) => name === 'postgres')?.env;
  const level = env?.find(({ name }) => name === 'KOSCHEI_LOG_LEVEL')?.value;
  return level === 'debug' || level === 'info' || level === 'warn' ? level : undefined;
}
