import type { Job } from '../../kube/index.ts';

/** A failed init Job is started anew after this long, ms; within the Job Kubernetes has tried three times by then. */
export const initRetryMs = 60_000;

const conditionOf = (job: Job, type: string) =>
  job.status?.conditions?.find((condition) => condition.type === type && condition.status === 'True');

export const hasSucceeded = (job: Job): boolean => conditionOf(job, 'Complete') !== undefined;

/** When the Job gave up, ms since 1970; undefined: it has not. */
export function failureTime(job: Job): number | undefined {
  const failed = conditionOf(job, 'Failed');
  if (failed === undefined) return undefined;
  const at = Date.parse(failed.lastTransitionTime ?? '');
  return Number.isNaN(at) ? 0 : at;
}
