import { type Condition, type ConditionType, findCondition } from '../api/conditions.ts';
import type { MemberValue } from '../dcs/index.ts';
import type { EventNote } from '../kube/index.ts';
import type { Action } from './action.ts';

/** Whether a condition in this status is good news. */
const wanted: Readonly<Record<ConditionType, Condition['status'] | undefined>> = {
  Accepted: 'True',
  Ready: 'True',
  Progressing: undefined,
  Degraded: 'False',
  Paused: 'False',
  SynchronousReplication: 'True',
  EtcdReachable: 'True',
  VolumesBound: 'True',
  SettingsApplied: 'True',
  SlotsHealthy: 'True',
};

interface Told {
  readonly conditions?: readonly Condition[] | undefined;
  readonly primary?: string | undefined;
  readonly term?: number | undefined;
  readonly timeline?: number | undefined;
}

/** The Events that a change of status is worth: transitions only, so that an Event is news. */
export function eventsOfChange(before: Told, after: Told): EventNote[] {
  const notes: EventNote[] = [];
  if (after.primary !== undefined && after.primary !== before.primary) {
    const instead = before.primary === undefined ? '' : ` instead of ${before.primary}`;
    notes.push({
      type: 'Normal',
      reason: 'PrimaryChanged',
      message: `${after.primary} is the primary now${instead} (term ${after.term ?? '?'}, timeline ${after.timeline ?? '?'})`,
    });
  }
  for (const condition of after.conditions ?? []) {
    const good = wanted[condition.type as ConditionType];
    if (good === undefined) continue;
    const former = before.conditions?.find((each) => each.type === condition.type);
    if (former?.status === condition.status && former.reason === condition.reason) continue;
    const isGood = condition.status === good;
    // That something begins well is no news, and what is not known yet is none either.
    if (condition.status === 'Unknown' || (isGood && (former === undefined || former.status === good)))
      continue;
    // What comes and goes with every restart shows in the conditions; Events are for what people ask about.
    if (routine.has((isGood ? former : condition)?.reason ?? '')) continue;
    if (!isGood && former === undefined && quietAtFirst.has(condition.reason)) continue;
    notes.push({
      type: isGood ? 'Normal' : 'Warning',
      reason: condition.reason,
      message: condition.message,
    });
  }
  return notes;
}

/**
 * The Event that a failed switchover, or a refused failover, is worth: one for each request.
 * @param told revision of the request whose failure was told last; undefined: this operator has told none yet, but an
 *   earlier one may have told what the conditions say
 */
export function failureNews(
  failed: NonNullable<MemberValue['refusedRequest']>,
  told: string | undefined,
  conditions: readonly Condition[] | undefined,
): EventNote | undefined {
  const said = findCondition(conditions, 'Progressing')?.message;
  const isOld = told === undefined ? said?.includes(failed.message) === true : told === failed.revision;
  if (isOld) return undefined;
  return {
    type: 'Warning',
    reason: failed.kind === 'failover' ? 'FailoverRefused' : 'SwitchoverFailed',
    message: failed.message,
  };
}

/** What every instance goes through when it starts. */
const routine = new Set([
  'Creating',
  'Cloning',
  'InstanceUnreachable',
  'InstancesNotReady',
  'Restarting',
  'Rewinding',
  'Unknown',
]);
/** What every new resource goes through. */
const quietAtFirst = new Set(['VolumeNotBound', 'WaitingForStandby', 'RestartPending']);

/** The Event that an executed action is worth; undefined: it only shows in the log. */
export function eventOfAction(action: Action): EventNote | undefined {
  const note = (reason: string, message: string): EventNote => ({ type: 'Normal', reason, message });
  switch (action.do) {
    case 'delete':
      switch (action.resource.kind) {
        case 'Pod':
          return note('PodReplaced', `${action.ref.name} is stopped and started anew: ${action.because}`);
        case 'PgInstance':
          return note('InstanceRemoved', `${action.ref.name} is removed: ${action.because}`);
        case 'PersistentVolumeClaim':
          return note('VolumeDeleted', `${action.ref.name} is deleted: ${action.because}`);
        case 'Job':
          return undefined;
        default:
          return undefined;
      }
    case 'command':
      return action.value.do === 'reclone'
        ? note('RecloneOrdered', `${action.instance} is cloned anew from the primary: ${action.because}`)
        : note('RestartOrdered', `Postgres of ${action.instance} is restarted: ${action.because}`);
    case 'request':
      if (action.value.kind === 'failover')
        return { type: 'Warning', reason: 'FailoverRequested', message: action.because };
      return note(
        'SwitchoverRequested',
        `${action.value.to ?? 'A standby'} is to become primary: ${action.because}`,
      );
    case 'clear-slice':
      return note('TrafficStopped', action.because);
    case 'create':
      return action.object.kind === 'Job'
        ? note('VolumeFilling', `${action.object.metadata.name}: ${action.because}`)
        : undefined;
    case 'annotate':
      if (action.event !== undefined) return action.event;
      return action.resource.kind === 'PersistentVolumeClaim' &&
        Object.values(action.annotations).some(isTime)
        ? note(
            'VolumeKept',
            `The volume ${action.ref.name} is kept and will be used again by the next instance of that name; delete its PersistentVolumeClaim if it is not needed`,
          )
        : undefined;
    default:
      return undefined;
  }
}

const isTime = (value: string | null): boolean => value !== null && /^\d{4}-\d\d-\d\dT/.test(value);
