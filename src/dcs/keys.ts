import { createHash } from 'node:crypto';

/** Names of the keys of one cluster in etcd, and of the user that may touch them. */
export interface ClusterKeys {
  /** Ends in `/`. */
  readonly prefix: string;
  /** User and role in the managed etcd, and common name of the certificate, that open `prefix` and nothing else. */
  readonly user: string;
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
    user: userOf(prefix),
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

/**
 * Made from the whole prefix, not the cluster's id alone: an id comes from labels of volumes, which whoever may write in
 * one namespace can copy from another, and must not open another cluster's state. Never a name of etcd's own (`root`).
 */
const userOf = (prefix: string): string =>
  `cluster-${createHash('sha256').update(prefix).digest('hex').slice(0, 40)}`;
