import { z } from 'zod';
import {
  clusterNamePattern,
  group,
  maxClusterNameLength,
  type ResourceName,
  resources,
  version,
} from './names.ts';
import { PgCluster } from './pgcluster.ts';
import { PgInstance } from './pginstance.ts';

/** From zod schemas to CustomResourceDefinitions with structural schemas (apiextensions.k8s.io/v1). */

/** The part of OpenAPI v3 that structural schemas allow, with the Kubernetes extensions in use. */
export interface StructuralSchema {
  description?: string;
  type?: string;
  format?: string;
  default?: unknown;
  enum?: unknown[];
  pattern?: string;
  minimum?: number;
  maximum?: number;
  minLength?: number;
  maxLength?: number;
  minItems?: number;
  maxItems?: number;
  maxProperties?: number;
  required?: string[];
  properties?: Record<string, StructuralSchema>;
  additionalProperties?: StructuralSchema;
  items?: StructuralSchema;
  'x-kubernetes-int-or-string'?: boolean;
  'x-kubernetes-preserve-unknown-fields'?: boolean;
  'x-kubernetes-list-type'?: 'atomic' | 'set' | 'map';
  'x-kubernetes-list-map-keys'?: string[];
  'x-kubernetes-validations'?: { rule: string; message: string }[];
}

interface PrinterColumn {
  name: string;
  type: 'string' | 'integer' | 'date';
  jsonPath: string;
  description: string;
}

export interface Crd {
  apiVersion: 'apiextensions.k8s.io/v1';
  kind: 'CustomResourceDefinition';
  metadata: { name: string };
  spec: {
    group: string;
    scope: 'Namespaced';
    names: {
      kind: string;
      listKind: string;
      plural: string;
      singular: string;
      shortNames: string[];
      categories: string[];
    };
    versions: {
      name: string;
      served: true;
      storage: true;
      subresources: Record<string, unknown>;
      additionalPrinterColumns: PrinterColumn[];
      schema: { openAPIV3Schema: StructuralSchema };
    }[];
  };
}

/** What differs between our CRDs beyond their schemas. */
interface CrdParts {
  /** Restrictions on `metadata.name`, the only ones that servers allow there. */
  metadata?: StructuralSchema;
  subresources: Record<string, unknown>;
  columns: PrinterColumn[];
}

/** Key order in the generated files: what a reader looks for first. */
const keyOrder = ['description', 'type', 'format', 'default', 'enum'];

/** @throws {Error} when the schema has a construct that JSON schema cannot express. */
export function structuralSchema(schema: z.ZodType): StructuralSchema {
  const { $schema: _, ...converted } = z.toJSONSchema(schema, {
    target: 'openapi-3.0',
    io: 'input',
    override: ({ jsonSchema: node }) => {
      if (node.type === 'integer') {
        if (node.minimum === Number.MIN_SAFE_INTEGER) delete node.minimum;
        if (node.maximum === Number.MAX_SAFE_INTEGER) delete node.maximum;
        node.format ??= 'int32';
      }
      // The pattern that zod adds is longer than the format is strict.
      if (node.format === 'date-time') delete node.pattern;
      if (node['x-kubernetes-int-or-string'] === true) {
        delete node.anyOf;
        delete node.type;
      }
      if (node['x-kubernetes-preserve-unknown-fields'] === true) delete node.additionalProperties;
      const first = keyOrder.filter((key) => key in node);
      const ordered = Object.fromEntries(
        [...first, ...Object.keys(node)].map((key) => [key, Reflect.get(node, key)]),
      );
      for (const key of Object.keys(node)) Reflect.deleteProperty(node, key);
      Object.assign(node, ordered);
    },
  });
  return converted as StructuralSchema;
}

/** Every CRD to install, with the CEL rules that Kubernetes 1.29 and newer enforce. */
export function crds(): Crd[] {
  return [
    crd(PgCluster, resources.PgCluster, {
      metadata: {
        properties: {
          name: {
            description: `A DNS label of at most ${maxClusterNameLength} characters that begins with a letter.`,
            type: 'string',
            maxLength: maxClusterNameLength,
            pattern: clusterNamePattern,
          },
        },
      },
      subresources: {
        status: {},
        scale: {
          specReplicasPath: '.spec.replicas.asynchronous',
          statusReplicasPath: '.status.asynchronousReplicas',
          labelSelectorPath: '.status.selector',
        },
      },
      columns: [
        column('Primary', 'primary', 'The instance that takes writes'),
        column('Ready', 'ready', 'Ready and wanted instances'),
        column('Sync', 'sync', 'Standbys that confirm every commit'),
        column('Timeline', 'timeline', 'Timeline of the primary', 'integer'),
        column('Phase', 'phase', 'What the cluster is doing'),
      ],
    }),
    crd(PgInstance, resources.PgInstance, {
      subresources: { status: {} },
      columns: [
        { name: 'Cluster', type: 'string', jsonPath: '.spec.cluster', description: 'The PgCluster' },
        column('Role', 'role', 'primary or standby'),
        column('Sync', 'sync', 'Whether it confirms every commit'),
        column('Lag', 'lag', 'How far it is behind, in classes'),
        column('Node', 'node', 'Node that the pod runs on'),
        column('State', 'state', 'What the instance is doing'),
      ],
    }),
  ];
}

/** The same CRD for servers older than Kubernetes 1.29, which know no CEL rules, or not those on quantities. */
export function withoutCel(definition: Crd): Crd {
  return dropRules(definition) as Crd;
}

function dropRules(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(dropRules);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key !== 'x-kubernetes-validations')
      .map(([key, entry]) => [key, dropRules(entry)]),
  );
}

const column = (
  name: string,
  field: string,
  description: string,
  type: PrinterColumn['type'] = 'string',
) => ({
  name,
  type,
  jsonPath: `.status.${field}`,
  description,
});

function crd(
  schema: typeof PgCluster | typeof PgInstance,
  names: ResourceName,
  { metadata, subresources, columns }: CrdParts,
): Crd {
  return {
    apiVersion: 'apiextensions.k8s.io/v1',
    kind: 'CustomResourceDefinition',
    metadata: { name: `${names.plural}.${group}` },
    spec: {
      group,
      scope: 'Namespaced',
      names: {
        kind: names.kind,
        listKind: `${names.kind}List`,
        plural: names.plural,
        singular: names.singular,
        shortNames: [names.shortName],
        categories: ['koschei'],
      },
      versions: [
        {
          name: version,
          served: true,
          storage: true,
          subresources,
          additionalPrinterColumns: [
            ...columns,
            {
              name: 'Age',
              type: 'date',
              jsonPath: '.metadata.creationTimestamp',
              description: 'Time since creation',
            },
          ],
          schema: {
            openAPIV3Schema: {
              description: schema.description ?? '',
              type: 'object',
              required: ['spec'],
              properties: {
                apiVersion: { description: `Always ${group}/${version}.`, type: 'string' },
                kind: { description: `Always ${names.kind}.`, type: 'string' },
                // Servers refuse a description here.
                metadata: { type: 'object', ...metadata },
                spec: structuralSchema(schema.shape.spec),
                status: structuralSchema(schema.shape.status),
              },
            },
          },
        },
      ],
    },
  };
}
