import { z } from 'zod';
import { conditions, observedGeneration } from './conditions.ts';
import { durationSchema } from './duration.ts';
import { apiVersion, resources } from './names.ts';
import {
  Etcd,
  imagePullPolicy,
  imagePullSecrets,
  logLevel,
  ObjectMeta,
  Placement,
  PodMetadata,
  PostgresVersion,
  Resources,
  Security,
  Storage,
} from './parts.ts';
import { sizeSchema } from './quantity.ts';

const Postgres = z.object({
  version: PostgresVersion.default(17).meta({
    description: 'Major version of Postgres. Cannot be changed: a major upgrade is not supported.',
    'x-kubernetes-validations': [
      { rule: 'self == oldSelf', message: 'the major version cannot be changed after creation' },
    ],
  }),
  image: z.string().min(1).max(512).optional().meta({
    description:
      'Image with Postgres of this major version, based on Debian (glibc); `postgres:<version>` if left out.',
  }),
  parameters: z
    .record(
      z.string(),
      z
        .union([z.int(), z.string().max(4096)])
        .transform(String)
        .meta({
          'x-kubernetes-int-or-string': true,
          description: 'Value as in postgresql.conf, without quotes.',
        }),
    )
    .optional()
    .meta({
      description:
        'Postgres parameters, as in postgresql.conf. Koschei decides on its own whether they need a reload or a restart, and refuses those that it owns.',
      maxProperties: 256,
    }),
  hba: z.array(z.string().min(1).max(1024)).max(128).optional().meta({
    description:
      'Lines for pg_hba.conf, put behind those of Koschei. Without any: password over TLS from everywhere.',
    'x-kubernetes-list-type': 'atomic',
  }),
});

const Replicas = z.object({
  synchronous: z.int().min(0).max(8).default(1).meta({
    description:
      'Standbys that confirm every commit before it counts. They are the ones that may become primary without loss. Koschei picks them among all standbys.',
  }),
  asynchronous: z.int().min(0).max(16).default(1).meta({
    description: 'Further standbys. They replace a lost synchronous one and take reads.',
  }),
});

const Failover = z.object({
  fencing: z.enum(['fast', 'strict']).default('fast').meta({
    description:
      '`fast`: a synchronous standby takes over as soon as it has cut the old primary off from acknowledging commits. `strict`: it also waits until the old primary must have stopped, so that not even stale reads happen.',
  }),
  maximumLag: sizeSchema(
    'Without synchronous standbys only: a standby that lacks more WAL than this does not take over by itself, for example `16Mi`. Without it, the one that has most takes over, however far it is behind.',
  ).optional(),
  ttlSeconds: z.int().min(4).max(60).default(6).meta({
    description: 'How long a primary may go on without a heartbeat in etcd, in seconds, before it stops.',
  }),
  replaceLostInstanceAfter: durationSchema.default('30m').meta({
    description:
      'A standby whose node has been away for this long (deleted, or not ready), and whose volume no other node can mount, is replaced by an instance of another name on another node. Its old volume is kept, and not used again. `0`: never; otherwise from `30s` to `720h`.',
  }),
});

const Paused = z.object({
  until: z.iso
    .datetime({ offset: true, error: 'a time such as 2026-01-31T22:00:00Z' })
    .max(40)
    .meta({ description: 'When the pause ends by itself, at most 24 hours from now.' }),
  reason: z.string().max(200).optional().meta({ description: 'Why, for those who see it in the status.' }),
});

/** Every instance that a cluster can have: a primary, 8 synchronous and 16 asynchronous standbys. */
const maxInstances = 25;

const InstanceOptions = z.object({
  name: z.string().min(1).max(63).meta({ description: 'The instance, for example `shop-2`.' }),
  noFailover: z.boolean().default(false).meta({
    description:
      'Never becomes the primary, and is never synchronous. A present primary leads on until it is lost or hands over.',
  }),
  priority: z.int().min(0).max(100).optional().meta({
    description:
      'Among standbys that are equally safe to choose, those of a higher priority become synchronous and primary first. 50 if left out.',
  }),
  applyDelaySeconds: z.int().min(1).max(2_147_483).optional().meta({
    description:
      'Replays each commit so many seconds after it was made, so that a mistake can be seen before it arrives. Implies `noFailover`; the `-ro` Service leaves the instance out.',
  }),
  streamFrom: z.string().min(1).max(63).optional().meta({
    description:
      'Streams from this instance instead of the primary, or from any standby if it says `standby`; from the primary while that one does not stream from the primary itself, while synchronous standbys are missing, and while this one is synchronous.',
  }),
});

const Service = z.object({
  type: z
    .enum(['ClusterIP', 'NodePort', 'LoadBalancer'])
    .default('ClusterIP')
    .meta({ description: 'Type of the Services.' }),
  annotations: z
    .record(z.string(), z.string().max(4096))
    .optional()
    .meta({ description: 'Annotations of the Services.', maxProperties: 64 }),
});

/** What a user wants. Every default is here; the API server and {@link PgClusterSpec.parse} fill in the same ones. */
export const PgClusterSpec = z
  .object({
    postgres: Postgres.prefault({}).meta({ description: 'Which Postgres, and how it is set up.' }),
    replicas: Replicas.prefault({}).meta({
      description: 'How many standbys the primary has. `kubectl scale` changes the asynchronous ones.',
    }),
    durability: z.enum(['required', 'preferred']).default('required').meta({
      description:
        'What happens to commits while too few synchronous standbys are up. `required`: they wait, nothing acknowledged can be lost. `preferred`: they go on without.',
    }),
    failover: Failover.prefault({}).meta({ description: 'How a lost primary is replaced.' }),
    paused: Paused.optional().meta({
      description:
        'Maintenance: until then a lost primary is not replaced, and the operator does not restart or replace the primary. Switchovers that are asked for work. Without effect when its time is over.',
    }),
    instances: z
      .array(InstanceOptions)
      .max(maxInstances)
      .optional()
      .meta({
        description:
          'Options of single instances, by their names. Nothing is restarted for a change of them.',
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['name'],
      }),
    storage: Storage.meta({ description: 'The volumes of each instance.' }),
    resources: Resources.optional().meta({ description: 'CPU and memory of each Postgres container.' }),
    etcd: Etcd.optional().meta({
      description:
        'An etcd of your own, instead of the one installed with the operator. Decided at creation: cannot be changed.',
    }),
    placement: Placement.prefault({}).meta({ description: 'On which nodes the instances run.' }),
    imagePullSecrets,
    imagePullPolicy,
    service: Service.prefault({}).meta({ description: 'The Services `-rw`, `-ro` and `-r`.' }),
    podMetadata: PodMetadata.optional().meta({ description: 'Labels and annotations of the pods.' }),
    logLevel,
    deletionPolicy: z.enum(['Retain', 'Delete']).default('Retain').meta({
      description:
        'What happens to volumes and credentials when the PgCluster is deleted. `Retain` keeps them: a PgCluster of the same name adopts them.',
    }),
    security: Security.prefault({}).meta({
      description: 'User and group of Postgres. Decided at creation: cannot be changed.',
      'x-kubernetes-validations': [
        { rule: 'self == oldSelf', message: 'security cannot be changed after creation' },
      ],
    }),
  })
  .meta({
    'x-kubernetes-validations': [
      {
        rule: 'has(self.etcd) == has(oldSelf.etcd) && (!has(self.etcd) || self.etcd == oldSelf.etcd)',
        message: 'etcd cannot be changed after creation',
      },
    ],
  });
export type PgClusterSpec = z.infer<typeof PgClusterSpec>;
/** A spec as people write it: everything with a default may be left out. */
export type PgClusterSpecInput = z.input<typeof PgClusterSpec>;

export const phases = [
  'Creating',
  'Running',
  'Paused',
  'Degraded',
  'FailingOver',
  'SwitchingOver',
  'Updating',
  'Stopped',
  'WaitingForDecision',
  'Deleting',
] as const;
export type Phase = (typeof phases)[number];

const VolumeReport = z.object({
  instance: z.string().max(63).meta({ description: 'Instance that the volume belongs to.' }),
  dataId: z.string().max(64).optional().meta({ description: 'Random id of the data on the volume.' }),
  timeline: z.int().optional().meta({ description: 'Timeline of the data.', format: 'int64' }),
  lsn: z.string().max(32).optional().meta({ description: 'How far the data goes, at least.' }),
  term: z.int().optional().meta({
    description: 'The last term that the data led; 0: never. Who led last holds every acknowledged commit.',
    format: 'int64',
  }),
  note: z.string().max(1024).meta({ description: 'What is known about the volume, and what is not.' }),
});
export type VolumeReport = z.infer<typeof VolumeReport>;

const DetachedVolume = z.object({
  claim: z.string().max(253).meta({ description: 'PersistentVolumeClaim of the data.' }),
  node: z.string().max(253).optional().meta({ description: 'Node that the volume is tied to.' }),
  since: z.string().max(64).meta({ description: 'When the instance was given up.' }),
});
export type DetachedVolume = z.infer<typeof DetachedVolume>;

/** What is true. All fields are optional: a new resource has none. */
export const PgClusterStatus = z.object({
  observedGeneration,
  clusterId: z
    .string()
    .max(64)
    .optional()
    .meta({ description: 'Random id of this cluster, made once. Volumes and the state in etcd carry it.' }),
  phase: z
    .string()
    .max(64)
    .optional()
    .meta({ description: `One word for people: ${phases.join(', ')}.` }),
  primary: z.string().max(63).optional().meta({ description: 'The instance that takes writes.' }),
  primaryDataId: z.string().max(64).optional().meta({ description: 'Id of the data of the primary.' }),
  timeline: z.int().optional().meta({ description: 'Timeline of the primary.', format: 'int64' }),
  term: z
    .int()
    .optional()
    .meta({ description: 'Grows by one with every change of leader.', format: 'int64' }),
  instances: z.int().optional().meta({ description: 'Instances that exist, the primary included.' }),
  readyInstances: z.int().optional().meta({ description: 'Instances that answer in their role.' }),
  ready: z
    .string()
    .max(16)
    .optional()
    .meta({ description: 'Ready and wanted instances, for example `3/4`.' }),
  synchronousStandbys: z.array(z.string().max(63)).max(8).optional().meta({
    description: 'Standbys that confirm every commit and may become primary.',
    'x-kubernetes-list-type': 'atomic',
  }),
  sync: z.string().max(640).optional().meta({ description: 'The same, separated by commas.' }),
  asynchronousReplicas: z
    .int()
    .optional()
    .meta({ description: 'Asynchronous standbys that exist (scale subresource).' }),
  selector: z.string().max(512).optional().meta({ description: 'Selects the pods (scale subresource).' }),
  currentImage: z.string().max(512).optional().meta({
    description:
      'Image of Postgres that the pods have; while it is being changed, the one that most have, or else the primary.',
  }),
  acceptedSpec: z.record(z.string(), z.unknown()).optional().meta({
    description: 'The spec in force: the last one that was valid. A refused change does not touch it.',
    'x-kubernetes-preserve-unknown-fields': true,
  }),
  conditions,
  volumes: z
    .array(VolumeReport)
    .max(32)
    .optional()
    .meta({
      description:
        'Only while a person must decide: the volumes found. Annotate the PgCluster with `koschei.dev/adopt-primary=<instance>` to go on with one, or `=auto` for the one that led last.',
      'x-kubernetes-list-type': 'map',
      'x-kubernetes-list-map-keys': ['instance'],
    }),
  detachedVolumes: z
    .array(DetachedVolume)
    .max(32)
    .optional()
    .meta({
      description:
        'Volumes of instances that were replaced because their node was lost. They are kept, and nothing starts on them; delete the claim (and `<claim>-wal`) of one that is not needed.',
      'x-kubernetes-list-type': 'map',
      'x-kubernetes-list-map-keys': ['claim'],
    }),
});
export type PgClusterStatus = z.infer<typeof PgClusterStatus>;

export const PgCluster = z
  .object({
    apiVersion: z.literal(apiVersion).default(apiVersion),
    kind: z.literal(resources.PgCluster.kind).default(resources.PgCluster.kind),
    metadata: ObjectMeta,
    spec: PgClusterSpec.meta({ description: 'What you want.' }),
    status: PgClusterStatus.optional().meta({ description: 'What is true, written by the operator.' }),
  })
  .meta({
    description:
      'A highly available Postgres: one primary and its standbys. The smallest useful spec is `storage: { size: 1Gi }`.',
  });
export type PgCluster = z.infer<typeof PgCluster>;

/** A PgCluster whose spec has not been judged yet: what is needed to say in its status why it is refused. */
export const UnreadPgCluster = PgCluster.extend({ spec: z.unknown() });
export type UnreadPgCluster = z.infer<typeof UnreadPgCluster>;

/** How many instances a spec means: the primary and all its standbys. */
export const instanceCount = (replicas: PgClusterSpec['replicas']): number =>
  1 + replicas.synchronous + replicas.asynchronous;
