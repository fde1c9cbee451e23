import type { PgInstance } from '../../api/pginstance.ts';
import type { ClusterView } from '../../dcs/index.ts';
import type { ChosenApis, Job, PersistentVolumeClaim, Pod, StatefulSet } from '../../kube/index.ts';
import type { Observed } from '../action.ts';

/** What is known about the node that the instance's volume is tied to. */
export interface NodeFacts {
  readonly name: string;
  readonly state: 'ready' | 'not-ready' | 'gone';
  /** When it ceased to be ready, as the API says, ms since the epoch; undefined: not known. */
  readonly since?: number | undefined;
}

/** An action of the last pass that the API refused. */
export interface Failure {
  /** `Kind/name` of the object. */
  readonly object: string;
  readonly reason: 'forbidden' | 'invalid' | 'name-taken' | 'other';
  readonly message: string;
}

/** Everything a plan for one instance may know. */
export interface InstanceSnapshot {
  readonly now: Date;
  readonly instance: PgInstance;
  readonly claims: {
    readonly data?: PersistentVolumeClaim | undefined;
    readonly wal?: PersistentVolumeClaim | undefined;
  };
  readonly job: Job | undefined;
  readonly statefulSet: StatefulSet | undefined;
  readonly pod: Pod | undefined;
  /** Pods of the init Job. */
  readonly initPods: readonly Pod[];
  readonly etcd: Observed<ClusterView>;
  /** The cluster has had a leader, or another volume of it holds data: a new database must not be made. */
  readonly clusterHasLived: boolean;
  /** Asked for only while the instance is not ready. */
  readonly node: NodeFacts | undefined;
  readonly apis: ChosenApis;
  /** Milliseconds since the lag in the status was last changed; undefined: not by this process. */
  readonly lagChangedMsAgo: number | undefined;
  readonly failure: Failure | undefined;
}
