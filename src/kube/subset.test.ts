import { describe, expect, it } from 'vitest';
import { isSubset } from './subset.ts';

const cases: [what: string, rendered: unknown, live: unknown, expected: boolean][] = [
  ['equal', { a: 1, b: ['x'] }, { a: 1, b: ['x'] }, true],
  ['defaults and other fields in live', { spec: { a: 1 } }, { spec: { a: 1, b: 2 }, status: {} }, true],
  ['another value', { spec: { a: 1 } }, { spec: { a: 2 } }, false],
  ['a missing value', { spec: { a: 1 } }, { spec: {} }, false],
  ['another type', { a: '1' }, { a: 1 }, false],
  ['undefined is not rendered', { a: undefined }, { a: 1 }, true],
  ['empty and missing', { a: {}, b: [], c: '', d: null, e: false, f: 0 }, {}, true],
  ['zero is not one', { replicas: 0 }, { replicas: 1 }, false],
  ['false is not true', { on: false }, { on: true }, false],
  ['an empty map says nothing', { emptyDir: {} }, { emptyDir: { medium: 'Memory' } }, true],
  ['a map of undefined in no map', { a: { b: undefined } }, {}, true],
  ['atomic list, longer', { args: ['a'] }, { args: ['a', 'b'] }, false],
  ['atomic list, other order', { args: ['a', 'b'] }, { args: ['b', 'a'] }, false],
  ['atomic list of objects with defaults', { rules: [{ a: 1 }] }, { rules: [{ a: 1, b: 2 }] }, true],
  ['a rule that somebody added', { rules: [{ a: 1 }] }, { rules: [{ a: 1 }, { a: 2 }] }, false],
  ['merged list with more', { env: [{ name: 'A' }] }, { env: [{ name: 'B' }, { name: 'A' }] }, true],
  ['merged list with another value', { env: [{ name: 'A', value: 'x' }] }, { env: [{ name: 'A' }] }, false],
  ['finalizers of others', { finalizers: ['a'] }, { finalizers: ['b', 'a'] }, true],
  ['no finalizers of ours', { finalizers: [] }, { finalizers: ['b'] }, true],
  ['an emptied atomic list', { args: [] }, { args: ['a'] }, false],
  ['quantity, rewritten', { requests: { storage: '1024Mi' } }, { requests: { storage: '1Gi' } }, true],
  ['quantity, number', { limits: { cpu: 1 } }, { limits: { cpu: '1' } }, true],
  ['quantity, fraction', { limits: { cpu: '0.5' } }, { limits: { cpu: '500m' } }, true],
  ['quantity, exponent', { limits: { memory: '1e3' } }, { limits: { memory: '1k' } }, true],
  ['quantity, binary fraction', { limits: { memory: '1.5Gi' } }, { limits: { memory: '1536Mi' } }, true],
  ['quantity, other', { requests: { storage: '1Gi' } }, { requests: { storage: '1G' } }, false],
  [
    'quantity, beyond 2^53',
    { limits: { x: '9007199254740993' } },
    { limits: { x: '9007199254740992' } },
    false,
  ],
  ['quantity of an emptyDir', { sizeLimit: '1024Ki' }, { sizeLimit: '1Mi' }, true],
  ['text that looks like a quantity', { value: '1024Mi' }, { value: '1Gi' }, false],
  ['no list', { args: ['a'] }, { args: 'a' }, false],
  ['no map', { a: { b: 1 } }, { a: [1] }, false],
];

describe('isSubset', () => {
  it.each(cases)('%s', (_, rendered, live, expected) => {
    expect(isSubset(rendered, live)).toBe(expected);
  });
});
