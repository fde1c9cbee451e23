import { expect, test } from 'vitest';
import { askedSwitchover } from './asked-switchover.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/** Only what the rule looks at. */
function snapshot(
  asked: string | undefined,
  more: { leader?: string; request?: boolean } = {},
): ClusterSnapshot {
  return {
    cluster: {
      metadata: {
        name: 'shop',
        namespace: 'ns',
        ...(asked === undefined ? {} : { annotations: { 'koschei.dev/switchover': asked } }),
      },
    },
    etcd: {
      known: true,
      value: {
        view: {
          leader: { value: { instance: more.leader ?? 'shop-1', phase: 'leading' }, revision: '7' },
          ...(more.request === true ? { request: { value: {}, revision: '8' } } : {}),
        },
      },
    },
    random: { requestId: 'r1' },
  } as unknown as ClusterSnapshot;
}

const removal = { do: 'annotate', annotations: { 'koschei.dev/switchover': null } };

test('without the annotation nothing is asked for', () => {
  expect(askedSwitchover(snapshot(undefined))).toEqual([]);
});

test('a named instance is asked for, then the annotation goes', () => {
  expect(askedSwitchover(snapshot('shop-2'))).toMatchObject([
    { do: 'request', value: { id: 'r1', kind: 'switchover', to: 'shop-2' } },
    removal,
  ]);
});

test('any leaves the choice to the primary', () => {
  const [request] = askedSwitchover(snapshot('any'));
  expect(request?.do === 'request' && request.value.to).toBeUndefined();
});

test('an earlier request is awaited', () => {
  expect(askedSwitchover(snapshot('shop-2', { request: true }))).toEqual([]);
});

test.each(['shop-1', 'other-1', 'shop-x', ''])('%j is refused with a reason', (asked) => {
  const actions = askedSwitchover(snapshot(asked));
  expect(actions).toMatchObject([removal]);
  expect(actions[0]?.because).toMatch(/^no switchover: /);
});
