import type { LeaderValue, Stamped } from '../../dcs/index.ts';
import type { Facts, HaState } from './facts.ts';

/**
 * Why etcd's state cannot be obeyed, or undefined: it is older than what this instance knows, so it was restored from an
 * old copy. In a sound cluster that cannot be: a term is won in etcd before it is stored in a data directory (R5), a
 * timeline is allotted in etcd before it exists (R6), both only grow, and so do etcd's revisions. Whoever leads or may
 * stand according to such a state need not hold what was acknowledged since, and whoever holds it would be rewound.
 */
export function olderThanKnown(
  state: HaState,
  facts: Facts,
  { value: leader }: Stamped<LeaderValue>,
): string | undefined {
  const { volume, postgres } = facts;
  const way =
    'etcd was restored from an old copy; nothing is led, followed or overwritten until a person decides';
  if (state.stateLost !== undefined) return `the revision of etcd's state went back: ${way}`;
  if (volume.state !== 'ready') return undefined;
  const timeline = Math.max(volume.timeline, postgres.observation?.timeline ?? 0);
  return volume.promotedTerm > leader.term || timeline > leader.timeline
    ? `etcd says term ${leader.term} on timeline ${leader.timeline}; this data directory has been promoted in term ${volume.promotedTerm} and is on timeline ${timeline}: ${way}`
    : undefined;
}

/** Whether a key at this revision comes from an older copy of etcd than what was known at that one. */
export function wentBack(revision: string, known: string): boolean {
  return BigInt(revision) < BigInt(known);
}
