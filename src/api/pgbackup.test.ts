import { expect, it } from 'vitest';
import { structuralSchema } from './crd.ts';
import { BackupSpec, PgBackup } from './pgbackup.ts';
import { structuralFaults } from './structural.ts';

const s3 = { bucket: 'shop-backups' };

it('fills in defaults', () => {
  expect(BackupSpec.parse({ schedule: '0 3 * * *', s3 })).toEqual({
    schedule: '0 3 * * *',
    retention: { fullBackups: 7 },
    s3: { ...s3, forcePathStyle: false },
  });
  const backup = PgBackup.parse({
    metadata: { name: 'b', namespace: 'n', uid: 'u' },
    spec: { cluster: 'shop' },
  });
  expect(backup.spec).toEqual({ cluster: 'shop', from: 'standby', deletionPolicy: 'Retain' });
});

it('refuses a schedule that is none, and says why', () => {
  const result = BackupSpec.safeParse({ schedule: '0 3 * *', s3 });
  expect(result.error?.issues[0]?.message).toBe('not a schedule: expected five fields, found 4');
});

it('refuses windows and buckets that cannot be', () => {
  for (const window of ['0d', '14', 'd', '1.5d', '14 d'])
    expect(BackupSpec.safeParse({ retention: { window }, s3 }).success, window).toBe(false);
  expect(BackupSpec.safeParse({ s3: { bucket: '' } }).success).toBe(false);
  expect(BackupSpec.safeParse({}).success).toBe(false);
});

it('would make structural schemas', () => {
  for (const schema of [BackupSpec, PgBackup.shape.spec, PgBackup.shape.status])
    expect(structuralFaults(structuralSchema(schema), 'x')).toEqual([]);
});
