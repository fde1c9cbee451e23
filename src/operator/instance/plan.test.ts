import { describe, expect, it } from 'vitest';
import { emptyView } from '../../dcs/index.ts';
import type { PersistentVolumeClaim, StatefulSet } from '../../kube/index.ts';
import { withAppliedHash } from '../../kube/index.ts';
import type { Action } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { instance, job, pod, readyPod, set, snapshot } from '../testing/instance-fixtures.ts';
import { filledClaim, now } from '../testing/model.ts';
import { desiredClaims } from './desired/claims.ts';
import { initJob } from './desired/init-job.ts';
import { initMode, planInstance } from './plan.ts';
import type { InstanceSnapshot } from './snapshot.ts';

const short = (actions: readonly Action[]) =>
  actions.map((action) =>
    action.do === 'delete'
      ? `delete ${action.resource.kind}`
      : 'object' in action
        ? `${action.do} ${action.object.kind}/${action.object.metadata.name}`
        : action.do,
  );
const plan = (more: Partial<InstanceSnapshot> = {}) => short(planInstance(snapshot(more)).actions);
/** The claim as the operator itself applied it, empty or filled. */
const claim = (filled: boolean, spec = instance()): PersistentVolumeClaim => {
  const [wanted] = desiredClaims(spec, {}, { initialized: filled ? now.toISOString() : undefined });
  if (wanted === undefined) throw new Error('no claim');
  return { ...withAppliedHash(wanted), status: { phase: 'Bound', capacity: { storage: '1Gi' } } };
};
const unreachable = { known: false, reason: 'EtcdUnreachable', message: 'no answer' } as const;
const nothingStored = { known: true, value: emptyView } as const;

describe('the way of an instance', () => {
  it('begins with volume and init Job', () => {
    expect(plan()).toEqual(['apply PersistentVolumeClaim/shop-1', 'create Job/shop-1-init']);
  });
  it('has a WAL volume if the spec says so', () => {
    const withWal = instance({ storage: { size: '1Gi', wal: { size: '512Mi' } } });
    expect(plan({ instance: withWal })).toEqual([
      'apply PersistentVolumeClaim/shop-1',
      'apply PersistentVolumeClaim/shop-1-wal',
      'create Job/shop-1-init',
    ]);
  });
  it('waits for the Job', () => {
    expect(plan({ claims: { data: claim(false) }, job: job() })).toEqual([]);
  });
  it('marks the volume when the Job has succeeded', () => {
    const { actions } = planInstance(snapshot({ claims: { data: claim(false) }, job: job('Complete') }));
    expect(short(actions)).toEqual(['apply PersistentVolumeClaim/shop-1']);
    expect(actions[0]).toMatchObject({
      object: { metadata: { annotations: { [operatorAnnotation.initialized]: now.toISOString() } } },
    });
  });
  it('then removes the Job and starts the pod', () => {
    expect(plan({ claims: { data: claim(true) }, job: job('Complete') })).toEqual([
      'delete Job',
      'apply StatefulSet/shop-1',
    ]);
  });
  it('starts at once on a volume that is filled', () => {
    expect(plan({ claims: { data: claim(true) } })).toEqual(['apply StatefulSet/shop-1']);
  });
  it('ends when nothing is left to do', () => {
    const data = claim(true);
    const [start] = planInstance(snapshot({ claims: { data } })).actions;
    if (start?.do !== 'apply') throw new Error('no StatefulSet');
    const statefulSet = withAppliedHash(start.object) as StatefulSet;
    expect(plan({ claims: { data }, statefulSet, pod: readyPod() })).toEqual([]);
  });
  it('leaves pods alone when another version of the operator renders them differently', () => {
    const data = claim(true);
    const [start] = planInstance(snapshot({ claims: { data } })).actions;
    if (start?.do !== 'apply') throw new Error('no StatefulSet');
    const other = structuredClone(start.object) as StatefulSet;
    if (other.spec !== undefined) other.spec.minReadySeconds = 5;
    const statefulSet = withAppliedHash(other);
    expect(plan({ claims: { data }, statefulSet, pod: readyPod() })).toEqual([]);
    const changed = instance({ resources: { requests: { cpu: '2' } } });
    expect(plan({ instance: changed, claims: { data }, statefulSet, pod: readyPod() })).toEqual([
      'apply StatefulSet/shop-1',
    ]);
  });
  it('takes back what somebody changed by hand', () => {
    const data = claim(true);
    const [start] = planInstance(snapshot({ claims: { data } })).actions;
    if (start?.do !== 'apply') throw new Error('no StatefulSet');
    const statefulSet = withAppliedHash(start.object) as StatefulSet;
    const edited = { ...statefulSet, spec: { ...statefulSet.spec, replicas: 3 } } as StatefulSet;
    expect(plan({ claims: { data }, statefulSet: edited, pod: readyPod() })).toEqual([
      'apply StatefulSet/shop-1',
    ]);
  });
  it('touches nothing while it is being deleted', () => {
    const deleted = instance();
    deleted.metadata.deletionTimestamp = now.toISOString();
    expect(planInstance(snapshot({ instance: deleted }))).toEqual({ actions: [], status: undefined });
  });
});

describe('an init Job', () => {
  const waiting = { claims: { data: claim(false) } };
  it('that failed is started anew after a while', () => {
    const ago = (seconds: number) => new Date(now.getTime() - seconds * 1000);
    expect(plan({ ...waiting, job: job('Failed', ago(10), template()) })).toEqual([]);
    expect(plan({ ...waiting, job: job('Failed', ago(61), template()) })).toEqual(['delete Job']);
  });
  it('that failed is started anew at once when the spec has changed', () => {
    expect(
      plan({ ...waiting, job: job('Failed', now, { [operatorAnnotation.template]: 'another' }) }),
    ).toEqual(['delete Job']);
  });
  it('that runs is left alone when the spec changes, unless its pod cannot start', () => {
    const old = job(undefined, now, { [operatorAnnotation.template]: 'another' });
    expect(plan({ ...waiting, job: old, initPods: [pod()] })).toEqual([]);
    const stuck = pod({
      containerStatuses: [{ name: 'init', state: { waiting: { reason: 'ImagePullBackOff' } } }],
    });
    expect(plan({ ...waiting, job: old, initPods: [stuck] })).toEqual(['delete Job']);
  });
  it('never meets the pod of the instance on one volume: a volume made anew is filled by the agent', () => {
    const lost = { claims: { data: claim(false) }, statefulSet: set };
    expect(plan({ ...lost, pod: pod() }).filter((each) => each.includes('Job'))).toEqual([]);
    const { actions } = planInstance(snapshot({ ...lost, pod: readyPod() }));
    const marked = actions.find(
      (each) => each.do === 'apply' && each.object.kind === 'PersistentVolumeClaim',
    );
    expect(marked).toMatchObject({
      object: { metadata: { annotations: { [operatorAnnotation.initialized]: now.toISOString() } } },
    });
  });

  const template = () => initJob(instance(), 'clone', 'discovery.k8s.io/v1').metadata.annotations ?? {};
});

describe('a new database', () => {
  const founder = instance({ initMode: 'initdb' });
  const cases: [string, Partial<InstanceSnapshot>, 'initdb' | 'clone' | undefined][] = [
    [
      'is made by the founder of a new cluster',
      { instance: founder, etcd: nothingStored, clusterHasLived: false },
      'initdb',
    ],
    ['is not made where etcd knows one', { instance: founder, clusterHasLived: false }, 'clone'],
    ['is not made where there are data', { instance: founder, etcd: nothingStored }, undefined],
    [
      'is not made when etcd cannot be asked',
      { instance: founder, etcd: unreachable, clusterHasLived: false },
      undefined,
    ],
    ['is not made by others', { etcd: nothingStored, clusterHasLived: false }, 'clone'],
  ];
  it.each(cases)('%s', (_, more, mode) => {
    expect(initMode(snapshot(more))).toBe(mode);
  });
  it('gets the password of the application, a clone does not', () => {
    const names = (mode: 'initdb' | 'clone') =>
      initJob(founder, mode, 'discovery.k8s.io/v1').spec?.template.spec?.containers[0]?.env?.map(
        ({ name }) => name,
      );
    expect(names('initdb')).toContain('KOSCHEI_APP_PASSWORD');
    expect(names('clone')).not.toContain('KOSCHEI_APP_PASSWORD');
  });
});

describe('a volume', () => {
  it('grows, and never shrinks', () => {
    const size = (wanted: string, present: string) => {
      const found = filledClaim('shop', 'abcdefghijklmnop', 'shop-1');
      const data = {
        ...found,
        spec: { ...found.spec, resources: { requests: { storage: present } } },
      } as PersistentVolumeClaim;
      const [claimed] = desiredClaims(instance({ storage: { size: wanted } }), { data }, {});
      return claimed?.spec?.resources?.requests?.storage;
    };
    expect(size('2Gi', '1Gi')).toBe('2Gi');
    expect(size('1Gi', '2Gi')).toBe('2Gi');
    expect(size('1Gi', '1024Mi')).toBe('1024Mi');
  });
  it('belongs to nobody, so that it outlives everybody', () => {
    for (const each of desiredClaims(instance({ storage: { size: '1Gi', wal: { size: '1Gi' } } }), {}, {})) {
      expect(each.metadata.ownerReferences).toBeUndefined();
    }
  });
  it('that cannot grow holds up nothing else', () => {
    const grown = instance({ storage: { size: '2Gi' } });
    const actions = plan({ instance: grown, claims: { data: claim(true) } });
    expect(actions).toEqual(['apply StatefulSet/shop-1', 'apply PersistentVolumeClaim/shop-1']);
  });
});
