import { describe, expect, it } from 'vitest';
import { ApiError, OutdatedError } from '../kube/index.ts';
import { ActionError, judgeError } from './execute.ts';

describe('an error that ended a pass', () => {
  const subject = 'Secret/shop-app';
  const conflict = () => new ActionError(subject, new OutdatedError('expected none, found it'));

  it('is a failure at once when the API refused something', () => {
    const refused = new ActionError(subject, new ApiError(403, 'Forbidden', 'no'));
    expect(judgeError(refused, 3)).toEqual({ conflicts: 0, failure: refused });
  });

  it('is none for the first few conflicts in a row, then one that says what it is about', () => {
    let conflicts = 0;
    const failures: (ActionError | undefined)[] = [];
    for (let pass = 0; pass < 6; pass += 1) {
      const judged = judgeError(conflict(), conflicts);
      conflicts = judged.conflicts;
      failures.push(judged.failure);
    }
    expect(failures.slice(0, 5)).toEqual(Array.from({ length: 5 }, () => undefined));
    expect(failures[5]).toMatchObject({ object: subject });
    expect(failures[5]?.message).toContain('6 times in a row');
    expect(judgeError(new ActionError(subject, new ApiError(409, 'Conflict', 'x')), 5).failure).toBeDefined();
  });

  it("is somebody else's matter when it is about no action", () => {
    expect(judgeError(new Error('x'), 2)).toEqual({ conflicts: 0, failure: undefined });
  });
});
