import { z } from 'zod';
import { conditions, observedGeneration } from './conditions.ts';
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

/** One Postgres of a cluster. Made by the operator from the PgCluster; people read it. */
export const PgInstanceSpec = z.object({
  cluster: z.string().min(1).max(63).meta({ description: 'Name of the PgCluster that this is part of.' }),
  clusterId: z.string().min(1).max(64).meta({ description: 'Id of that cluster.' }),
  ordinal: z.int().min(1).max(999999).meta({ description: 'Number of the instance, from 1.' }),
  agentImage: z.string().min(1).max(512).meta({
    description:
      'Image of the agent. Stays as it is when the operator is upgraded, until the PgCluster is annotated with `koschei.dev/upgrade-agents`.',
  }),
  postgres: z
    .object({
      version: PostgresVersion.meta({ description: 'Major version of Postgres.' }),
      image: z.string().min(1).max(512).meta({ description: 'Image of Postgres.' }),
    })
    .meta({ description: 'Which Postgres.' }),
  storage: Storage.meta({ description: 'The volumes.' }),
  resources: Resources.optional().meta({ description: 'CPU and memory of the Postgres container.' }),
  placement: Placement.optional().meta({ description: 'On which nodes the instance may run.' }),
  imagePullSecrets,
  imagePullPolicy,
  podMetadata: PodMetadata.optional().meta({ description: 'Labels and annotations of the pod.' }),
  logLevel,
  security: Security.prefault({}).meta({ description: 'User and group of Postgres.' }),
  etcd: Etcd.meta({ description: 'The etcd that the agents decide through.' }),
  initMode: z.enum(['initdb', 'clone']).meta({
    description: 'How an empty volume is filled: a new database, or a copy of another instance.',
  }),
});
export type PgInstanceSpec = z.infer<typeof PgInstanceSpec>;

export const instanceStates = [
  'Pending',
  'Provisioning',
  'Initializing',
  'Starting',
  'Running',
  'Streaming',
  'Rewinding',
  'Cloning',
  'Stopped',
  'Unreachable',
] as const;
export type InstanceState = (typeof instanceStates)[number];

/**
 * How far a standby is behind, in classes, so that a status need not be written for every byte. None of them is "not at
 * all": an idle primary writes a little WAL every 15 s.
 */
export const lagClasses = ['<1MB', '<16MB', '>=16MB', '?'] as const;
export type LagClass = (typeof lagClasses)[number];

/** The class of a lag in bytes; undefined when it is not known. */
export function lagClass(bytes: number | undefined): LagClass {
  if (bytes === undefined || Number.isNaN(bytes)) return '?';
  if (bytes < 1024 ** 2) return '<1MB';
  return bytes < 16 * 1024 ** 2 ? '<16MB' : '>=16MB';
}

export const PgInstanceStatus = z.object({
  observedGeneration,
  role: z
    .enum(['primary', 'standby', ''])
    .optional()
    .meta({ description: 'What the instance is at the moment; empty when not known.' }),
  sync: z
    .enum(['sync', 'async', ''])
    .optional()
    .meta({ description: 'Whether a standby confirms every commit.' }),
  state: z
    .string()
    .max(64)
    .optional()
    .meta({ description: `One word for people: ${instanceStates.join(', ')}.` }),
  lag: z
    .string()
    .max(16)
    .optional()
    .meta({ description: `How far a standby is behind: ${lagClasses.join(', ')}.` }),
  node: z.string().max(253).optional().meta({ description: 'Node that the pod runs on.' }),
  timeline: z.int().optional().meta({ description: 'Timeline of the instance.', format: 'int64' }),
  dataId: z
    .string()
    .max(64)
    .optional()
    .meta({ description: 'Random id of the data on the volume; a new one after each clone.' }),
  waitingForNodeSince: z.iso
    .datetime()
    .optional()
    .meta({ description: 'Since when the node that the volume is tied to has been seen to be away.' }),
  podUid: z.string().max(64).optional().meta({ description: 'UID of the pod that this is about.' }),
  conditions,
});
export type PgInstanceStatus = z.infer<typeof PgInstanceStatus>;

export const PgInstance = z
  .object({
    apiVersion: z.literal(apiVersion).default(apiVersion),
    kind: z.literal(resources.PgInstance.kind).default(resources.PgInstance.kind),
    metadata: ObjectMeta,
    spec: PgInstanceSpec.meta({ description: 'What the operator wants of this instance.' }),
    status: PgInstanceStatus.optional().meta({ description: 'What is true, written by the operator.' }),
  })
  .meta({ description: 'One Postgres of a PgCluster. Made by the operator; change the PgCluster instead.' });
export type PgInstance = z.infer<typeof PgInstance>;
