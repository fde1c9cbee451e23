import { createHash } from 'node:crypto';
import type { ApplyOptions, KubeClient } from './client.ts';
import { apiVersionOf, type Resource } from './resources.ts';
import { isSubset } from './subset.ts';
import type { KubeObject } from './types.ts';

/** Carries the hash of the object as it was last rendered and applied. */
export const appliedHashAnnotation = 'koschei.dev/applied-hash';

export interface ApplyOutcome<T> {
  readonly outcome: 'unchanged' | 'applied';
  /** What is in the API now, as far as known: the cached object, or the answer to the apply. */
  readonly object: T;
}

/**
 * Server-side apply of a rendered object, skipped when the cache shows that nothing would change: the same was applied
 * last (so no field has to be given up), and everything rendered is still so. Forces by default: what is rendered here
 * is ours. Objects whose lists the server fills up on its own, such as the tolerations of bare pods, never settle:
 * do not render those.
 * @param cached the object as the cache has it; undefined when it has none
 */
export async function applyIfChanged<T extends KubeObject>(
  client: KubeClient,
  resource: Resource<T>,
  rendered: KubeObject,
  cached: T | undefined,
  options: ApplyOptions = {},
): Promise<ApplyOutcome<T>> {
  const object = withAppliedHash(rendered);
  if (cached !== undefined && !needsApply(object, cached)) return { outcome: 'unchanged', object: cached };
  const { kind } = object;
  if (kind !== resource.kind || object.apiVersion !== apiVersionOf(resource)) {
    throw new TypeError(
      `expected a ${apiVersionOf(resource)} ${resource.kind}, found a ${object.apiVersion} ${kind}`,
    );
  }
  return { outcome: 'applied', object: await client.apply(resource, object, { force: true, ...options }) };
}

/** Whether applying `object` (with its hash) could change `live`. */
export const needsApply = (object: KubeObject, live: KubeObject): boolean =>
  live.metadata.annotations?.[appliedHashAnnotation] !==
    object.metadata.annotations?.[appliedHashAnnotation] || !isSubset(object, live);

/** A copy that carries its own hash. Throws for a Secret with `stringData`, which the API never gives back. */
export function withAppliedHash<T extends KubeObject>(rendered: T): T {
  if ('stringData' in rendered) {
    throw new TypeError(
      `Secret ${rendered.metadata.name}: render data (base64), not stringData, which cannot be compared`,
    );
  }
  const { metadata } = rendered;
  const annotations = { ...metadata.annotations, [appliedHashAnnotation]: renderedHash(rendered) };
  return { ...rendered, metadata: { ...metadata, annotations } };
}

/**
 * 32 hexadecimal digits that change with anything rendered but the order of fields. Of a Secret only the names of its
 * keys count: a hash of the values would help to guess them, and their change is seen by comparing them.
 */
export function renderedHash(rendered: KubeObject): string {
  const open =
    rendered.kind === 'Secret' && 'data' in rendered
      ? { ...rendered, data: Object.keys(rendered.data ?? {}) }
      : rendered;
  return createHash('sha256').update(canonical(open)).digest('hex').slice(0, 32);
}

/** JSON with sorted keys. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
