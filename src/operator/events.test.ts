import { describe, expect, it } from 'vitest';
import type { Condition } from '../api/conditions.ts';
import { resources } from '../kube/index.ts';
import { eventOfAction, eventsOfChange, failureNews } from './events.ts';

const condition = (type: string, status: Condition['status'], reason: string): Condition => ({
  type,
  status,
  reason,
  message: `${reason}.`,
  lastTransitionTime: '2026-01-01T00:00:00Z',
});
const reasons = (before: Condition[], after: Condition[]) =>
  eventsOfChange({ conditions: before }, { conditions: after }).map(
    ({ type, reason }) => `${type} ${reason}`,
  );

describe('changes of a status that are news', () => {
  it.each([
    [
      'trouble',
      [condition('EtcdReachable', 'True', 'EtcdHealthy')],
      [condition('EtcdReachable', 'False', 'EtcdUnreachable')],
      ['Warning EtcdUnreachable'],
    ],
    [
      'its end',
      [condition('EtcdReachable', 'False', 'EtcdUnreachable')],
      [condition('EtcdReachable', 'True', 'EtcdHealthy')],
      ['Normal EtcdHealthy'],
    ],
    [
      'trouble from the beginning',
      [],
      [condition('Accepted', 'False', 'InvalidSpec')],
      ['Warning InvalidSpec'],
    ],
    [
      'trouble of another kind',
      [condition('Ready', 'False', 'Creating')],
      [condition('Ready', 'False', 'ImagePullFailed')],
      ['Warning ImagePullFailed'],
    ],
  ])('are %s', (_, before, after, expected) => {
    expect(reasons(before, after)).toEqual(expected);
  });
  it.each([
    ['what begins well', [], [condition('Accepted', 'True', 'SpecAccepted')]],
    ['what stays', [condition('Ready', 'False', 'NoPrimary')], [condition('Ready', 'False', 'NoPrimary')]],
    ['what every start goes through', [], [condition('Ready', 'False', 'Creating')]],
    [
      'restarts',
      [condition('Degraded', 'False', 'AllInstancesReady')],
      [condition('Degraded', 'True', 'InstancesNotReady')],
    ],
    ['progress', [], [condition('Progressing', 'True', 'Updating')]],
  ])('are not: %s', (_, before, after) => {
    expect(reasons(before, after)).toEqual([]);
  });
  it('include a new primary', () => {
    const notes = eventsOfChange({ primary: 'shop-1' }, { primary: 'shop-2', term: 3, timeline: 4 });
    expect(notes).toEqual([
      {
        type: 'Normal',
        reason: 'PrimaryChanged',
        message: 'shop-2 is the primary now instead of shop-1 (term 3, timeline 4)',
      },
    ]);
  });
});

describe('a failed switchover', () => {
  const failed = { revision: '45', message: 'the phase "prepare" took too long; the primary stays' };
  const said = [condition('Progressing', 'False', 'SwitchoverFailed')].map((each) => ({
    ...each,
    message: `Nothing is being changed. The last switchover asked for failed: ${failed.message}`,
  }));

  it('is told once for each request', () => {
    const note = { type: 'Warning', reason: 'SwitchoverFailed', message: failed.message };
    expect(failureNews(failed, undefined, [])).toEqual(note);
    expect(failureNews(failed, '45', said)).toBeUndefined();
    expect(failureNews({ ...failed, revision: '46' }, '45', said)).toEqual(note);
  });

  it('is told as a refused failover if it was one', () => {
    expect(failureNews({ ...failed, kind: 'failover' }, undefined, [])?.reason).toBe('FailoverRefused');
  });

  it('is not told again by an operator that was started anew', () => {
    expect(failureNews(failed, undefined, said)).toBeUndefined();
  });
});

it('says what is done to pods, and nothing of what is only kept up to date', () => {
  const because = 'the pod template has changed';
  expect(
    eventOfAction({ do: 'delete', resource: resources.pods, ref: { name: 'shop-1-0' }, uid: 'u', because })
      ?.message,
  ).toBe('shop-1-0 is stopped and started anew: the pod template has changed');
  const order = { do: 'command', instance: 'shop-2', because } as const;
  expect(eventOfAction({ ...order, value: { id: '1', do: 'restart' } })?.reason).toBe('RestartOrdered');
  expect(eventOfAction({ ...order, value: { id: '1', do: 'reclone' } })?.reason).toBe('RecloneOrdered');
  const object = { apiVersion: 'v1', kind: 'Service', metadata: { name: 'shop-rw' } };
  expect(eventOfAction({ do: 'apply', object, because })).toBeUndefined();
});
