import type { CommandValue, ConfigValue, RequestValue } from '../dcs/index.ts';
import type { EventNote, KubeObject, Secret } from '../kube/index.ts';
import { needsApply, type ObjectRef, type Resource, withAppliedHash } from '../kube/index.ts';

/** What certificate a TLS Secret is to get. */
export interface CertificateOrder {
  /** `cluster`: the cluster's own authority; `etcd`: that of the managed etcd. */
  readonly authority: 'cluster' | 'etcd';
  readonly commonName: string;
  readonly dnsNames: readonly string[];
  readonly ipAddresses: readonly string[];
  readonly usages: readonly ('server' | 'client')[];
}

/**
 * One step towards what is wanted, as plain data. `because` says why, for logs and Events. Steps are executed in
 * order; every prefix of a plan is safe, because each pass starts from what it finds.
 */
export type Action = { readonly because: string } & (
  | { readonly do: 'apply'; readonly object: KubeObject }
  /** Never overwrites: of things that are made once, such as passwords. */
  | { readonly do: 'create'; readonly object: KubeObject }
  | { readonly do: 'create-authority'; readonly secret: Secret; readonly commonName: string }
  /** `secret` has everything but the certificate, the key and the authority's certificate. */
  | { readonly do: 'issue'; readonly secret: Secret; readonly order: CertificateOrder }
  | {
      readonly do: 'annotate';
      readonly resource: Resource;
      readonly ref: ObjectRef;
      readonly annotations: Readonly<Record<string, string | null>>;
      readonly labels?: Readonly<Record<string, string | null>> | undefined;
      /** What people are told of it. */
      readonly event?: EventNote | undefined;
    }
  | { readonly do: 'delete'; readonly resource: Resource; readonly ref: ObjectRef; readonly uid: string }
  /** Takes endpoints that lead nowhere off the slice of `-rw`, after looking again. */
  | { readonly do: 'clear-slice'; readonly ref: ObjectRef }
  | { readonly do: 'add-finalizer' }
  | { readonly do: 'remove-finalizer' }
  | { readonly do: 'grant-etcd' }
  | { readonly do: 'forget-etcd' }
  /** Removes what etcd says about a cluster, but for what its agents announce. */
  | { readonly do: 'clear-state' }
  | { readonly do: 'write-config'; readonly value: ConfigValue; readonly expect: string }
  /** `replaces`: the revision of a request that is given up for this one. */
  | { readonly do: 'request'; readonly value: RequestValue; readonly replaces?: string | undefined }
  | { readonly do: 'command'; readonly instance: string; readonly value: CommandValue }
);

/** Actions that are executed only if a second plan, made from what etcd says just before, contains them, too. */
export const isDangerous = (action: Action): boolean =>
  ['delete', 'request', 'command', 'forget-etcd', 'clear-state'].includes(action.do) ||
  // What a volume is marked with decides whether an instance starts on it.
  (action.do === 'annotate' && action.resource.kind === 'PersistentVolumeClaim');

/** What identifies an action from one plan to the next. */
export function actionKey(action: Action): string {
  switch (action.do) {
    case 'apply':
    case 'create':
      return `${action.do} ${action.object.kind}/${action.object.metadata.name}`;
    case 'create-authority':
    case 'issue':
      return `${action.do} ${action.secret.metadata.name}`;
    case 'delete':
      return `${action.do} ${action.resource.kind}/${action.ref.name} ${action.uid}`;
    case 'annotate':
      return `${action.do} ${action.resource.kind}/${action.ref.name}`;
    case 'request':
      return `${action.do} ${action.value.kind} ${action.value.to ?? ''}`;
    case 'command':
      return `${action.do} ${action.value.do} ${action.instance}`;
    default:
      return action.do;
  }
}

/** The apply that brings the object up to date, or nothing when it is. */
export function applied(
  rendered: KubeObject,
  found: KubeObject | undefined,
  because: string,
): Extract<Action, { do: 'apply' }>[] {
  if (found !== undefined && !needsApply(withAppliedHash(rendered), found)) return [];
  return [{ do: 'apply', object: rendered, because }];
}

/** Something that could not be known, which is never the same as something that is not there. */
export type Observed<T> =
  | { readonly known: true; readonly value: T }
  | { readonly known: false; readonly reason: UnknownReason; readonly message: string };
export type UnknownReason = 'EtcdUnreachable' | 'EtcdRefused' | 'SecretMissing' | 'Unknown';
