import { clusterSelector, label, type RoleLabel } from '../api/names.ts';

/** Tells the pods of instances from those of init Jobs, which share their other labels for the scheduler's sake. */
export const componentLabel = label.component;

/** Selects the pods of a cluster's instances, or those of one role. */
export const podSelector = (cluster: string, role?: RoleLabel): Record<string, string> => ({
  ...clusterSelector(cluster, role),
  [componentLabel]: 'postgres',
});
