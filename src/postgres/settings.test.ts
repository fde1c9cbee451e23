import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { instanceCount, PgClusterSpec } from '../api/pgcluster.ts';
import { postgresPaths } from './paths.ts';
import { synchronousStandbyNames } from './replication-names.ts';
import { mostInstances, renderSettings, type SettingsSpec, withoutSettings } from './settings.ts';
import { hasStandbySignal, setStandbySignal, writeSettings } from './settings-files.ts';

const gibibyte = 2 ** 30;
const spec = (more: Partial<SettingsSpec> = {}): SettingsSpec => ({
  paths: postgresPaths(),
  major: 17,
  clusterName: 'shop',
  dataId: '00000000000000aa',
  osUser: 'postgres',
  parameters: {},
  hba: [],
  synchronousStandbys: [],
  upstream: undefined,
  upstreamSlot: undefined,
  acceptClients: true,
  ...more,
});

test('owned settings stand last and win over the user', () => {
  const { files, owned } = renderSettings(
    spec({
      parameters: { fsync: 'off', Restart_After_Crash: true, work_mem: '7MB', 'pg_stat_statements.max': 5 },
    }),
  );
  expect(files['postgresql.conf']).toMatch(/include 'user\.conf'\n(.*\n)*include 'koschei\.conf'\n$/);
  expect(files['user.conf']).toContain("work_mem = '7MB'\n");
  expect(files['user.conf']).toContain("pg_stat_statements.max = '5'\n");
  expect(files['user.conf']).not.toMatch(/fsync|restart_after_crash/i);
  expect(files['koschei.conf']).toContain("fsync = 'on'\n");
  expect(owned).toMatchObject({ fsync: 'on', restart_after_crash: 'off', synchronous_standby_names: '' });
});

test('what the user may want more of', () => {
  const wanted = {
    max_connections: 300,
    max_wal_senders: '70',
    max_replication_slots: 4,
    wal_level: 'logical',
  };
  expect(renderSettings(spec({ parameters: wanted })).owned).toMatchObject({
    max_connections: '300',
    max_wal_senders: '70',
    max_replication_slots: '54',
    wal_level: 'logical',
  });
  expect(renderSettings(spec({ parameters: { max_connections: '20' } })).owned.max_connections).toBe('20');
});

describe('failover slots', () => {
  const upstream = { host: 'a.test', address: '10.0.0.1', port: 5432 };
  const logical = { wal_level: 'logical' };
  const synchronizedSlots = ['k_00000000000000bb', 'k_00000000000000cc'];

  test('are copied from Postgres 17 on, where the spec allows logical slots', () => {
    const { owned, files } = renderSettings(spec({ upstream, parameters: logical, synchronizedSlots }));
    expect(owned).toMatchObject({ sync_replication_slots: 'on', hot_standby_feedback: 'on' });
    expect(owned.primary_conninfo).toContain('dbname=postgres');
    // Postgres may not know a slot yet, or any more, and keeps the old list then: it is not looked for.
    expect(owned).not.toHaveProperty('synchronized_standby_slots');
    expect(files['koschei.conf']).toContain(
      "synchronized_standby_slots = 'k_00000000000000bb, k_00000000000000cc'\n",
    );
  });

  test('are not where there are none, nor from a standby', () => {
    const none = renderSettings(spec({ upstream })).owned;
    expect(none).toMatchObject({ sync_replication_slots: 'off' });
    expect(none).not.toHaveProperty('hot_standby_feedback');
    expect(none.primary_conninfo).not.toContain('dbname');
    const old = renderSettings(spec({ major: 16, upstream, parameters: logical, synchronizedSlots }));
    expect(old.owned).not.toHaveProperty('sync_replication_slots');
    expect(old.files['koschei.conf']).not.toContain('synchronized_standby_slots');
    const cascaded = renderSettings(spec({ upstream, cascades: true, parameters: logical })).owned;
    expect(cascaded).toMatchObject({ sync_replication_slots: 'off', hot_standby_feedback: 'on' });
  });

  test('are not copied to a standby that replays late: it would keep rows from being removed', () => {
    const { owned } = renderSettings(spec({ upstream, parameters: logical, applyDelaySeconds: 60 }));
    expect(owned).toMatchObject({ sync_replication_slots: 'off' });
    expect(owned).not.toHaveProperty('hot_standby_feedback');
  });

  test('logical slots keep the WAL level that they need, or Postgres would not start', () => {
    expect(renderSettings(spec({ hasLogicalSlots: true })).owned.wal_level).toBe('logical');
  });
});

test.each([
  [59, '59s'],
  [5_400, '90min'],
  [7_200, '2h'],
  [172_800, '2d'],
])('a delay of %i s is written as Postgres shows it', (applyDelaySeconds, shown) => {
  expect(renderSettings(spec({ applyDelaySeconds })).owned.recovery_min_apply_delay).toBe(shown);
});

test('there are walsenders and slots for the largest cluster, while all of it is being cloned', () => {
  const replicas = PgClusterSpec.shape.replicas;
  const most = { synchronous: 8, asynchronous: 16 };
  expect(replicas.safeParse(most).success).toBe(true);
  expect(replicas.safeParse({ ...most, synchronous: 9 }).success).toBe(false);
  expect(replicas.safeParse({ ...most, asynchronous: 17 }).success).toBe(false);
  expect(instanceCount(most)).toBe(mostInstances);
  const { owned } = renderSettings(spec());
  expect(Number(owned.max_wal_senders)).toBeGreaterThanOrEqual(2 * (mostInstances - 1));
  expect(Number(owned.max_replication_slots)).toBeGreaterThanOrEqual(2 * (mostInstances - 1));
});

test('a standby takes the larger of the spec and its control file', () => {
  const atLeast = {
    max_connections: 200,
    max_worker_processes: 4,
    max_wal_senders: 60,
    max_prepared_transactions: 5,
    max_locks_per_transaction: 64,
  };
  expect(renderSettings(spec({ atLeast, parameters: { max_connections: 50 } })).owned).toMatchObject({
    max_connections: '200',
    max_worker_processes: '8',
    max_wal_senders: '60',
    max_prepared_transactions: '5',
  });
});

test('ALTER SYSTEM is switched off where that exists', () => {
  expect(renderSettings(spec()).owned.allow_alter_system).toBe('off');
  expect(renderSettings(spec({ major: 16 })).owned).not.toHaveProperty('allow_alter_system');
});

test('sizes follow memory and volume, in the form in which Postgres shows them', () => {
  const small = renderSettings(spec({ memoryBytes: gibibyte, walVolumeBytes: 2 * gibibyte }));
  expect(small.files['user.conf']).toContain("shared_buffers = '256MB'\n");
  expect(small.owned.max_slot_wal_keep_size).toBe('1GB');
  expect(renderSettings(spec({ walVolumeBytes: gibibyte })).owned.max_slot_wal_keep_size).toBe('512MB');
  const large = renderSettings(
    spec({
      memoryBytes: 64 * gibibyte,
      walVolumeBytes: 1024 * gibibyte,
      parameters: { shared_buffers: '1GB' },
    }),
  );
  expect(large.files['user.conf']).toContain("shared_buffers = '1GB'\n");
  expect(large.files['user.conf'].match(/shared_buffers/g)).toHaveLength(1);
  expect(large.owned.max_slot_wal_keep_size).toBe('256GB');
});

test('a standby is told where to stream from without a name to resolve', () => {
  const { owned } = renderSettings(
    spec({
      upstream: { host: 'shop-1-0.shop-pods.ns.svc', address: '10.0.0.7', port: 5432 },
      upstreamSlot: 'k_00000000000000aa',
    }),
  );
  expect(owned.primary_conninfo).toContain('host=shop-1-0.shop-pods.ns.svc hostaddr=10.0.0.7 port=5432');
  expect(owned.primary_conninfo).toContain('sslmode=verify-full');
  expect(owned.primary_conninfo).toContain('application_name=k_00000000000000aa');
  expect(owned.primary_slot_name).toBe('k_00000000000000aa');
  expect(renderSettings(spec()).owned.primary_conninfo).toBe('');
});

test('all named standbys are required', () => {
  expect(synchronousStandbyNames([])).toBe('');
  expect(synchronousStandbyNames(['k_a', 'k_b'])).toBe('FIRST 2 ("k_a", "k_b")');
});

test('values cannot break out of their line', () => {
  const { files } = renderSettings(spec({ parameters: { search_path: `it's\nfsync = off\\` } }));
  expect(files['user.conf']).toContain(`search_path = 'it''s\\012fsync = off\\\\'\n`);
});

test('parameters that cannot be are refused, all at once', () => {
  const parameters = { 'a b': 1, include: 'x', synchronous_commit: 'off', fine: '1' };
  expect(() => renderSettings(spec({ parameters }))).toThrow(
    expect.objectContaining({
      code: 'InvalidParameter',
      found: expect.stringMatching(/a b.*include.*synchronous_commit/),
    }),
  );
});

test('access: ours first, then the user, or passwords over TLS; nobody while closed', () => {
  const lines = (more: Partial<SettingsSpec>) =>
    renderSettings(spec(more))
      .files['pg_hba.conf'].split('\n')
      .filter((line) => line !== '' && !line.startsWith('#'));
  const open = lines({});
  expect(open.at(-2)).toBe('hostssl all all all scram-sha-256');
  const own = lines({ hba: ['hostssl app app 10.0.0.0/8 scram-sha-256'] });
  expect(own.at(-1)).toBe('hostssl app app 10.0.0.0/8 scram-sha-256');
  expect(own.slice(0, -1)).toEqual(open.slice(0, -2));
  expect(open.findIndex((line) => /postgres all reject/.test(line))).toBeLessThan(open.length - 2);
  expect(lines({ acceptClients: false, hba: ['host all all all trust'] }).join()).not.toContain('trust');
});

test('owned names disappear from postgresql.auto.conf, all else stays', () => {
  const text = "# Do not edit\nwork_mem = '1MB'\n  Primary_Conninfo = 'x'\nrestart_after_crash='on'\n";
  expect(withoutSettings(text, ['primary_conninfo', 'restart_after_crash'])).toBe(
    "# Do not edit\nwork_mem = '1MB'\n",
  );
});

test('files are written when they differ', async () => {
  const paths = postgresPaths({ dataRoot: await mkdtemp(join(tmpdir(), 'koschei-')) });
  try {
    await mkdir(paths.pgdata);
    await writeFile(join(paths.pgdata, 'postgresql.auto.conf'), "fsync = 'off'\nwork_mem = '1MB'\n");
    const first = await writeSettings(paths, renderSettings(spec({ paths })));
    expect(first).toEqual([
      'user.conf',
      'koschei.conf',
      'pg_ident.conf',
      'pg_hba.conf',
      'postgresql.conf',
      'postgresql.auto.conf',
    ]);
    expect(await readFile(join(paths.pgdata, 'postgresql.auto.conf'), 'utf8')).toBe("work_mem = '1MB'\n");
    expect(await writeSettings(paths, renderSettings(spec({ paths })))).toEqual([]);
    expect(await writeSettings(paths, renderSettings(spec({ paths, synchronousStandbys: ['k_x'] })))).toEqual(
      ['koschei.conf'],
    );
    expect((await readdir(paths.pgdata)).filter((name) => name.endsWith('.tmp'))).toEqual([]);

    expect(await hasStandbySignal(paths)).toBe(false);
    await setStandbySignal(paths, true);
    await setStandbySignal(paths, true);
    expect(await hasStandbySignal(paths)).toBe(true);
    await setStandbySignal(paths, false);
    expect(await hasStandbySignal(paths)).toBe(false);
  } finally {
    await rm(paths.dataRoot, { recursive: true });
  }
});
