import type { MemberRef } from '../../dcs/index.ts';

/**
 * `application_name` and slot name of an instance: `k_` and the data id. Names are cut at 63 bytes by Postgres, and a
 * data id never matches data that was made anew (rule R7).
 */
export function replicationName(dataId: string): string {
  return `k_${dataId}`;
}

/** Announced as data id by an instance that has no usable data: it is empty, or being cloned. */
export const noDataId = '0000000000000000';

/** In `synchronous_standby_names` when nobody may confirm: commits wait. No data id has this form. */
export const placeholderName = 'k_nobody';

export function sameMember(a: MemberRef, b: MemberRef): boolean {
  return a.instance === b.instance && a.dataId === b.dataId;
}

export function includesMember(list: readonly MemberRef[], member: MemberRef): boolean {
  return list.some((m) => sameMember(m, member));
}

/** The value of `synchronous_standby_names` in which every name is required; empty for none. */
export function synchronousStandbyNames(names: readonly string[]): string {
  return names.length === 0 ? '' : `FIRST ${names.length} (${names.map((n) => `"${n}"`).join(', ')})`;
}
