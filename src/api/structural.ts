import type { StructuralSchema } from './crd.ts';

/** What structural schemas may hold; anything else (`$ref`, `anyOf`, `const`, ...) is refused or ignored by servers. */
const allowed = new Set([
  'description',
  'type',
  'format',
  'default',
  'enum',
  'pattern',
  'minimum',
  'maximum',
  'exclusiveMinimum',
  'exclusiveMaximum',
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'minProperties',
  'maxProperties',
  'required',
  'nullable',
  'properties',
  'additionalProperties',
  'items',
  'x-kubernetes-int-or-string',
  'x-kubernetes-preserve-unknown-fields',
  'x-kubernetes-list-type',
  'x-kubernetes-list-map-keys',
  'x-kubernetes-map-type',
  'x-kubernetes-validations',
]);

/** Servers describe metadata themselves and let a CRD restrict only the names. */
const allowedInMetadata = new Set(['type', 'properties', 'name', 'generateName']);

/**
 * What an API server would refuse in a schema, or do with it that nobody meant. Rules:
 * https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/#specifying-a-structural-schema
 * Beyond those: every field has a description, and everything that a CEL rule can reach has a bound, since servers
 * refuse rules whose estimated cost is unbounded.
 */
export function structuralFaults(schema: StructuralSchema, path = '', reachedByRule = false): string[] {
  const faults: string[] = [];
  const fault = (text: string) => faults.push(`${path === '' ? '(root)' : path}: ${text}`);
  const bounded = reachedByRule || schema['x-kubernetes-validations'] !== undefined;

  for (const key of Object.keys(schema)) if (!allowed.has(key)) fault(`"${key}" is not structural`);
  const intOrString = schema['x-kubernetes-int-or-string'] === true;
  if (schema.type === undefined && !intOrString) fault('has no type');
  if (schema.type !== undefined && intOrString) fault('has a type beside int-or-string');
  if (schema.pattern !== undefined && !isRe2(schema.pattern)) fault(`pattern ${schema.pattern} is not RE2`);
  if (schema.properties !== undefined && schema.additionalProperties !== undefined)
    fault('has properties and additionalProperties');
  if (schema.type === 'array' && schema.items === undefined) fault('has no items');
  if (schema.enum !== undefined && schema.default !== undefined && !schema.enum.includes(schema.default))
    fault('its default is not among its values');
  for (const name of schema.required ?? []) {
    const property = schema.properties?.[name];
    if (property === undefined) fault(`requires ${name}, which it does not have`);
    else if (property.default !== undefined) fault(`requires ${name}, which has a default`);
  }
  if (schema['x-kubernetes-list-type'] === 'map') {
    for (const key of schema['x-kubernetes-list-map-keys'] ?? [''])
      if (!schema.items?.required?.includes(key) && schema.items?.properties?.[key]?.default === undefined)
        fault(`its map key "${key}" may be missing in an item`);
  }
  if (bounded) {
    if (schema.type === 'string' && schema.maxLength === undefined && schema.enum === undefined)
      fault('has no maxLength, but a CEL rule reaches it');
    if (schema.type === 'array' && schema.maxItems === undefined)
      fault('has no maxItems, but a CEL rule reaches it');
    if (schema.additionalProperties !== undefined && schema.maxProperties === undefined)
      fault('has no maxProperties, but a CEL rule reaches it');
  }

  for (const [name, property] of Object.entries(schema.properties ?? {})) {
    const at = path === '' ? name : `${path}.${name}`;
    if (at === 'metadata') {
      const others = Object.keys({ ...property, ...property.properties }).filter(
        (key) => !allowedInMetadata.has(key),
      );
      for (const key of others) faults.push(`${at}: "${key}" is not allowed`);
    } else if ((property.description ?? '') === '') faults.push(`${at}: has no description`);
    faults.push(...structuralFaults(property, at, bounded));
  }
  if (schema.items !== undefined) faults.push(...structuralFaults(schema.items, `${path}[]`, bounded));
  if (schema.additionalProperties !== undefined)
    faults.push(...structuralFaults(schema.additionalProperties, `${path}{}`, bounded));
  return faults;
}

/** RE2 (https://github.com/google/re2/wiki/Syntax) has neither lookaround nor back references. */
function isRe2(pattern: string): boolean {
  return !/\(\?(=|!|<=|<!)|\\[1-9]|\\k</.test(pattern);
}
