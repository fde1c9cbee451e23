import type { MemberRef } from '../../dcs/index.ts';

/** Announced as data id by an instance that has no usable data: it is empty, or being cloned. */
export const noDataId = '0000000000000000';

export function sameMember(a: MemberRef, b: MemberRef): boolean {
  return a.instance === b.instance && a.dataId === b.dataId;
}

export function includesMember(list: readonly MemberRef[], member: MemberRef): boolean {
  return list.some((m) => sameMember(m, member));
}
