/** Names of the keys of one cluster in etcd. */
export interface ClusterKeys {
  /** Ends in `/`. */
  readonly prefix: string;
  readonly initialize: string;
  readonly config: string;
  readonly leader: string;
  readonly sync: string;
  readonly request: string;
  member(instance: string): string;
  command(instance: string): string;
  history(term: number): string;
}

/** The keys of the cluster `clusterId`. The id is part of the prefix: a cluster made anew under an old name is another one. */
export function clusterKeys(namespace: string, cluster: string, clusterId: string): ClusterKeys {
  const prefix = `/koschei/${namespace}/${cluster}/${clusterId}/`;
  return {
    prefix,
    initialize: `${prefix}initialize`,
    config: `${prefix}config`,
    leader: `${prefix}leader`,
    sync: `${prefix}sync`,
    request: `${prefix}request`,
    member: (instance) => `${prefix}members/${instance}`,
    command: (instance) => `${prefix}command/${instance}`,
    // Zero-padded, so that etcd's lexical order is the numerical one.
    history: (term) => `${prefix}history/${String(term).padStart(10, '0')}`,
  };
}
