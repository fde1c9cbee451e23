import { spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { readControlData } from './control-data.ts';
import { initdb } from './initdb.ts';
import { hasStandbySignal } from './settings-files.ts';
import { query, TestBed, type TestInstance } from './test-instances.ts';
import { prepareVolume } from './volume.ts';

let bed: TestBed;
let instance: TestInstance;
beforeAll(async () => {
  bed = await TestBed.create();
  instance = await bed.instance('fresh', { walVolume: true });
});
afterAll(() => bed.close());

const options = () => ({
  dataId: randomBytes(8).toString('hex'),
  clusterId: 'test-cluster',
  application: { database: 'my "app"', user: "o'neil", password: "it's \\ secret" },
  salt: randomBytes(16),
});

test('an initdb that is cut short at any point leaves an empty volume', async () => {
  const { paths } = instance;
  const begin = performance.now();
  const spare = await bed.instance('spare');
  await initdb(spare.installation, options());
  const wholeMs = performance.now() - begin;
  for (const part of [0, 0.1, 0.3, 0.5, 0.7, 0.9]) {
    const cut = initdb(instance.installation, {
      ...options(),
      signal: AbortSignal.timeout(Math.round(wholeMs * part)),
    });
    const done = await cut.then(
      () => true,
      () => false,
    );
    // This machine may have been faster the second time.
    if (done) break;
    expect(await prepareVolume(paths)).toEqual({ kind: 'empty' });
    expect(await readdir(paths.dataRoot)).toEqual(['agent']);
    expect(await readdir(paths.walRoot ?? '')).toEqual([]);
  }
});

test('a new database', async () => {
  const { paths } = instance;
  if ((await prepareVolume(paths)).kind === 'empty') await initdb(instance.installation, options());
  const found = await prepareVolume(paths);
  if (found.kind !== 'ready') throw new Error(`the volume is ${found.kind}`);
  instance.identity = found.identity;
  expect(found.identity).toMatchObject({ createdBy: 'initdb', bootstrap: true, clusterId: 'test-cluster' });
  const control = await readControlData(instance.installation);
  expect(control).toMatchObject({
    systemIdentifier: found.identity.systemIdentifier,
    state: 'shut down',
    dataChecksums: true,
    checkpointTimeline: 1,
  });
  expect(await hasStandbySignal(paths)).toBe(true);
  expect(await readdir(paths.walRoot ?? '')).toEqual([`pg_wal.${found.identity.dataId}`]);
  await expect(initdb(instance.installation, options())).rejects.toMatchObject({
    code: 'VolumeInconsistent',
  });

  await instance.startAsPrimary();
  expect(
    await query(
      instance,
      `SELECT rolname, rolsuper, rolreplication, rolcanlogin FROM pg_roles WHERE rolname !~ '^pg_' ORDER BY 1`,
    ),
  ).toEqual([
    { rolname: 'koschei_replication', rolsuper: false, rolreplication: true, rolcanlogin: true },
    { rolname: "o'neil", rolsuper: false, rolreplication: false, rolcanlogin: true },
    { rolname: 'postgres', rolsuper: true, rolreplication: true, rolcanlogin: true },
  ]);
  expect(
    await query(
      instance,
      `SELECT rolname, rolpassword LIKE 'SCRAM-SHA-256$%' AS scram FROM pg_authid WHERE rolpassword IS NOT NULL`,
    ),
  ).toEqual([{ rolname: "o'neil", scram: true }]);
  expect(
    await query(
      instance,
      `SELECT pg_get_userbyid(datdba) AS owner, pg_encoding_to_char(encoding) AS encoding, datcollate AS locale,
         has_database_privilege('koschei_replication', oid, 'CONNECT') AS others
       FROM pg_database WHERE datname = 'my "app"'`,
    ),
  ).toEqual([{ owner: "o'neil", encoding: 'UTF8', locale: 'C.UTF-8', others: false }]);
  // Nothing that a program wrote to the volume holds the password.
  expect(
    spawnSync('grep', ['-rlF', 'secret', join(paths.dataRoot), paths.walRoot ?? '']).stdout.toString(),
  ).toBe('');
  await instance.stop();
});
