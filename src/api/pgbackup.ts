import { z } from 'zod';
import { conditions, observedGeneration } from './conditions.ts';
import { cronFault } from './cron.ts';
import { apiVersion, resources } from './names.ts';
import { ObjectMeta } from './parts.ts';

/** Schemas of backups. They are not installed yet: there is no controller behind them. */

export const S3 = z.object({
  bucket: z.string().min(3).max(63).meta({ description: 'Bucket for base backups and WAL.' }),
  prefix: z.string().max(512).optional().meta({ description: 'Path inside the bucket.' }),
  region: z.string().max(64).optional().meta({ description: 'Region, for example `eu-central-1`.' }),
  endpoint: z
    .string()
    .max(512)
    .regex(/^https?:\/\/[^?#\s]+$/)
    .optional()
    .meta({ description: 'URL of an S3 other than that of AWS.' }),
  forcePathStyle: z
    .boolean()
    .default(false)
    .meta({ description: 'Name the bucket in the path instead of in the host name.' }),
  credentialsSecret: z.string().min(1).max(253).optional().meta({
    description:
      'Secret with `accessKeyId` and `secretAccessKey`; the identity of the ServiceAccount if left out.',
  }),
});

export const Retention = z.object({
  fullBackups: z
    .int()
    .min(1)
    .max(1000)
    .default(7)
    .meta({ description: 'How many full backups are kept at least.' }),
  window: z
    .string()
    .regex(/^[1-9][0-9]{0,3}[hdw]$/)
    .optional()
    .meta({ description: 'How far back a restore to any moment must reach: `36h`, `14d`, `4w`.' }),
});

/** `spec.backup` of a PgCluster, once backups are installed. */
export const BackupSpec = z.object({
  schedule: z
    .string()
    .max(128)
    .optional()
    .superRefine((line, context) => {
      const fault = line === undefined ? undefined : cronFault(line);
      if (fault !== undefined) context.addIssue({ code: 'custom', message: `not a schedule: ${fault}` });
    })
    .meta({ description: 'When full backups are made, as cron with five fields, in UTC: `0 3 * * *`.' }),
  retention: Retention.prefault({}).meta({ description: 'Which backups are kept.' }),
  s3: S3.meta({ description: 'Where backups are kept.' }),
});
export type BackupSpec = z.infer<typeof BackupSpec>;

export const PgBackupSpec = z.object({
  cluster: z.string().min(1).max(63).meta({ description: 'Name of the PgCluster to back up.' }),
  from: z
    .enum(['standby', 'primary'])
    .default('standby')
    .meta({ description: 'Whose data is read; a standby spares the primary.' }),
  deletionPolicy: z
    .enum(['Retain', 'Delete'])
    .default('Retain')
    .meta({ description: 'What happens to the stored backup when the PgBackup is deleted.' }),
});
export type PgBackupSpec = z.infer<typeof PgBackupSpec>;

export const PgBackupStatus = z.object({
  observedGeneration,
  phase: z
    .string()
    .max(64)
    .optional()
    .meta({ description: 'One word for people: Pending, Running, Completed, Failed.' }),
  instance: z.string().max(63).optional().meta({ description: 'Instance whose data was read.' }),
  startedAt: z.iso.datetime().optional().meta({ description: 'When it began.' }),
  completedAt: z.iso.datetime().optional().meta({ description: 'When it was complete.' }),
  timeline: z.int().optional().meta({ description: 'Timeline of the data.', format: 'int64' }),
  startLsn: z.string().max(32).optional().meta({ description: 'WAL is needed from here.' }),
  stopLsn: z.string().max(32).optional().meta({ description: 'The backup is consistent from here.' }),
  bytes: z.int().optional().meta({ description: 'Stored size, in bytes.', format: 'int64' }),
  conditions,
});
export type PgBackupStatus = z.infer<typeof PgBackupStatus>;

export const PgBackup = z
  .object({
    apiVersion: z.literal(apiVersion).default(apiVersion),
    kind: z.literal(resources.PgBackup.kind).default(resources.PgBackup.kind),
    metadata: ObjectMeta,
    spec: PgBackupSpec.meta({ description: 'What to back up.' }),
    status: PgBackupStatus.optional().meta({ description: 'What is true, written by the operator.' }),
  })
  .meta({ description: 'One base backup of a PgCluster.' });
export type PgBackup = z.infer<typeof PgBackup>;
