import { createHash } from 'node:crypto';
import { isSubset } from './subset.ts';
import type { KubeObject } from './types.ts';

/** Carries the hash of the object as it was last rendered and applied. */
export const appliedHashAnnotation = 'koschei.dev/applied-hash';

/**
 * Whether a server-side apply of `object` (with its hash) could change `live`: something else was applied last (so a field
 * may have to be given up), or something rendered is no longer so. Objects whose lists the server fills up on its own,
 * such as the tolerations of bare pods, never settle: do not render those.
 */
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
