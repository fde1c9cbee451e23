import { createHash } from 'node:crypto';
import { initJobName, instanceLabels } from '../../../api/names.ts';
import type { PgInstance } from '../../../api/pginstance.ts';
import type { Job } from '../../../kube/index.ts';
import { operatorAnnotation } from '../../annotations.ts';
import { ownedBy } from '../../owner.ts';
import { podTemplate } from './pod.ts';

export type InitMode = 'initdb' | 'clone';

/** The Job that fills an empty volume. Its first pod also decides the node of a volume that waits for one. */
export function initJob(instance: PgInstance, mode: InitMode, endpointSliceApi: string): Job {
  const { spec, metadata } = instance;
  const template = podTemplate({ instance, endpointSliceApi, purpose: { do: 'init', mode } });
  const hash = createHash('sha256').update(JSON.stringify(template)).digest('hex').slice(0, 16);
  return {
    apiVersion: 'batch/v1',
    kind: 'Job',
    metadata: {
      name: initJobName(metadata.name),
      namespace: metadata.namespace,
      labels: instanceLabels(spec.cluster, spec.clusterId, metadata.name),
      annotations: { [operatorAnnotation.template]: hash },
      ownerReferences: ownedBy(instance),
    },
    spec: {
      // Kubernetes waits 10 s, 20 s, ... between the pods of a Job; then the operator starts another Job.
      backoffLimit: 2,
      template,
    },
  };
}
