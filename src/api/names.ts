/**
 * Every name that more than one part of Koschei has to agree on: the API group, labels, annotations, object names,
 * ports and paths. Names are computed, never generated, so that a repeated reconcile finds what the last one made.
 */

/** API group and version of all our resources. */
export const group = 'koschei.dev';
export const version = 'v1';
export const apiVersion = `${group}/${version}`;

/** One of our resources, as the Kubernetes API names it. */
export interface ResourceName {
  kind: string;
  plural: string;
  singular: string;
  shortName: string;
}
export const resources = {
  PgCluster: { kind: 'PgCluster', plural: 'pgclusters', singular: 'pgcluster', shortName: 'pgc' },
  PgInstance: { kind: 'PgInstance', plural: 'pginstances', singular: 'pginstance', shortName: 'pgi' },
  PgBackup: { kind: 'PgBackup', plural: 'pgbackups', singular: 'pgbackup', shortName: 'pgb' },
} as const satisfies Record<string, ResourceName>;

/** Field managers of server-side apply: the operator's objects and statuses, and what an agent writes. */
export const fieldManager = 'koschei-operator';
export const agentFieldManager = 'koschei-agent';

export const label = {
  name: 'app.kubernetes.io/name',
  managedBy: 'app.kubernetes.io/managed-by',
  component: 'app.kubernetes.io/component',
  cluster: 'koschei.dev/cluster',
  clusterId: 'koschei.dev/cluster-id',
  instance: 'koschei.dev/instance',
  role: 'koschei.dev/role',
  /** On the claims of an instance that was replaced because its node was lost. */
  detached: 'koschei.dev/detached',
} as const;

/** Labels outside our group whose values on pods are Koschei's. */
export const reservedLabels = [label.name, label.managedBy, label.component] as const;

/** Whether a label of pods is Koschei's to set, so that people may not. */
export const isReservedLabel = (key: string): boolean =>
  key.startsWith(`${group}/`) || reservedLabels.some((each) => each === key);

/** Values of the role label; the agent sets it on its own pod. */
/** `delayed`: a standby that shows old data, which no Service for reads from standbys selects. */
export type RoleLabel = 'primary' | 'standby' | 'delayed';

export const annotation = {
  /** A person names the instance that may become primary although the state in etcd is lost, or says `auto`. */
  adoptPrimary: 'koschei.dev/adopt-primary',
  /** A person asks for a switchover: to the instance named, or to `any`. Removed when it is asked for. */
  switchover: 'koschei.dev/switchover',
  /** A person asks for a failover that may lose commits. Removed when it is asked for, or refused. */
  failover: 'koschei.dev/failover',
  /** A person asks for an instance's data to be copied anew from the primary. Removed when it is passed on. */
  reclone: 'koschei.dev/reclone',
  /** A person asks for the agents to be replaced by those of the operator's version. Removed when it is passed on. */
  upgradeAgents: 'koschei.dev/upgrade-agents',
  /** On the EndpointSlice of `-rw`: the term of the leader that wrote it. */
  term: 'koschei.dev/term',
} as const;

/** Held by a PgCluster until its volumes are dealt with as `deletionPolicy` says. */
export const finalizer = 'koschei.dev/volumes';

/** Cluster names are DNS labels that begin with a letter (Services require it) of at most this many characters. */
export const maxClusterNameLength = 40;
export const clusterNamePattern = '^[a-z]([-a-z0-9]*[a-z0-9])?$';

/** PgInstance, StatefulSet and data PVC. Ordinals count from 1. */
export const instanceName = (cluster: string, ordinal: number): string => `${cluster}-${ordinal}`;

/** The ordinal in an instance name of this cluster, or undefined when the name is not one of this cluster's. */
export function ordinalOf(cluster: string, instance: string): number | undefined {
  if (!instance.startsWith(`${cluster}-`)) return undefined;
  const digits = instance.slice(cluster.length + 1);
  return /^[1-9][0-9]{0,5}$/.test(digits) ? Number(digits) : undefined;
}

export const statefulSetName = (instance: string): string => instance;
export const dataClaimName = (instance: string): string => instance;
export const walClaimName = (instance: string): string => `${instance}-wal`;
export const initJobName = (instance: string): string => `${instance}-init`;
/** The only pod of the instance's StatefulSet of one. */
export const podName = (instance: string): string => `${instance}-0`;

/** Headless Service that publishes addresses of pods that are not ready, too. */
export const podsServiceName = (cluster: string): string => `${cluster}-pods`;
/** Stable DNS name of an instance's pod inside the Kubernetes cluster. */
export const podHost = (cluster: string, instance: string, namespace: string): string =>
  `${podName(instance)}.${podsServiceName(cluster)}.${namespace}.svc`;

/** The primary. Has no selector: the leader writes its EndpointSlice. */
export const readWriteServiceName = (cluster: string): string => `${cluster}-rw`;
/** Standbys only. */
export const readOnlyServiceName = (cluster: string): string => `${cluster}-ro`;
/** Any instance that answers queries. */
export const readServiceName = (cluster: string): string => `${cluster}-r`;
export const leaderEndpointSliceName = (cluster: string): string => `${readWriteServiceName(cluster)}-leader`;

/** ServiceAccount, Role and RoleBinding of a cluster's agents. */
export const agentAccountName = (cluster: string): string => `${cluster}-agent`;
export const disruptionBudgetName = (cluster: string): string => cluster;

export const appSecretName = (cluster: string): string => `${cluster}-app`;
export const caSecretName = (cluster: string): string => `${cluster}-ca`;
export const serverTlsSecretName = (cluster: string): string => `${cluster}-server-tls`;
export const replicationTlsSecretName = (cluster: string): string => `${cluster}-replication-tls`;
export const etcdTlsSecretName = (cluster: string): string => `${cluster}-etcd-tls`;

/** Keys inside the TLS Secrets. */
export const tlsKey = { cert: 'tls.crt', key: 'tls.key', ca: 'ca.crt' } as const;
/** Keys inside the CA Secret. */
export const caKey = { cert: 'ca.crt', key: 'ca.key' } as const;

/** The role that applications log in as, and the database that it owns. */
export const appUser = 'app';

/** The Postgres role that standbys connect as, and the common name of its certificate. */
export const replicationUser = 'koschei_replication';

export const port = { postgres: 5432, agent: 8008 } as const;

export const path = {
  data: '/var/lib/koschei',
  pgdata: '/var/lib/koschei/pgdata',
  agentState: '/var/lib/koschei/agent',
  lock: '/var/lib/koschei/agent/lock',
  wal: '/var/lib/koschei-wal',
  programs: '/koschei',
  sockets: '/run/koschei',
  serverTls: '/etc/koschei/server',
  replicationTls: '/etc/koschei/replication',
  etcdTls: '/etc/koschei/etcd',
} as const;

/** Labels that every object of a cluster carries. */
export const clusterLabels = (cluster: string, clusterId: string): Record<string, string> => ({
  [label.name]: 'koschei',
  [label.managedBy]: 'koschei',
  [label.cluster]: cluster,
  [label.clusterId]: clusterId,
});

/** Labels that every object of one instance carries. */
export const instanceLabels = (
  cluster: string,
  clusterId: string,
  instance: string,
): Record<string, string> => ({
  ...clusterLabels(cluster, clusterId),
  [label.instance]: instance,
});

/** Selects all instances of a cluster, or those of one role. */
export const clusterSelector = (cluster: string, role?: RoleLabel): Record<string, string> => ({
  [label.cluster]: cluster,
  ...(role === undefined ? {} : { [label.role]: role }),
});
