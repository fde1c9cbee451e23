import { expect, it } from 'vitest';
import { appliedHashAnnotation, needsApply, renderedHash, withAppliedHash } from './apply.ts';
import type { KubeObject } from './types.ts';

interface Rendered extends KubeObject {
  data: Record<string, string>;
}
const object = (kind: string, data: Record<string, string>): Rendered => ({
  apiVersion: 'v1',
  kind,
  metadata: { namespace: 'ns', name: 'x' },
  data,
});
const live = (rendered: KubeObject, extra: object = {}): KubeObject => ({
  ...withAppliedHash(rendered),
  ...extra,
});

it('hashes content, not the order of fields', () => {
  const a = object('ConfigMap', { a: '1', b: '2' });
  expect(renderedHash(a)).toBe(renderedHash(object('ConfigMap', { b: '2', a: '1' })));
  expect(renderedHash(a)).not.toBe(renderedHash(object('ConfigMap', { a: '1', b: '3' })));
  expect(withAppliedHash(a).metadata.annotations?.[appliedHashAnnotation]).toMatch(/^[0-9a-f]{32}$/);
});

it('reveals nothing about the values of a Secret, and still sees that they differ', () => {
  const old = object('Secret', { password: 'aHVudGVy' });
  const changed = object('Secret', { password: 'aHVudGVyMg==' });
  expect(renderedHash(old)).toBe(renderedHash(changed));
  expect(needsApply(withAppliedHash(changed), live(old))).toBe(true);
  expect(renderedHash(old)).not.toBe(renderedHash(object('Secret', { password: 'aHVudGVy', user: 'YQ==' })));
});

it('refuses stringData, which would look like drift for ever', () => {
  const secret = { ...object('Secret', {}), stringData: { password: 'hunter' } };
  expect(() => withAppliedHash(secret)).toThrow('stringData');
});

it('applies when something was rendered differently or left out, and when somebody changed it', () => {
  const before = object('ConfigMap', { a: '1', b: '2' });
  expect(needsApply(withAppliedHash(before), live(before, { extra: 1 }))).toBe(false);
  expect(needsApply(withAppliedHash(object('ConfigMap', { a: '1' })), live(before))).toBe(true);
  expect(needsApply(withAppliedHash(before), live(before, { data: { a: '1', b: 'mine' } }))).toBe(true);
});
