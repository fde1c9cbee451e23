import { createHash } from 'node:crypto';
import { instanceLabels, podsServiceName, statefulSetName } from '../../../api/names.ts';
import type { PgInstance } from '../../../api/pginstance.ts';
import { appliedHashAnnotation, renderedHash, type StatefulSet } from '../../../kube/index.ts';
import { operatorAnnotation } from '../../annotations.ts';
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
      annotations: { [operatorAnnotation.madeFrom]: madeFrom(instance, endpointSliceApi) },
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

/**
 * Whether the present StatefulSet was made from the same spec, by an operator that renders it differently. Then it stays
 * as it is: an upgrade of the operator restarts no pod.
 */
export function isOfOtherVersion(wanted: StatefulSet, found: StatefulSet | undefined): boolean {
  const mark = (set: StatefulSet | undefined) => set?.metadata.annotations?.[operatorAnnotation.madeFrom];
  return (
    found !== undefined &&
    mark(found) === mark(wanted) &&
    found.metadata.annotations?.[appliedHashAnnotation] !== renderedHash(wanted)
  );
}

/** Changes with everything that is to change the pod. The log level is not: it travels through etcd. */
function madeFrom(instance: PgInstance, endpointSliceApi: string): string {
  const { logLevel: _level, initMode: _mode, ...spec } = instance.spec;
  const text = JSON.stringify([canonical(spec), endpointSliceApi]);
  return createHash('sha256').update(text).digest('hex').slice(0, 16);
}

/** With the fields of objects in order of their names. */
function canonical(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(canonical);
  if (typeof value !== 'object' || value === null) return value;
  return Object.entries(value)
    .sort(([a], [b]) => (a < b ? -1 : 1))
    .map(([key, inner]) => [key, canonical(inner)]);
}

function presentLogLevel(found: StatefulSet | undefined): 'debug' | 'info' | 'warn' | undefined {
  const env = found?.spec?.template.spec?.containers.find(({ name }) => name === 'postgres')?.env;
  const level = env?.find(({ name }) => name === 'KOSCHEI_LOG_LEVEL')?.value;
  return level === 'debug' || level === 'info' || level === 'warn' ? level : undefined;
}
