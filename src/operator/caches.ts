import { label } from '../api/names.ts';
import {
  atVersion,
  type ChosenApis,
  type Job,
  type KubeClient,
  type KubeMetrics,
  type KubeObject,
  type PersistentVolumeClaim,
  type Pod,
  type Reflector,
  reflect,
  resources,
  type StatefulSet,
} from '../kube/index.ts';
import type { Logger } from '../log/logger.ts';

const byCluster = 'cluster';
const byInstance = 'instance';

const labelIndex = (name: string) => (object: KubeObject) => {
  const value = object.metadata.labels?.[name];
  return value === undefined ? [] : [`${object.metadata.namespace ?? ''}/${value}`];
};
const indexes = { [byCluster]: labelIndex(label.cluster), [byInstance]: labelIndex(label.instance) };

/** What the operator knows of the Kubernetes API: our own resources, and whatever carries our labels. */
export class Caches {
  readonly clusters: Reflector<KubeObject>;
  readonly instances: Reflector<KubeObject>;
  readonly claims: Reflector<PersistentVolumeClaim>;
  readonly pods: Reflector<Pod>;
  readonly statefulSets: Reflector<StatefulSet>;
  readonly jobs: Reflector<Job>;
  /** Objects that are only compared with what is wanted. */
  readonly others: readonly Reflector<KubeObject>[];

  constructor(client: KubeClient, apis: ChosenApis, log: Logger, metrics: KubeMetrics | undefined) {
    const common = { log, metrics, indexes };
    // By our own label and no other: `app.kubernetes.io/managed-by` is overwritten by tools that count objects as theirs.
    const ours = { ...common, labelSelector: label.cluster };
    this.clusters = reflect(client, resources.pgClusters, common);
    this.instances = reflect(client, resources.pgInstances, common);
    this.claims = reflect(client, resources.persistentVolumeClaims, ours);
    this.pods = reflect(client, resources.pods, ours);
    this.statefulSets = reflect(client, resources.statefulSets, ours);
    this.jobs = reflect(client, resources.jobs, ours);
    const { endpointSlice, podDisruptionBudget } = apis;
    this.others = [
      reflect(client, resources.services, ours),
      reflect(client, resources.secrets, ours),
      reflect(client, resources.serviceAccounts, ours),
      reflect(client, resources.roles, ours),
      reflect(client, resources.roleBindings, ours),
      reflect(client, atVersion(resources.endpointSlices, endpointSlice), ours),
      ...(podDisruptionBudget === undefined
        ? []
        : [reflect(client, atVersion(resources.podDisruptionBudgets, podDisruptionBudget), ours)]),
    ] as readonly Reflector<KubeObject>[];
  }

  get all(): readonly Reflector<KubeObject>[] {
    const { clusters, instances, claims, pods, statefulSets, jobs, others } = this;
    return [
      clusters,
      instances,
      claims,
      pods,
      statefulSets,
      jobs,
      ...others,
    ] as readonly Reflector<KubeObject>[];
  }

  /** The instances (not parsed) of the cluster `namespace/name`. */
  instancesOf = (key: string): KubeObject[] => this.instances.store.byIndex(byCluster, key);
  claimsOf = (key: string): PersistentVolumeClaim[] => this.claims.store.byIndex(byCluster, key);
  statefulSetsOf = (key: string): StatefulSet[] => this.statefulSets.store.byIndex(byCluster, key);
  podsOf = (key: string): Pod[] => this.pods.store.byIndex(byCluster, key);
  podsOfInstance = (key: string): Pod[] => this.pods.store.byIndex(byInstance, key);

  /** The cluster's other objects, by `Kind/name`. */
  objectsOf(key: string): Map<string, KubeObject> {
    return new Map(
      this.others
        .flatMap((reflector) => reflector.store.byIndex(byCluster, key))
        .map((object) => [`${object.kind}/${object.metadata.name}`, object]),
    );
  }

  /** Calls back with the key of the cluster, and of the instance if there is one, that a changed object belongs to. */
  onChange(changed: (cluster: string | undefined, instance: string | undefined) => void): void {
    for (const reflector of this.all) {
      reflector.subscribe(({ object, previous }) => {
        for (const each of previous === undefined ? [object] : [object, previous]) {
          const { namespace = '', name, labels } = each.metadata;
          const of = (value: string | undefined) =>
            value === undefined ? undefined : `${namespace}/${value}`;
          if (reflector === this.clusters) changed(`${namespace}/${name}`, undefined);
          else if (reflector === this.instances) changed(of(labels?.[label.cluster]), `${namespace}/${name}`);
          else changed(of(labels?.[label.cluster]), of(labels?.[label.instance]));
        }
      });
    }
  }
}
