import { describe, expect, it } from 'vitest';
import { PgInstanceStatus } from '../../api/pginstance.ts';
import { type ClusterView, emptyView, type MemberValue } from '../../dcs/index.ts';
import { instance, job, pod, readyPod, set, snapshot } from '../testing/instance-fixtures.ts';
import { filledClaim, now } from '../testing/model.ts';
import type { InstanceSnapshot } from './snapshot.ts';
import { statusOf } from './status.ts';

const data = filledClaim('shop', 'abcdefghijklmnop', 'shop-1');
const empty = filledClaim('shop', 'abcdefghijklmnop', 'shop-1');
empty.metadata.annotations = {};
const says = (more: Partial<MemberValue> = {}): MemberValue => ({
  instance: 'shop-1',
  dataId: '0123456789abcdef',
  bootId: 'boot-0001',
  address: '10.0.0.1',
  node: 'node-1',
  podUid: 'uid-of-shop-1-0',
  role: 'standby',
  state: 'streaming',
  agentVersion: '1',
  timeline: 2,
  lagBytes: 0,
  ...more,
});
const view = (
  member: MemberValue | undefined,
  more: Partial<ClusterView> = {},
): InstanceSnapshot['etcd'] => ({
  known: true,
  value: {
    ...emptyView,
    members: new Map(member === undefined ? [] : [['shop-1', { value: member, revision: '1' }]]),
    ...more,
  },
});
const status = (more: Partial<InstanceSnapshot>) =>
  statusOf(snapshot({ claims: { data }, statefulSet: set, ...more })).status;
const ready = (more: Partial<InstanceSnapshot>) =>
  status(more).conditions?.find(({ type }) => type === 'Ready');
const podWithVolumes = (...claims: string[]) => {
  const volumes = claims.map((claimName) => ({ name: claimName, persistentVolumeClaim: { claimName } }));
  const made = pod();
  return { ...made, spec: { containers: [], ...made.spec, volumes } };
};
const waiting = (reason: string, message = '') =>
  pod({
    phase: 'Pending',
    containerStatuses: [
      { name: 'postgres', image: 'postgres:typo', state: { waiting: { reason, message } } },
    ],
  });

describe('the status of an instance', () => {
  it('shows a standby at a glance', () => {
    const sync = {
      value: { term: 1, mode: 'sync' as const, names: [{ instance: 'shop-1', dataId: '0123456789abcdef' }] },
      revision: '1',
    };
    expect(status({ pod: readyPod(), etcd: view(says(), { sync }) })).toMatchObject({
      role: 'standby',
      sync: 'sync',
      state: 'Streaming',
      lag: '<1MB',
      node: 'node-1',
      timeline: 2,
    });
  });

  it('is always one that the schema takes', () => {
    for (const each of [{}, { pod: readyPod() }, { pod: readyPod(), etcd: view(says()) }, { claims: {} }]) {
      expect(PgInstanceStatus.safeParse(status(each)).success).toBe(true);
    }
  });

  it('keeps what is known while etcd does not answer', () => {
    const before = instance();
    before.status = { role: 'primary', lag: '', timeline: 4 };
    const etcd = { known: false, reason: 'EtcdUnreachable', message: 'no answer' } as const;
    expect(status({ instance: before, pod: readyPod(), etcd })).toMatchObject({
      role: 'primary',
      timeline: 4,
      state: 'Running',
    });
  });

  it('does not follow every change of the lag', () => {
    const before = instance();
    before.status = { lag: '<1MB' };
    const behind = { instance: before, pod: readyPod(), etcd: view(says({ lagBytes: 5_000_000 })) };
    expect(status({ ...behind, lagChangedMsAgo: 2_000 }).lag).toBe('<1MB');
    expect(
      statusOf(snapshot({ claims: { data }, statefulSet: set, ...behind, lagChangedMsAgo: 2_000 }))
        .requeueAfterMs,
    ).toBe(8_000);
    expect(status({ ...behind, lagChangedMsAgo: 11_000 }).lag).toBe('<16MB');
    before.status = { lag: '>=16MB' };
    expect(status({ ...behind, lagChangedMsAgo: 2_000 }).lag, 'good news at once').toBe('<16MB');
  });
});

describe('since when the node has been away', () => {
  const seconds = (n: number) => new Date(now.getTime() + n * 1000);
  const text = (n: number) =>
    seconds(n)
      .toISOString()
      .replace(/\.\d+Z$/, 'Z');
  const sinceWhen = (before: string | undefined, more: Partial<InstanceSnapshot>) => {
    const found = instance();
    found.status = before === undefined ? {} : { waitingForNodeSince: before };
    return status({ instance: found, pod: pod(), ...more }).waitingForNodeSince;
  };
  const away = { name: 'node-1', state: 'not-ready' } as const;

  it('is when it was first seen to be, and that is kept', () => {
    expect(sinceWhen(undefined, { node: away })).toBe(text(0));
    expect(sinceWhen(text(-900), { node: away })).toBe(text(-900));
    expect(sinceWhen(text(-900), { node: { name: 'node-1', state: 'gone' } })).toBe(text(-900));
    // The pod is gone with its node, and the next one not there yet.
    expect(sinceWhen(text(-900), { pod: undefined, node: away })).toBe(text(-900));
  });

  it('begins anew when it was there in between, although nobody looked', () => {
    expect(sinceWhen(text(-900), { node: { ...away, since: seconds(-60).getTime() } })).toBe(text(-60));
  });

  it('never lies in the future, and never before somebody looked', () => {
    expect(sinceWhen(text(-900), { node: { ...away, since: seconds(60).getTime() } })).toBe(text(0));
    expect(sinceWhen(undefined, { node: { ...away, since: seconds(-3600).getTime() } })).toBe(text(0));
  });

  it('is nothing when the node, or the instance, works', () => {
    expect(sinceWhen(text(-900), { node: { name: 'node-1', state: 'ready' } })).toBeUndefined();
    expect(sinceWhen(text(-900), { pod: readyPod(), node: away })).toBeUndefined();
    expect(sinceWhen(text(-900), { node: undefined })).toBeUndefined();
  });
});

describe('why an instance is not ready', () => {
  const cases: [string, Partial<InstanceSnapshot>, string, RegExp][] = [
    [
      'an image that cannot be pulled',
      { pod: waiting('ImagePullBackOff') },
      'ImagePullFailed',
      /postgres:typo.*Correct/,
    ],
    [
      'a Secret that is missing',
      { pod: waiting('CreateContainerConfigError', 'secret "x" not found') },
      'SecretMissing',
      /secret "x" not found/,
    ],
    [
      'no node that takes it',
      {
        pod: pod({
          phase: 'Pending',
          conditions: [{ type: 'PodScheduled', status: 'False', message: '0/3 nodes: Insufficient cpu' }],
        }),
      },
      'WaitingForScheduling',
      /Insufficient cpu/,
    ],
    [
      'its node is away',
      { pod: podWithVolumes('shop-1'), node: { name: 'node-1', state: 'not-ready' } },
      'WaitingForNode',
      /node-1.* delete the Node; .* delete the claim shop-1:/,
    ],
    [
      'the node on which its volume was being filled is gone',
      {
        claims: { data: empty },
        statefulSet: undefined,
        initPods: [{ ...podWithVolumes('shop-1'), spec: { containers: [] } }],
        node: { name: 'node-1', state: 'gone' },
      },
      'WaitingForNode',
      /node-1, which does not exist any more/,
    ],
    [
      'its node is gone',
      { pod: podWithVolumes('shop-1', 'shop-1-wal'), node: { name: 'node-1', state: 'gone' } },
      'WaitingForNode',
      /does not exist.*, delete the claims shop-1 and shop-1-wal:/,
    ],
    [
      'Postgres is broken',
      {
        pod: pod(),
        etcd: view(says({ state: 'stopped', problem: { reason: 'StartFailed', message: 'no' } })),
      },
      'PostgresNotRunning',
      /StartFailed: no/,
    ],
    [
      'its disk is stalled',
      {
        pod: pod(),
        etcd: view(says({ state: 'stopped', problem: { reason: 'DiskStalled', message: 'data volume' } })),
      },
      'DiskStalled',
      /^data volume/,
    ],
    [
      'it is on its way',
      { pod: pod(), etcd: view(says({ state: 'catching-up' })) },
      'Restarting',
      /catching-up/,
    ],
    [
      'what an older pod said does not count',
      { pod: pod(), etcd: view(says({ podUid: 'older', state: 'fenced' })) },
      'Restarting',
      /starting/,
    ],
    [
      'the API refuses an object',
      { failure: { object: 'StatefulSet/shop-1', reason: 'forbidden', message: 'no rights' } },
      'Forbidden',
      /no rights/,
    ],
    [
      'a quota is used up',
      { failure: { object: 'Job/shop-1-init', reason: 'forbidden', message: 'exceeded quota: q' } },
      'QuotaExceeded',
      /exceeded quota/,
    ],
    [
      'a name is taken',
      { failure: { object: 'StatefulSet/shop-1', reason: 'name-taken', message: '' } },
      'NameTaken',
      /StatefulSet\/shop-1/,
    ],
  ];
  it.each(cases)('%s', (_, more, reason, message) => {
    expect(ready(more)).toMatchObject({ status: 'False', reason });
    expect(ready(more)?.message).toMatch(message);
  });

  const ended = (terminated: object) =>
    pod({ phase: 'Failed', containerStatuses: [{ name: 'init', state: { terminated } }] }, 'shop-1-init-x');
  const initCases: [string, object, string, RegExp][] = [
    [
      'what the agent says of the image',
      { exitCode: 1, message: '{"reason":"NoPostgresInImage","message":"no Postgres 17"}' },
      'NoPostgresInImage',
      /no Postgres 17/,
    ],
    [
      'an image without a C library of ours',
      { exitCode: 127, message: 'not found' },
      'NoPostgresInImage',
      /Debian/,
    ],
    ['anything else', { exitCode: 2, message: 'out of luck' }, 'InitFailed', /out of luck/],
  ];
  it.each(initCases)('the volume could not be filled: %s', (_, terminated, reason, message) => {
    const more = {
      claims: { data: empty },
      statefulSet: undefined,
      job: job('Failed', now),
      initPods: [ended(terminated)],
    };
    expect(ready(more)).toMatchObject({ status: 'False', reason });
    expect(ready(more)?.message).toMatch(message);
    expect(ready(more)?.message).toMatch(/tried again at 2026-01-01T00:01:00Z/);
  });
});

describe('volumes', () => {
  const bound = (more: Partial<InstanceSnapshot>) =>
    status(more).conditions?.find(({ type }) => type === 'VolumesBound');
  it('that are not bound say so', () => {
    const pending = { ...data, status: { phase: 'Pending' } };
    expect(bound({ claims: { data: pending } })).toMatchObject({ status: 'False', reason: 'VolumeNotBound' });
  });
  it('that may not grow keep their size', () => {
    const failure = {
      object: 'PersistentVolumeClaim/shop-1',
      reason: 'forbidden',
      message: 'only dynamically provisioned pvc can be resized',
    } as const;
    expect(bound({ failure })).toMatchObject({ status: 'False', reason: 'ResizeRefused' });
  });
});
