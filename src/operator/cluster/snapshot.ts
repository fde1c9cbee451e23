import { leaderEndpointSliceName } from '../../api/names.ts';
import type { PgCluster, UnreadPgCluster } from '../../api/pgcluster.ts';
import type { PgInstance } from '../../api/pginstance.ts';
import type { ClusterView } from '../../dcs/index.ts';
import type {
  ChosenApis,
  EndpointSlice,
  KubeObject,
  PersistentVolumeClaim,
  Pod,
  Secret,
  StatefulSet,
} from '../../kube/index.ts';
import type { Observed } from '../action.ts';
import type { Failure } from '../instance/snapshot.ts';
import type { Fleet } from './fleet.ts';

/** What the operator was started with, as far as plans depend on it. */
export interface Installation {
  /** Image of the agent for instances that are made now. */
  readonly agentImage: string;
  /** `{version}` stands for the major version. */
  readonly postgresImageTemplate: string;
  /** Client URLs of the managed etcd. */
  readonly etcdEndpoints: readonly string[];
}

/** What etcd says about a cluster, and since when the leader has been silent. */
export interface EtcdFacts {
  readonly view: ClusterView;
  /** Since the leader key last changed, ms, on this observer's clock. */
  readonly leaderSilentMs: number;
  /** The cluster's user and role exist (always true with an etcd of the user's own). */
  readonly granted: boolean;
  /** The managed etcd takes no writes, because its database has been full. */
  readonly noSpace?: boolean;
}

/** What the operator remembers of this cluster between passes; lost when it restarts. */
export interface Memory {
  /** The last switchover that was asked for, and the term in which it was; undefined: none. */
  readonly requested?: { readonly msAgo: number; readonly term: number | undefined } | undefined;
  /** For how long the slice of `-rw` has had endpoints that lead nowhere; undefined: it has none. */
  readonly staleForMs?: number | undefined;
  /** How often each instance was told to restart for the same settings: key `instance settings generation`. */
  readonly restarts: ReadonlyMap<string, number>;
}

/** Fresh random values, used only by what is made for the first time. */
export interface Randomness {
  /** 16 lower-case letters and digits. */
  readonly clusterId: string;
  readonly password: string;
  /** 16 bytes in hexadecimal, for the verifier of a password. */
  readonly salt: string;
  readonly requestId: string;
}

/** Everything a plan for one cluster may know. */
export interface ClusterSnapshot {
  readonly now: Date;
  readonly cluster: UnreadPgCluster;
  readonly instances: readonly PgInstance[];
  /** Volumes in the namespace that carry the cluster's name. */
  readonly claims: readonly PersistentVolumeClaim[];
  readonly pods: readonly Pod[];
  /** Zone by node, of the nodes that pods run on; `''`: none. A node that could not be asked for is left out. */
  readonly zones: ReadonlyMap<string, string>;
  readonly statefulSets: readonly StatefulSet[];
  /** The cluster's other objects, by `Kind/name`. */
  readonly objects: ReadonlyMap<string, KubeObject>;
  readonly etcd: Observed<EtcdFacts>;
  /** Undefined: no instance waits for its node for so long that it would have to be known. */
  readonly fleet?: Observed<Fleet> | undefined;
  /** Certificate of the managed etcd's authority; undefined before there is one. */
  readonly etcdAuthority: string | undefined;
  readonly apis: ChosenApis;
  readonly installation: Installation;
  readonly memory: Memory;
  readonly random: Randomness;
  /** What the API refused in the last pass. */
  readonly failure?: Failure | undefined;
}

/** A cluster whose spec in force is known, with the id that its objects carry. */
export interface AcceptedCluster {
  readonly metadata: PgCluster['metadata'];
  readonly apiVersion: string;
  readonly kind: string;
  readonly spec: PgCluster['spec'];
  readonly status: PgCluster['status'];
  readonly clusterId: string;
}

/** A Secret of the cluster. */
export const secretOf = (snapshot: ClusterSnapshot, name: string): Secret | undefined =>
  snapshot.objects.get(`Secret/${name}`) as Secret | undefined;

/** The slice of `-rw`, which the leader writes. */
export const sliceOf = (snapshot: ClusterSnapshot): EndpointSlice | undefined =>
  snapshot.objects.get(`EndpointSlice/${leaderEndpointSliceName(snapshot.cluster.metadata.name)}`) as
    | EndpointSlice
    | undefined;
