import { describe, expect, it } from 'vitest';
import { ownedParameters, whyOwned } from './owned-parameters.ts';
import { instanceCount, PgClusterSpec, type PgClusterSpecInput } from './pgcluster.ts';
import {
  acceptedSpec,
  describeRefusals,
  RefusedError,
  readSpec,
  refuseChange,
  validateInstanceNames,
  validateName,
  validateSpec,
} from './refusals.ts';

const spec = (change: Partial<PgClusterSpecInput> = {}): PgClusterSpec =>
  PgClusterSpec.parse({ storage: { size: '10Gi' }, ...change });
const withParameters = (parameters: Record<string, string>) => spec({ postgres: { parameters } });

describe('validateInstanceNames', () => {
  it('wants names that instances of this cluster have or can get', () => {
    const named = (name: string) => validateInstanceNames('shop', spec({ instances: [{ name }] }));
    expect(named('shop-12')).toEqual([]);
    for (const name of ['shop', 'shop-0', 'shop-x', 'bar-1', 'shop-1-0'])
      expect(named(name)).toMatchObject([{ field: 'spec.instances[0].name', found: `"${name}"` }]);
    const from = (streamFrom: string) =>
      validateInstanceNames('shop', spec({ instances: [{ name: 'shop-2', streamFrom }] }));
    expect([...from('standby'), ...from('shop-3')]).toEqual([]);
    expect(from('primary')).toMatchObject([{ field: 'spec.instances[0].streamFrom' }]);
  });
});

describe('validateSpec', () => {
  it('accepts the smallest spec and a large one', () => {
    expect(validateSpec(spec())).toEqual([]);
    const large = spec({
      postgres: {
        version: 16,
        image: 'registry.example/postgres:16-bookworm',
        parameters: {
          shared_preload_libraries: 'pg_stat_statements',
          'pg_stat_statements.max': 5000,
          work_mem: '8MB',
          synchronous_commit: 'remote_apply',
          recovery_prefetch: 'off',
        },
        hba: ['# the office', 'hostssl all all 10.0.0.0/8 scram-sha-256', 'local all all peer'],
      },
      replicas: { synchronous: 2, asynchronous: 3 },
      storage: { size: '1Ti', storageClassName: 'fast', wal: { size: '20Gi' } },
      resources: { requests: { cpu: '500m', memory: '1Gi' }, limits: { cpu: 2, memory: '1Gi' } },
      placement: {
        nodeSelector: { 'kubernetes.io/arch': 'amd64' },
        tolerations: [
          { operator: 'Exists' },
          { key: 'db', value: 'yes', effect: 'NoExecute', tolerationSeconds: 30 },
        ],
      },
      podMetadata: {
        labels: { team: 'shop', 'app.kubernetes.io/part-of': 'the-shop' },
        annotations: { 'example.com/note': 'any text, even with spaces' },
      },
    });
    expect(validateSpec(large)).toEqual([]);
    expect(instanceCount(large.replicas)).toBe(6);
  });

  it.each(ownedParameters.map((name) => [name.replace('*', name.startsWith('ssl') ? 'cert_file' : 'mode')]))(
    'refuses the owned parameter %s and explains',
    (name) => {
      expect(validateSpec(withParameters({ [name.toUpperCase()]: 'x' }))).toEqual([
        {
          field: `spec.postgres.parameters[${name.toUpperCase()}]`,
          reason: 'InvalidSpec',
          expected: 'not to be set',
          found: '"x"',
          advice: `remove it: ${whyOwned(name)}`,
        },
      ]);
    },
  );

  it.each([
    ['synchronous_commit', 'local'],
    ['synchronous_commit', 'OFF'],
    ['synchronous_commit', 'remote_write'],
    ['wal_level', 'minimal'],
    ['work_mem', "8MB'\nfsync = off"],
    ['work mem', '8MB'],
    ['a\nb', '1'],
    ["x'", '1'],
    ['', '1'],
  ])('refuses %j = %j', (name, value) => {
    const [refusal, ...more] = validateSpec(withParameters({ [name]: value }));
    expect(more).toEqual([]);
    expect(refusal).toMatchObject({ field: `spec.postgres.parameters[${name}]`, reason: 'InvalidSpec' });
  });

  it('takes logical slots as they are asked for, with the feedback that their copies need', () => {
    const asked = (version: 16 | 17, more: Record<string, string> = {}) =>
      validateSpec(spec({ postgres: { version, parameters: { wal_level: 'logical', ...more } } }));
    expect(asked(17)).toEqual([]);
    expect(asked(17, { hot_standby_feedback: 'on' })).toEqual([]);
    expect(asked(16, { hot_standby_feedback: 'off' })).toEqual([]);
    expect(asked(17, { Hot_Standby_Feedback: 'off' })).toMatchObject([
      { field: 'spec.postgres.parameters[Hot_Standby_Feedback]', reason: 'InvalidSpec' },
    ]);
  });

  it.each<[string, Partial<PgClusterSpecInput>, string]>([
    ['a line that is no record', { postgres: { hba: ['trust everybody'] } }, 'spec.postgres.hba[0]'],
    ['an include', { postgres: { hba: ['include /etc/passwd'] } }, 'spec.postgres.hba[0]'],
    [
      'two lines in one',
      { postgres: { hba: ['local all all peer\nhost all all all trust'] } },
      'spec.postgres.hba[0]',
    ],
    ['an Alpine image', { postgres: { image: 'postgres:17-alpine' } }, 'spec.postgres.image'],
    [
      'a node that is given up too soon',
      { failover: { replaceLostInstanceAfter: '29s' } },
      'spec.failover.replaceLostInstanceAfter',
    ],
    [
      'one that is given up after too long',
      { failover: { replaceLostInstanceAfter: '721h' } },
      'spec.failover.replaceLostInstanceAfter',
    ],
    ['a tiny volume', { storage: { size: '10Mi' } }, 'spec.storage.size'],
    ['a size without a unit', { storage: { size: '10' } }, 'spec.storage.size'],
    ['a tiny WAL volume', { storage: { size: '1Gi', wal: { size: '100m' } } }, 'spec.storage.wal.size'],
    [
      'more requested than allowed',
      { resources: { requests: { memory: '2Gi' }, limits: { memory: '1Gi' } } },
      'spec.resources.requests.memory',
    ],
    [
      'buffers beyond the memory',
      {
        postgres: { parameters: { Shared_Buffers: '900GB' } },
        resources: { limits: { memory: '1Gi' } },
      },
      'spec.postgres.parameters[Shared_Buffers]',
    ],
    [
      'buffers in blocks beyond the memory',
      {
        postgres: { parameters: { shared_buffers: 131072 } },
        resources: { limits: { memory: '1Gi' } },
      },
      'spec.postgres.parameters[shared_buffers]',
    ],
    [
      'more instances that never lead than there are asynchronous standbys',
      { instances: ['shop-2', 'shop-3'].map((name) => ({ name, noFailover: true })) },
      'spec.instances',
    ],
    [
      'more that replay late than there are asynchronous standbys',
      { instances: ['shop-2', 'shop-3'].map((name) => ({ name, applyDelaySeconds: 60 })) },
      'spec.instances',
    ],
    [
      'a priority of an instance that replays late',
      { instances: [{ name: 'shop-2', applyDelaySeconds: 60, priority: 3 }] },
      'spec.instances[0].priority',
    ],
    [
      'a priority of an instance that never leads',
      { instances: [{ name: 'shop-2', noFailover: true, priority: 3 }] },
      'spec.instances[0].priority',
    ],
    [
      'an instance that streams from itself',
      { instances: [{ name: 'shop-2', streamFrom: 'shop-2' }] },
      'spec.instances[0].streamFrom',
    ],
    [
      'an instance that streams from one that cascades',
      {
        instances: [
          { name: 'shop-2', streamFrom: 'shop-3' },
          { name: 'shop-3', streamFrom: 'standby' },
        ],
      },
      'spec.instances[0].streamFrom',
    ],
    [
      'two entries for one instance',
      { instances: [{ name: 'shop-2' }, { name: 'shop-2', priority: 3 }] },
      'spec.instances[1].name',
    ],
    [
      'a bound of loss with synchronous standbys',
      { failover: { maximumLag: '16Mi' } },
      'spec.failover.maximumLag',
    ],
    [
      'a label with spaces',
      { podMetadata: { labels: { team: 'the shop' } } },
      'spec.podMetadata.labels[team]',
    ],
    [
      'a label by which Services find pods',
      { podMetadata: { labels: { 'koschei.dev/role': 'standby' } } },
      'spec.podMetadata.labels[koschei.dev/role]',
    ],
    [
      'a label by which the operator finds pods',
      { podMetadata: { labels: { 'app.kubernetes.io/managed-by': 'Helm' } } },
      'spec.podMetadata.labels[app.kubernetes.io/managed-by]',
    ],
    ['a bad label name', { podMetadata: { labels: { 'a/b/c': 'x' } } }, 'spec.podMetadata.labels[a/b/c]'],
    [
      'a bad node selector',
      { placement: { nodeSelector: { zone: '-' } } },
      'spec.placement.nodeSelector[zone]',
    ],
    ['a bad annotation name', { service: { annotations: { 'a b': 'x' } } }, 'spec.service.annotations[a b]'],
    [
      'a toleration of nothing',
      { placement: { tolerations: [{ value: 'x' }] } },
      'spec.placement.tolerations[0].key',
    ],
    [
      'a toleration of any value and one value',
      { placement: { tolerations: [{ key: 'k', operator: 'Exists', value: 'x' }] } },
      'spec.placement.tolerations[0].value',
    ],
    [
      'seconds for an effect that has none',
      { placement: { tolerations: [{ key: 'k', effect: 'NoSchedule', tolerationSeconds: 5 }] } },
      'spec.placement.tolerations[0].tolerationSeconds',
    ],
  ])('refuses %s', (_, change, field) => {
    expect(validateSpec(spec(change))).toMatchObject([{ field, reason: 'InvalidSpec' }]);
  });
});

it.each([
  ['256MB', '1Gi'],
  [' 1023 MB ', '1Gi'],
  ['131071', '1Gi'],
  // Postgres refuses it itself.
  ['lots', '1Gi'],
  // Nobody knows how much memory there is.
  ['900GB', undefined],
])('lets buffers be %j with a limit of %j', (shared_buffers, memory) => {
  const resources = memory === undefined ? {} : { resources: { limits: { memory } } };
  expect(validateSpec(spec({ postgres: { parameters: { shared_buffers } }, ...resources }))).toEqual([]);
});

describe('validateName', () => {
  it.each(['a', 'shop', 'shop-2', 'a'.repeat(40)])('accepts %s', (name) => {
    expect(validateName(name)).toEqual([]);
  });
  it.each(['', '1shop', 'shop-', '-shop', 'Shop', 'my.shop', 'my_shop', 'a'.repeat(41)])(
    'refuses %j',
    (name) => {
      expect(validateName(name)).toMatchObject([{ field: 'metadata.name', reason: 'InvalidSpec' }]);
    },
  );
});

describe('an etcd of the user', () => {
  const refusalsOf = (endpoint: string) =>
    validateSpec(spec({ etcd: { endpoints: ['https://etcd:2379', endpoint], tlsSecret: 'etcd' } }));

  it.each([
    'https://127.0.0.1:2379',
    'https://127.1:2379',
    'https://2130706433:2379',
    'https://0x7f.0.0.1',
    'https://0.0.0.0:2379',
    'https://169.254.169.254',
    'https://[::1]:2379',
    'https://[::]:2379',
    'https://[fe80::1]:2379',
    'https://[::ffff:127.0.0.1]:2379',
    'https://localhost:2379',
    'https://LOCALHOST.:2379',
    'https://me.localhost:2379',
  ])('is not at %s', (endpoint) => {
    expect(refusalsOf(endpoint)).toMatchObject([
      { field: 'spec.etcd.endpoints[1]', reason: 'InvalidSpec', found: JSON.stringify(endpoint) },
    ]);
  });

  it.each([
    'https://10.0.0.1:2379',
    'https://etcd-0.etcd.ns.svc:2379',
    'https://[fd00::1]:2379',
    'https://localhost.example:2379',
  ])('may be at %s', (endpoint) => {
    expect(refusalsOf(endpoint)).toEqual([]);
  });
});

describe('refuseChange', () => {
  const etcd = { endpoints: ['https://etcd-0:2379'], tlsSecret: 'etcd' };
  const wal = { size: '2Gi', storageClassName: 'fast' };
  const before = spec({ storage: { size: '10Gi', storageClassName: 'fast', wal }, etcd });

  it('lets everything else change', () => {
    const after = spec({
      postgres: { image: 'postgres:17.2', parameters: { work_mem: '1MB' } },
      replicas: { synchronous: 0, asynchronous: 0 },
      durability: 'preferred',
      storage: { size: '10240Mi', storageClassName: 'fast', wal: { ...wal, size: '3Gi' } },
      etcd,
      deletionPolicy: 'Delete',
    });
    expect(refuseChange(before, before)).toEqual([]);
    expect(refuseChange(before, after)).toEqual([]);
  });

  const storage = { size: '10Gi', storageClassName: 'fast', wal };
  it.each<[string, Partial<PgClusterSpecInput>, string, string]>([
    ['major version', { postgres: { version: 18 } }, 'spec.postgres.version', 'MajorUpgradeRefused'],
    [
      'storage class',
      { storage: { ...storage, storageClassName: 'slow' } },
      'spec.storage.storageClassName',
      'ImmutableField',
    ],
    [
      'storage class left out',
      { storage: { size: '10Gi', wal } },
      'spec.storage.storageClassName',
      'ImmutableField',
    ],
    ['size', { storage: { ...storage, size: '9Gi' } }, 'spec.storage.size', 'StorageShrink'],
    [
      'WAL volume removed',
      { storage: { size: '10Gi', storageClassName: 'fast' } },
      'spec.storage.wal',
      'ImmutableField',
    ],
    [
      'WAL size',
      { storage: { ...storage, wal: { ...wal, size: '1Gi' } } },
      'spec.storage.wal.size',
      'StorageShrink',
    ],
    [
      'WAL class',
      { storage: { ...storage, wal: { size: '2Gi' } } },
      'spec.storage.wal.storageClassName',
      'ImmutableField',
    ],
    ['user', { security: { runAsUser: 26 } }, 'spec.security', 'ImmutableField'],
    ['etcd', { etcd: { ...etcd, endpoints: ['https://other:2379'] } }, 'spec.etcd', 'ImmutableField'],
    ['etcd left out', { etcd: undefined }, 'spec.etcd', 'ImmutableField'],
  ])('refuses another %s', (_, change, field, reason) => {
    const wanted = spec({ storage, etcd, ...change });
    expect(refuseChange(before, wanted)).toMatchObject([{ field, reason }]);
  });

  it('refuses a WAL volume that comes later', () => {
    const plain = spec({ storage: { size: '10Gi' } });
    const wanted = spec({ storage: { size: '10Gi', wal: { size: '1Gi' } } });
    expect(refuseChange(plain, wanted)).toMatchObject([{ field: 'spec.storage.wal', expected: 'nothing' }]);
  });

  it('names every refused field, not only the first', () => {
    const wanted = spec({ postgres: { version: 16 }, storage: { size: '1Gi' } });
    expect(refuseChange(before, wanted).map((refusal) => refusal.field)).toEqual([
      'spec.postgres.version',
      'spec.storage.storageClassName',
      'spec.storage.size',
      'spec.storage.wal',
      'spec.etcd',
    ]);
  });
});

describe('readSpec', () => {
  it('wants a time for the end of a pause', () => {
    for (const until of ['tomorrow', '2026-01-31', '2026-01-31T22:00:00', ''])
      expect(readSpec({ storage: { size: '1Gi' }, paused: { until } })).toMatchObject({
        ok: false,
        refusals: [{ field: 'spec.paused.until' }],
      });
    for (const until of ['2026-01-31T22:00:00Z', '2026-01-31T22:00:00+01:00'])
      expect(readSpec({ storage: { size: '1Gi' }, paused: { until } }).ok).toBe(true);
  });

  it('reads what the API gives, whatever it does not know aside', () => {
    expect(readSpec({ storage: { size: '10Gi' }, fromANewerVersion: true })).toEqual({
      ok: true,
      spec: spec(),
    });
  });

  it.each<[unknown, string]>([
    [undefined, 'spec: expected object, found nothing; add it, see `kubectl explain pgcluster.spec`'],
    [
      {},
      'spec.storage: expected object, found nothing; add it, see `kubectl explain pgcluster.spec.storage`',
    ],
    [
      { storage: { size: '1Gi' }, replicas: { synchronous: 9 } },
      'spec.replicas.synchronous: expected at most 8, found 9; correct it, see `kubectl explain pgcluster.spec.replicas.synchronous`',
    ],
    [
      { storage: { size: '1Gi' }, postgres: { version: 9 } },
      'spec.postgres.version: expected at least 15, found 9; correct it, see `kubectl explain pgcluster.spec.postgres.version`',
    ],
    [
      { storage: { size: '1Gi' }, replicas: { asynchronous: -1 } },
      'spec.replicas.asynchronous: expected at least 0, found -1; correct it, see `kubectl explain pgcluster.spec.replicas.asynchronous`',
    ],
    [
      { storage: { size: '1Gi' }, durability: 'best' },
      'spec.durability: expected one of required, preferred, found "best"; correct it, see `kubectl explain pgcluster.spec.durability`',
    ],
    [
      { storage: { size: '1Gi' }, etcd: { endpoints: ['http://x'], tlsSecret: 's' } },
      'spec.etcd.endpoints[0]: expected a URL such as https://etcd-0.etcd:2379, without a path, found "http://x"; correct it, see `kubectl explain pgcluster.spec.etcd.endpoints`',
    ],
    [
      { storage: { size: '1 GB' } },
      'spec.storage.size: expected an amount such as 500m, 2, 512Mi or 10Gi, found "1 GB"; correct it, see `kubectl explain pgcluster.spec.storage.size`',
    ],
    [
      { storage: { size: '1Gi' }, resources: { limits: { cpu: true } } },
      'spec.resources.limits.cpu: expected a number or a text of the right form, found true; correct it, see `kubectl explain pgcluster.spec.resources.limits.cpu`',
    ],
  ])('explains what is wrong with %j', (found, message) => {
    const reading = readSpec(found);
    expect(reading.ok ? '' : describeRefusals(reading.refusals)).toBe(message);
  });

  it('finds what goes beyond the schema', () => {
    const reading = readSpec({ storage: { size: '1Mi' }, postgres: { parameters: { port: 1 } } });
    expect(reading).toMatchObject({
      ok: false,
      refusals: [{ field: 'spec.postgres.parameters[port]' }, { field: 'spec.storage.size' }],
    });
  });
});

describe('acceptedSpec', () => {
  it('gives back what was recorded, and nothing when nothing was', () => {
    expect(acceptedSpec({ acceptedSpec: { ...spec() } })).toEqual(spec());
    expect(acceptedSpec({})).toBeUndefined();
    expect(acceptedSpec(undefined)).toBeUndefined();
  });

  it('does not take an unreadable one for none', () => {
    expect(() => acceptedSpec({ acceptedSpec: { storage: 'x' } })).toThrow(RefusedError);
    expect(() => acceptedSpec({ acceptedSpec: { storage: 'x' } })).toThrow(
      /status\.acceptedSpec\.storage.*another version/,
    );
  });
});
