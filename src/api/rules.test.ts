import { Environment } from '@marcbachmann/cel-js';
import { describe, expect, it } from 'vitest';
import { crds, type StructuralSchema } from './crd.ts';
import { PgClusterSpec } from './pgcluster.ts';
import { parseQuantity } from './quantity.ts';
import { readSpec, refuseChange } from './refusals.ts';

/*
 * The CEL rules in the CRDs, evaluated as an API server of 1.29 or newer does: at each place of the schema that has
 * some, once there is a value, and rules that name `oldSelf` once there was one before, too.
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#transition-rules
 */

class Quantity {
  readonly amount: number;
  constructor(text: string) {
    const amount = parseQuantity(text);
    if (amount === undefined) throw new Error(`${text} is not a quantity`);
    this.amount = amount;
  }
}

const environment = new Environment()
  .registerType('Quantity', Quantity)
  .registerFunction('quantity(string): Quantity', (text: string) => new Quantity(text))
  .registerFunction('Quantity.compareTo(Quantity): int', (a: Quantity, b: Quantity) =>
    BigInt(Math.sign(a.amount - b.amount)),
  )
  .registerVariable('self', 'dyn')
  .registerVariable('oldSelf', 'dyn');

interface Place {
  readonly path: string;
  readonly schema: StructuralSchema;
}

/** Every place of a schema that has rules. */
function placesWithRules(schema: StructuralSchema, path: string): Place[] {
  return [
    ...(schema['x-kubernetes-validations'] === undefined ? [] : [{ path, schema }]),
    ...Object.entries(schema.properties ?? {}).flatMap(([name, property]) =>
      placesWithRules(property, `${path}.${name}`),
    ),
    // Without a list type of `map`, items are not followed from old to new: no rule of ours is in a list.
    ...(schema.items === undefined ? [] : placesWithRules(schema.items, `${path}[]`)),
  ];
}

/** What the rules below `path` say against going from `before` (undefined: it is being created) to `after`. */
function violations(schema: StructuralSchema, before: unknown, after: unknown): string[] {
  if (after === undefined) return [];
  const own = (schema['x-kubernetes-validations'] ?? [])
    .filter(({ rule }) => before !== undefined || !rule.includes('oldSelf'))
    .filter(({ rule }) => environment.evaluate(rule, { self: after, oldSelf: before ?? null }) !== true)
    .map(({ message }) => message);
  const field = (value: unknown, name: string): unknown =>
    typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined;
  return [
    ...own,
    ...Object.entries(schema.properties ?? {}).flatMap(([name, property]) =>
      violations(property, field(before, name), field(after, name)),
    ),
  ];
}

const specOf = (kind: string): StructuralSchema => {
  const crd = crds().find(({ spec }) => spec.names.kind === kind);
  const schema = crd?.spec.versions[0]?.schema.openAPIV3Schema.properties?.spec;
  if (schema === undefined) throw new Error(`no schema of ${kind}`);
  return schema;
};

describe.each(['PgCluster', 'PgInstance'])('every rule of %s', (kind) => {
  const places = placesWithRules(specOf(kind), 'spec');

  it.each(
    places.flatMap(({ path, schema }) =>
      (schema['x-kubernetes-validations'] ?? []).map(({ rule }) => [path, rule, schema] as const),
    ),
  )('%s: %s is of type bool and names only fields that exist', (_, rule, schema) => {
    expect(environment.check(rule)).toMatchObject({ valid: true, type: 'bool' });
    for (const [, path = ''] of rule.matchAll(/\b(?:self|oldSelf)((?:\.\w+\b(?!\())+)/g)) {
      const found = path
        .split('.')
        .slice(1)
        .reduce<StructuralSchema | undefined>((node, field) => node?.properties?.[field], schema);
      expect(found, path).toBeDefined();
    }
  });
});

const small = { storage: { size: '10Gi' } };
const wal = { size: '5Gi', storageClassName: 'fast' };
const etcd = { endpoints: ['https://etcd:2379'], tlsSecret: 'etcd' };
const labels = (map: Record<string, string>) => ({ ...small, podMetadata: { labels: map } });

describe('a new PgCluster', () => {
  it.each([
    ['the smallest', small],
    ['one with an etcd of its own and a WAL volume', { storage: { size: '1Gi', wal }, etcd }],
    ['one with labels of its own', labels({ team: 'shop', 'app.kubernetes.io/part-of': 'shop' })],
    ['one with annotations only', { ...small, podMetadata: { annotations: { 'koschei.dev/x': 'y' } } }],
  ])('is taken: %s', (_, spec) => {
    expect(violations(specOf('PgCluster'), undefined, PgClusterSpec.parse(spec))).toEqual([]);
    expect(readSpec(spec).ok).toBe(true);
  });

  it.each([
    ['koschei.dev/role'],
    ['koschei.dev/cluster'],
    ['app.kubernetes.io/name'],
    ['app.kubernetes.io/managed-by'],
    ['app.kubernetes.io/component'],
  ])('is refused with the label %s, as by the operator', (key) => {
    const spec = labels({ team: 'shop', [key]: 'standby' });
    const found = violations(specOf('PgCluster'), undefined, PgClusterSpec.parse(spec));
    expect(found).toEqual([expect.stringContaining('labels of Koschei')]);
    expect(readSpec(spec).ok).toBe(false);
  });
});

/** Changes, and a part of what the rule says that is against them; undefined: nothing is. */
const changes: readonly [what: string, before: object, after: object, against: string | undefined][] = [
  ['nothing changes', small, small, undefined],
  [
    'nothing changes, with every optional field',
    { storage: { size: '1Gi', storageClassName: 'x', wal }, etcd },
    { storage: { size: '1Gi', storageClassName: 'x', wal }, etcd },
    undefined,
  ],
  ['the volume grows', small, { storage: { size: '11Gi' } }, undefined],
  ['the volume grows in another unit', small, { storage: { size: '1Ti' } }, undefined],
  ['the same size is written otherwise', small, { storage: { size: '10240Mi' } }, undefined],
  ['the volume shrinks', small, { storage: { size: '9Gi' } }, 'size can grow'],
  ['the volume shrinks in another unit', small, { storage: { size: '10G' } }, 'size can grow'],
  ['a class is named later', small, { storage: { size: '10Gi', storageClassName: 'x' } }, 'storageClassName'],
  [
    'a class is no longer named',
    { storage: { size: '10Gi', storageClassName: 'x' } },
    small,
    'storageClassName',
  ],
  [
    'the class changes',
    { storage: { size: '10Gi', storageClassName: 'x' } },
    { storage: { size: '10Gi', storageClassName: 'y' } },
    'storageClassName',
  ],
  ['a WAL volume is added', small, { storage: { size: '10Gi', wal } }, 'wal can be neither'],
  ['a WAL volume is removed', { storage: { size: '10Gi', wal } }, small, 'wal can be neither'],
  [
    'the WAL volume grows',
    { storage: { size: '10Gi', wal } },
    { storage: { size: '10Gi', wal: { ...wal, size: '6Gi' } } },
    undefined,
  ],
  [
    'the WAL volume without a class grows',
    { storage: { size: '10Gi', wal: { size: '5Gi' } } },
    { storage: { size: '10Gi', wal: { size: '6Gi' } } },
    undefined,
  ],
  [
    'the WAL volume shrinks',
    { storage: { size: '10Gi', wal } },
    { storage: { size: '10Gi', wal: { ...wal, size: '4Gi' } } },
    'wal.size can grow',
  ],
  [
    'the class of the WAL volume changes',
    { storage: { size: '10Gi', wal } },
    { storage: { size: '10Gi', wal: { ...wal, storageClassName: 'slow' } } },
    'wal.storageClassName',
  ],
  [
    'the WAL volume loses its class',
    { storage: { size: '10Gi', wal } },
    { storage: { size: '10Gi', wal: { size: '5Gi' } } },
    'wal.storageClassName',
  ],
  ['the major version changes', small, { ...small, postgres: { version: 18 } }, 'major version'],
  ['the default version is written down', small, { ...small, postgres: { version: 17 } }, undefined],
  ['the user changes', small, { ...small, security: { runAsUser: 26 } }, 'security'],
  ['an etcd is named later', small, { ...small, etcd }, 'etcd cannot'],
  ['an etcd is no longer named', { ...small, etcd }, small, 'etcd cannot'],
  [
    'etcd changes',
    { ...small, etcd },
    { ...small, etcd: { ...etcd, endpoints: ['https://other:2379'] } },
    'etcd cannot',
  ],
  [
    'replicas, parameters and labels change',
    { ...small, podMetadata: { labels: { a: 'b' } } },
    { ...small, replicas: { synchronous: 2 }, postgres: { parameters: { work_mem: '8MB' } } },
    undefined,
  ],
];

describe('a change of a PgCluster', () => {
  it.each(changes)('%s', (_, from, to, against) => {
    const [before, after] = [PgClusterSpec.parse(from), PgClusterSpec.parse(to)];
    const found = violations(specOf('PgCluster'), before, after);
    expect(found).toEqual(against === undefined ? [] : [expect.stringContaining(against)]);
    // On servers without CEL the operator refuses the same.
    expect(refuseChange(before, after).length > 0).toBe(against !== undefined);
  });
});
