import { z } from 'zod';

/**
 * Conditions: how a resource says what it is doing and what it waits for. Types and reasons are closed lists, so that
 * alerts and scripts can rely on them; the message carries the details and says what a person can do.
 */
export const conditionTypes = {
  Accepted: 'The spec is valid and in force. False: the last accepted spec stays in force.',
  Ready: 'PgCluster: the primary takes writes. PgInstance: Postgres answers in its role.',
  Progressing: 'Koschei is changing something: creating, updating, failing over, cloning.',
  Degraded: 'It works, but with less redundancy than the spec asks for.',
  Paused: 'Automatic failover is off for a while, as a person asked: a lost primary is not replaced.',
  SynchronousReplication: 'As many synchronous standbys as the spec asks for confirm every commit.',
  EtcdReachable:
    'etcd answers the operator. False: nothing is changed, and a primary that cannot reach etcd either serves on while its standbys promise not to take its place.',
  VolumesBound: 'Every volume is bound and as large as the spec asks for.',
  SlotsHealthy:
    'Replication slots that were not made by Koschei are usable and hold no more WAL than Postgres keeps anyway.',
  SettingsApplied: 'Every Postgres setting of the spec is in force on every instance.',
} as const;
export type ConditionType = keyof typeof conditionTypes;

export const conditionReasons = {
  // Accepted
  SpecAccepted: 'The spec is valid and in force.',
  InvalidSpec: 'A field has a value that cannot work.',
  ImmutableField: 'The change touches a field that cannot be changed after creation.',
  StorageShrink: 'The change asks for a smaller volume; volumes only grow.',
  MajorUpgradeRefused: 'The change asks for another major version of Postgres.',
  NameTaken: 'An object of a name that Koschei needs exists and is not ours.',
  SecretMissing: 'A Secret named by the spec does not exist or lacks a key.',
  // Ready, Progressing, Degraded
  Creating: 'The cluster is being created for the first time.',
  PrimaryReady: 'The primary takes writes.',
  InstanceReady: 'Postgres answers in its role.',
  NoPrimary: 'No instance takes writes at the moment.',
  FailingOver: 'The primary is lost and a standby takes over.',
  SwitchingOver: 'The primary hands over to a standby as planned.',
  Updating: 'Instances are restarted one by one for a changed spec or image.',
  ScalingUp: 'Standbys are being added.',
  ScalingDown: 'Standbys are being removed.',
  ReplacingInstance: 'An instance whose node is lost is replaced by another one on another node.',
  Cloning: 'A standby copies the data of another instance.',
  Rewinding: 'A former primary goes back to where it parted from the new one.',
  Resizing: 'Volumes are growing.',
  Restarting: 'Postgres is being restarted.',
  Deleting: 'The resource is being deleted.',
  Stable: 'Nothing is being changed.',
  SwitchoverFailed: 'Nothing is being changed; the last switchover asked for was refused or failed.',
  FailoverRefused: 'Nothing is being changed; the failover asked for was refused.',
  AllInstancesReady: 'Every instance works.',
  InstancesNotReady: 'Some instances do not work.',
  ServiceOfLaterTerm: 'The `-rw` Service does not lead to the primary: it says that a later term owns it.',
  InstanceUnreachable: 'The agent of the instance does not answer.',
  PostgresNotRunning: 'Postgres does not run on the instance.',
  ImagePullFailed: 'The image of Postgres or of Koschei cannot be pulled.',
  NoPostgresInImage: 'The image has no usable Postgres of the wanted version for glibc.',
  InitFailed: 'The init Job failed; its log says why.',
  WaitingForNode: 'The volume is tied to a node that is away.',
  WaitingForScheduling: 'No node takes the pod: resources, affinity, taints or volumes.',
  WaitingForDecision: 'The state in etcd is lost or too old; a person must name the instance to go on with.',
  CrashLooping: 'A container ends again and again.',
  QuotaExceeded: 'A quota or an admission rule refused an object.',
  Forbidden: 'The operator lacks a permission it needs.',
  KubernetesApiError: 'The Kubernetes API refused or failed a request; it is being retried.',
  DiskFull: 'A volume has no free space.',
  DiskStalled: 'A volume does not answer writes.',
  // SynchronousReplication
  InSync: 'The wanted number of synchronous standbys confirms every commit.',
  NotRequested: 'The spec asks for no synchronous standby.',
  NoSpareForSync: 'Every standby is synchronous: when one fails, nothing can replace it.',
  WaitingForStandby: 'Too few standbys: with `durability: required`, commits wait.',
  DegradedToAsync: 'Too few standbys: with `durability: preferred`, commits do not wait.',
  SyncOnSameNode: 'A synchronous standby runs on the node of the primary.',
  SyncInSameZone:
    'Every synchronous standby runs in the zone of the primary, although there are instances in others.',
  // Paused
  FailoverPaused: 'Automatic failover is paused until the time in `spec.paused`.',
  NotPaused: 'Automatic failover is not paused.',
  // EtcdReachable
  EtcdHealthy: 'etcd answers and takes writes.',
  EtcdUnreachable: 'etcd does not answer, or has no quorum.',
  EtcdNoSpace: 'etcd answers, but its database is full: it takes no writes.',
  EtcdRefused: 'etcd answers but refuses: certificate, user or permission.',
  EtcdStateLost: 'The state of this cluster is gone from etcd.',
  EtcdStateStale: 'What etcd knows of this cluster is older than its data.',
  // VolumesBound
  AllBound: 'Every volume is bound.',
  VolumeNotBound: 'A PersistentVolumeClaim is not bound.',
  VolumeLost: 'A PersistentVolumeClaim has lost its volume.',
  ResizeRefused: 'The storage class cannot grow the volume.',
  // SettingsApplied
  AllApplied: 'Every setting is in force.',
  UnknownParameter: 'Postgres does not know a parameter, or refuses its value.',
  SettingOverridden: 'A setting that Koschei owns is set somewhere else.',
  RestartPending: 'A setting takes effect at the next restart.',
  // SlotsHealthy
  SlotsInOrder: 'No slot holds much WAL, and none has lost any.',
  SlotHoldsWal: 'A slot holds more WAL than `max_wal_size`: its consumer is away or slow.',
  SlotLost: 'A slot has lost what its consumer needs.',
  // any
  Unknown: 'There is no recent information.',
} as const;
export type ConditionReason = keyof typeof conditionReasons;

export const ConditionStatus = z.enum(['True', 'False', 'Unknown']);
export type ConditionStatus = z.infer<typeof ConditionStatus>;

/**
 * A condition as stored. Type and reason are plain strings here, so that an operator can read what a newer one wrote;
 * writers use {@link NewCondition}.
 */
export const Condition = z.object({
  type: z.string().max(64).meta({ description: 'What is judged; one entry per type.' }),
  status: ConditionStatus.meta({ description: 'Whether it holds.' }),
  reason: z.string().max(64).meta({ description: 'Why, as one word from a closed list.' }),
  message: z
    .string()
    .max(4096)
    .meta({ description: 'What was expected, what was found, and what a person can do.' }),
  observedGeneration: z
    .int()
    .optional()
    .meta({ description: 'The generation of the spec that was judged.', format: 'int64' }),
  lastTransitionTime: z.iso.datetime().meta({ description: 'When the status last changed.' }),
});
export type Condition = z.infer<typeof Condition>;

/** What the status of every kind has. */
export const observedGeneration = z
  .int()
  .optional()
  .meta({ description: 'The generation of the spec that this status is about.', format: 'int64' });
export const conditions = z
  .array(Condition)
  .max(32)
  .optional()
  .meta({
    description: 'What is being done and what is waited for, one entry per type.',
    'x-kubernetes-list-type': 'map',
    'x-kubernetes-list-map-keys': ['type'],
  });

export interface NewCondition {
  type: ConditionType;
  status: ConditionStatus;
  reason: ConditionReason;
  message: string;
  observedGeneration?: number;
}

/**
 * Returns the list with the condition set. `lastTransitionTime` becomes `now` only when the status changes (the rule
 * of the Kubernetes API conventions); when nothing changes at all, the given list itself is returned.
 */
export function setCondition(
  list: readonly Condition[],
  condition: NewCondition,
  now: Date,
): readonly Condition[] {
  const before = list.find((entry) => entry.type === condition.type);
  const { observedGeneration = before?.observedGeneration, ...rest } = condition;
  const after: Condition = {
    ...rest,
    ...(observedGeneration === undefined ? {} : { observedGeneration }),
    lastTransitionTime:
      before?.status === condition.status
        ? before.lastTransitionTime
        : now.toISOString().replace(/\.\d+Z$/, 'Z'),
  };
  if (before === undefined) return [...list, after];
  const same =
    before.status === after.status &&
    before.reason === after.reason &&
    before.message === after.message &&
    before.observedGeneration === after.observedGeneration;
  return same ? list : list.map((entry) => (entry === before ? after : entry));
}

/** The condition of a type, if it was ever set. */
export const findCondition = (
  list: readonly Condition[] | undefined,
  type: ConditionType,
): Condition | undefined => list?.find((entry) => entry.type === type);
