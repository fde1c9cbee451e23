import { dataClaimName, instanceLabels, walClaimName } from '../../../api/names.ts';
import type { PgInstance } from '../../../api/pginstance.ts';
import { parseQuantity } from '../../../api/quantity.ts';
import type { PersistentVolumeClaim } from '../../../kube/index.ts';
import { operatorAnnotation } from '../../annotations.ts';

/** What a volume carries about its history; it outlives the instance. */
export interface ClaimMarks {
  readonly initialized?: string | undefined;
}

/** The claims of an instance. They have no owner: volumes outlive the objects that use them. */
export function desiredClaims(
  instance: PgInstance,
  found: {
    readonly data?: PersistentVolumeClaim | undefined;
    readonly wal?: PersistentVolumeClaim | undefined;
  },
  marks: ClaimMarks,
): PersistentVolumeClaim[] {
  const { storage } = instance.spec;
  const { name } = instance.metadata;
  const annotations = {
    [operatorAnnotation.postgresVersion]: String(instance.spec.postgres.version),
    ...(marks.initialized === undefined ? {} : { [operatorAnnotation.initialized]: marks.initialized }),
  };
  return [
    claim(instance, dataClaimName(name), storage, found.data, annotations),
    ...(storage.wal === undefined ? [] : [claim(instance, walClaimName(name), storage.wal, found.wal)]),
  ];
}

function claim(
  instance: PgInstance,
  name: string,
  storage: { readonly size: string; readonly storageClassName?: string | undefined },
  found: PersistentVolumeClaim | undefined,
  annotations?: Record<string, string>,
): PersistentVolumeClaim {
  const { spec, metadata } = instance;
  // Fields of a bound claim cannot be changed; an adopted one keeps its class.
  const storageClassName = found === undefined ? storage.storageClassName : found.spec?.storageClassName;
  return {
    apiVersion: 'v1',
    kind: 'PersistentVolumeClaim',
    metadata: {
      name,
      namespace: metadata.namespace,
      labels: instanceLabels(spec.cluster, spec.clusterId, metadata.name),
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec: {
      accessModes: found?.spec?.accessModes ?? ['ReadWriteOnce'],
      ...(storageClassName === undefined ? {} : { storageClassName }),
      resources: { requests: { storage: larger(storage.size, found?.spec?.resources?.requests?.storage) } },
    },
  };
}

/** The wanted size, or the present request when that is larger: volumes only grow. */
function larger(wanted: string, present: string | undefined): string {
  if (present === undefined) return wanted;
  const [a, b] = [parseQuantity(wanted), parseQuantity(present)];
  return a !== undefined && b !== undefined && b >= a ? present : wanted;
}

/** Whether the volume of a claim is as large as the claim asks for. */
export function isGrown(claim: PersistentVolumeClaim): boolean {
  const wanted = parseQuantity(claim.spec?.resources?.requests?.storage ?? '');
  const present = parseQuantity(claim.status?.capacity?.storage ?? '');
  return wanted === undefined || (present !== undefined && present >= wanted);
}
