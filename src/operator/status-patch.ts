/**
 * The JSON merge patch (RFC 7386) that turns `before` into `after`; undefined when they are the same. Both are plain
 * JSON; fields that are undefined or an empty text count as absent. (API servers as old as 1.20 take an empty text in
 * a merge patch for null.)
 */
export function mergePatchOf(before: unknown, after: unknown): unknown {
  if (!isRecord(before) || !isRecord(after)) return same(before, after) ? undefined : after;
  const patch: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(after)) {
    if (isAbsent(value)) continue;
    const change = mergePatchOf(before[key], value);
    if (change !== undefined) patch[key] = change;
  }
  for (const [key, value] of Object.entries(before)) {
    if (value !== undefined && isAbsent(after[key])) patch[key] = null;
  }
  return Object.keys(patch).length === 0 ? undefined : patch;
}

const isAbsent = (value: unknown): boolean => value === undefined || value === '';

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function same(a: unknown, b: unknown): boolean {
  if (Array.isArray(a) && Array.isArray(b))
    return a.length === b.length && a.every((item, i) => same(item, b[i]));
  if (isRecord(a) && isRecord(b)) return mergePatchOf(a, b) === undefined;
  return a === b;
}
