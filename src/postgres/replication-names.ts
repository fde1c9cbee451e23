import { quoteIdentifier } from './quote.ts';

/**
 * `application_name` and slot name of an instance: `k_` and the data id. Names are cut at 63 bytes by Postgres, and a
 * data id never matches data that was made anew (rule R7).
 */
export function replicationName(dataId: string): string {
  return `k_${dataId}`;
}

/** In `synchronous_standby_names` when nobody may confirm: commits wait. No data id has this form. */
export const placeholderName = 'k_nobody';

/** The value of `synchronous_standby_names`: `FIRST n (...)` of n names, all required; empty for none. */
export function synchronousStandbyNames(names: readonly string[]): string {
  return names.length === 0 ? '' : `FIRST ${names.length} (${names.map(quoteIdentifier).join(', ')})`;
}
