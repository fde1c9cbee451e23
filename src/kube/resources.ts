import type {
  ConfigMap,
  CoreEvent,
  EndpointSlice,
  Job,
  KubeObject,
  Lease,
  Node,
  PersistentVolume,
  PersistentVolumeClaim,
  Pod,
  PodDisruptionBudget,
  Role,
  RoleBinding,
  Secret,
  Service,
  ServiceAccount,
  StatefulSet,
  StorageClass,
} from './types.ts';

/** A kind of object the way the API addresses it. `group` is empty for the core group. */
export interface Resource<T extends KubeObject = KubeObject> {
  readonly group: string;
  readonly version: string;
  readonly kind: string;
  readonly plural: string;
  readonly namespaced: boolean;
  /** Never set; tells the compiler the type of the objects. */
  readonly object?: T;
}

/** Declares a namespaced resource. */
export const namespaced = <T extends KubeObject>(
  group: string,
  version: string,
  kind: string,
  plural: string,
): Resource<T> => ({ group, version, kind, plural, namespaced: true });

const clusterScoped = <T extends KubeObject>(
  group: string,
  version: string,
  kind: string,
  plural: string,
): Resource<T> => ({ group, version, kind, plural, namespaced: false });

const koschei = 'koschei.dev';

/** Every resource that Koschei uses. Give `endpointSlices` and `podDisruptionBudgets` the version of `chooseApis`. */
export const resources = {
  pods: namespaced<Pod>('', 'v1', 'Pod', 'pods'),
  services: namespaced<Service>('', 'v1', 'Service', 'services'),
  secrets: namespaced<Secret>('', 'v1', 'Secret', 'secrets'),
  configMaps: namespaced<ConfigMap>('', 'v1', 'ConfigMap', 'configmaps'),
  persistentVolumeClaims: namespaced<PersistentVolumeClaim>(
    '',
    'v1',
    'PersistentVolumeClaim',
    'persistentvolumeclaims',
  ),
  serviceAccounts: namespaced<ServiceAccount>('', 'v1', 'ServiceAccount', 'serviceaccounts'),
  events: namespaced<CoreEvent>('', 'v1', 'Event', 'events'),
  persistentVolumes: clusterScoped<PersistentVolume>('', 'v1', 'PersistentVolume', 'persistentvolumes'),
  nodes: clusterScoped<Node>('', 'v1', 'Node', 'nodes'),
  namespaces: clusterScoped<KubeObject>('', 'v1', 'Namespace', 'namespaces'),
  statefulSets: namespaced<StatefulSet>('apps', 'v1', 'StatefulSet', 'statefulsets'),
  jobs: namespaced<Job>('batch', 'v1', 'Job', 'jobs'),
  roles: namespaced<Role>('rbac.authorization.k8s.io', 'v1', 'Role', 'roles'),
  roleBindings: namespaced<RoleBinding>('rbac.authorization.k8s.io', 'v1', 'RoleBinding', 'rolebindings'),
  endpointSlices: namespaced<EndpointSlice>('discovery.k8s.io', 'v1', 'EndpointSlice', 'endpointslices'),
  podDisruptionBudgets: namespaced<PodDisruptionBudget>(
    'policy',
    'v1',
    'PodDisruptionBudget',
    'poddisruptionbudgets',
  ),
  leases: namespaced<Lease>('coordination.k8s.io', 'v1', 'Lease', 'leases'),
  storageClasses: clusterScoped<StorageClass>('storage.k8s.io', 'v1', 'StorageClass', 'storageclasses'),
  customResourceDefinitions: clusterScoped<KubeObject>(
    'apiextensions.k8s.io',
    'v1',
    'CustomResourceDefinition',
    'customresourcedefinitions',
  ),
  pgClusters: namespaced<KubeObject>(koschei, 'v1', 'PgCluster', 'pgclusters'),
  pgInstances: namespaced<KubeObject>(koschei, 'v1', 'PgInstance', 'pginstances'),
  pgBackups: namespaced<KubeObject>(koschei, 'v1', 'PgBackup', 'pgbackups'),
} as const;

/** `v1` or `group/v1`. */
export const apiVersionOf = (resource: Resource): string =>
  resource.group === '' ? resource.version : `${resource.group}/${resource.version}`;

/** The same resource in another version of its group, e.g. `discovery.k8s.io/v1beta1`. Throws on another group. */
export function atVersion<T extends KubeObject>(resource: Resource<T>, apiVersion: string): Resource<T> {
  const [group, version] = apiVersion.includes('/') ? apiVersion.split('/') : ['', apiVersion];
  if (group !== resource.group || version === undefined || version === '') {
    throw new TypeError(`expected a version of the group "${resource.group}", found "${apiVersion}"`);
  }
  return { ...resource, version };
}

export interface PathOptions {
  readonly namespace?: string | undefined;
  readonly name?: string;
  readonly subresource?: string;
}

/** The URL path of one object, or of the collection when no name is given. Throws when a namespace is missing or the name cannot be one. */
export function resourcePath(resource: Resource, options: PathOptions = {}): string {
  const { namespace, name, subresource } = options;
  if (resource.namespaced && name !== undefined && (namespace === undefined || namespace === '')) {
    throw new TypeError(`${resource.kind} ${name} is addressed without a namespace`);
  }
  if (name === '' || name === '.' || name === '..') {
    // An empty name would address, and delete, the whole collection.
    throw new TypeError(`expected the name of a ${resource.kind}, found "${name}"`);
  }
  const parts =
    resource.group === '' ? ['api', resource.version] : ['apis', resource.group, resource.version];
  if (resource.namespaced && namespace !== undefined && namespace !== '') parts.push('namespaces', namespace);
  parts.push(resource.plural);
  if (name !== undefined) parts.push(name);
  if (subresource !== undefined) parts.push(subresource);
  return `/${parts.map(encodeURIComponent).join('/')}`;
}
