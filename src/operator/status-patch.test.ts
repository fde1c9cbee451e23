import fc from 'fast-check';
import { expect, it } from 'vitest';
import { mergePatchOf } from './status-patch.ts';

it('is nothing when nothing changed', () => {
  expect(mergePatchOf({ a: 1, b: { c: ['x'] } }, { b: { c: ['x'] }, a: 1 })).toBeUndefined();
});
it('removes what is gone, also within objects', () => {
  expect(mergePatchOf({ spec: { a: '1', b: '2' } }, { spec: { a: '1' } })).toEqual({ spec: { b: null } });
});
it('takes an empty text for nothing', () => {
  expect(mergePatchOf({ sync: 'a' }, { sync: '' })).toEqual({ sync: null });
  expect(mergePatchOf({}, { sync: '' })).toBeUndefined();
});
it('replaces lists as a whole', () => {
  expect(mergePatchOf({ l: [1, 2] }, { l: [1] })).toEqual({ l: [1] });
});

/** RFC 7386, section 2. */
function merge(target: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch;
  const base = typeof target === 'object' && target !== null && !Array.isArray(target) ? { ...target } : {};
  const result: Record<string, unknown> = base as Record<string, unknown>;
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete result[key];
    else result[key] = merge(result[key], value);
  }
  return result;
}

it('leads from any object to any other', () => {
  const key = fc.constantFrom('a', 'b', 'c');
  const leaf = fc.oneof(fc.integer(), fc.constantFrom('x', 'y'), fc.array(fc.integer(), { maxLength: 2 }));
  const object = fc.dictionary(key, fc.oneof(leaf, fc.dictionary(key, leaf)));
  fc.assert(
    fc.property(object, object, (before, after) => {
      expect(merge(before, mergePatchOf(before, after) ?? {})).toEqual(after);
    }),
  );
});
