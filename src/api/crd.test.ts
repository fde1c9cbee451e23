import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { z } from 'zod';
import { type Crd, crds, type StructuralSchema, structuralSchema, withoutCel } from './crd.ts';
import { staleFiles } from './generate-crds.ts';
import { PgClusterSpec } from './pgcluster.ts';
import { structuralFaults } from './structural.ts';

const root = join(import.meta.dirname, '../..');

const schemaOf = (crd: Crd): StructuralSchema => {
  const schema = crd.spec.versions[0]?.schema.openAPIV3Schema;
  if (schema === undefined) throw new Error(`${crd.metadata.name} has no version`);
  return schema;
};
const named = (name: string): Crd => {
  const crd = crds().find((entry) => entry.spec.names.plural === name);
  if (crd === undefined) throw new Error(`no CRD ${name}`);
  return crd;
};
const at = (schema: StructuralSchema, path: string): StructuralSchema =>
  path.split('.').reduce<StructuralSchema>((node, key) => node.properties?.[key] ?? {}, schema);

/** What an API server does on reading: fills in defaults from the top down, in objects that exist. */
function withDefaults(schema: StructuralSchema, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || schema.properties === undefined) return value;
  const filled: Record<string, unknown> = { ...value };
  for (const [name, property] of Object.entries(schema.properties)) {
    if (filled[name] === undefined && property.default !== undefined) filled[name] = property.default;
    if (filled[name] !== undefined) filled[name] = withDefaults(property, filled[name]);
  }
  return filled;
}

it('the generated files are those that the schemas make', async () => {
  expect(await staleFiles(root), 'run `npm run generate`').toEqual([]);
});

describe.each(crds().map((crd) => [crd.spec.names.kind, crd] as const))('%s', (_, crd) => {
  it('has a structural schema with a description on every field', () => {
    expect(structuralFaults(schemaOf(crd))).toEqual([]);
  });

  it('has columns whose fields exist', () => {
    for (const { jsonPath } of crd.spec.versions[0]?.additionalPrinterColumns ?? []) {
      if (jsonPath.startsWith('.metadata.')) continue;
      expect(at(schemaOf(crd), jsonPath.slice(1)).type, jsonPath).toMatch(/string|integer/);
    }
  });

  it('has a variant without CEL rules and otherwise the same', () => {
    const text = JSON.stringify(withoutCel(crd));
    expect(JSON.stringify(crd)).toContain('x-kubernetes-validations');
    expect(text).not.toContain('x-kubernetes-validations');
    expect(text).toContain('x-kubernetes-list-map-keys');
    expect(structuralFaults(schemaOf(withoutCel(crd)))).toEqual([]);
  });
});

describe('PgCluster', () => {
  const crd = named('pgclusters');

  it('has the columns and subresources that people and `kubectl scale` use', () => {
    const [version] = crd.spec.versions;
    expect(version?.additionalPrinterColumns.map((column) => column.name)).toEqual([
      'Primary',
      'Ready',
      'Sync',
      'Timeline',
      'Phase',
      'Age',
    ]);
    expect(version?.subresources).toEqual({
      status: {},
      scale: {
        specReplicasPath: '.spec.replicas.asynchronous',
        statusReplicasPath: '.status.asynchronousReplicas',
        labelSelectorPath: '.status.selector',
      },
    });
    expect(crd.spec.names).toMatchObject({ shortNames: ['pgc'], categories: ['koschei'] });
    for (const path of ['spec.replicas.asynchronous', 'status.asynchronousReplicas'])
      expect(at(schemaOf(crd), path)).toMatchObject({ type: 'integer', format: 'int32' });
  });

  it('makes the same spec of the smallest one, by the API server or by zod', () => {
    const smallest = { storage: { size: '1Gi' } };
    const expected = {
      postgres: { version: 17 },
      replicas: { synchronous: 1, asynchronous: 1 },
      durability: 'required',
      failover: { fencing: 'fast', ttlSeconds: 6, replaceLostInstanceAfter: '30m' },
      storage: { size: '1Gi' },
      placement: { antiAffinity: 'preferred' },
      service: { type: 'ClusterIP' },
      logLevel: 'info',
      deletionPolicy: 'Retain',
      security: { runAsUser: 999, runAsGroup: 999 },
    };
    expect(PgClusterSpec.parse(smallest)).toEqual(expected);
    expect(withDefaults(at(schemaOf(crd), 'spec'), smallest)).toEqual(expected);
  });

  it('keeps the accepted spec as it is, and merges conditions by type', () => {
    expect(at(schemaOf(crd), 'status.acceptedSpec')).toMatchObject({
      type: 'object',
      'x-kubernetes-preserve-unknown-fields': true,
    });
    expect(at(schemaOf(crd), 'status.conditions')).toMatchObject({
      'x-kubernetes-list-type': 'map',
      'x-kubernetes-list-map-keys': ['type'],
    });
  });

  it('takes amounts and parameters as numbers or strings', () => {
    expect(at(schemaOf(crd), 'spec.resources.requests.cpu')).toMatchObject({
      'x-kubernetes-int-or-string': true,
    });
    expect(at(schemaOf(crd), 'spec.postgres.parameters').additionalProperties).toMatchObject({
      'x-kubernetes-int-or-string': true,
    });
    const parsed = PgClusterSpec.parse({
      storage: { size: '1Gi' },
      postgres: { parameters: { max_connections: 200, work_mem: '8MB' } },
      resources: { requests: { cpu: 1 } },
    });
    expect(parsed.postgres.parameters).toEqual({ max_connections: '200', work_mem: '8MB' });
    expect(parsed.resources?.requests?.cpu).toBe('1');
  });
});

describe('structuralFaults', () => {
  const described = <T extends z.ZodType>(schema: T) => schema.meta({ description: 'x' });
  const faults = (field: z.ZodType) =>
    structuralFaults(structuralSchema(z.object({ field: described(field) })));

  it.each<[string, z.ZodType, RegExp]>([
    ['a union', z.union([z.literal(1), z.string()]), /anyOf.*\n.*no type/],
    ['a lookahead', z.string().regex(/^(?!a)b/), /not RE2/],
    ['closed objects', z.strictObject({}), /properties and additionalProperties/],
    ['open objects', z.looseObject({}), /properties and additionalProperties/],
    [
      'a map key that may be missing',
      z.array(z.object({ type: described(z.string().optional()) })).meta({
        'x-kubernetes-list-type': 'map',
        'x-kubernetes-list-map-keys': ['type'],
      }),
      /map key "type" may be missing/,
    ],
    [
      'a rule over something without bounds',
      z
        .object({ list: described(z.array(z.string())) })
        .meta({ 'x-kubernetes-validations': [{ rule: 'true' }] }),
      /no maxItems.*\n.*no maxLength/,
    ],
  ])('finds %s', (_, schema, fault) => {
    expect(faults(schema).join('\n')).toMatch(fault);
  });

  it('finds a field without description', () => {
    expect(structuralFaults(structuralSchema(z.object({ a: z.string() })))).toEqual([
      'a: has no description',
    ]);
  });

  it('finds what servers refuse in metadata', () => {
    const metadata = {
      type: 'object',
      description: 'x',
      properties: { labels: { type: 'object', description: 'x' } },
    };
    expect(structuralFaults({ type: 'object', properties: { metadata } })).toEqual([
      'metadata: "description" is not allowed',
      'metadata: "labels" is not allowed',
    ]);
  });

  it('finds references', () => {
    const part = z.string().meta({ id: 'part', description: 'x' });
    expect(structuralFaults(structuralSchema(z.object({ a: part }))).join()).toMatch(/\$ref/);
  });
});
