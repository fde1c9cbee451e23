import type { SlotRow } from '../postgres/index.ts';

/**
 * What people should know about slots that they made themselves: one that has lost what its consumer needs, or one that
 * holds more WAL than `max_wal_size`, where Postgres would have removed it (`wal_status` of pg_replication_slots). Copies
 * of the primary's slots are judged there. Undefined: all is well.
 */
export function slotProblem(
  slots: readonly SlotRow[],
): { readonly reason: 'SlotLost' | 'SlotHoldsWal'; readonly message: string } | undefined {
  const theirs = slots.filter((slot) => !slot.name.startsWith('k_') && !slot.synced && !slot.temporary);
  const lost = theirs.filter((slot) => slot.walStatus === 'lost');
  const holding = theirs.filter((slot) => slot.walStatus === 'extended' || slot.walStatus === 'unreserved');
  if (lost.length > 0)
    return {
      reason: 'SlotLost',
      message: `${namesOf(lost)} lost what its consumer needs: drop it with pg_drop_replication_slot and set the consumer up anew`,
    };
  if (holding.length > 0)
    return {
      reason: 'SlotHoldsWal',
      message: `${namesOf(holding)} holds more WAL than max_wal_size and is lost at max_slot_wal_keep_size: let its consumer go on, or drop it with pg_drop_replication_slot`,
    };
  return undefined;
}

const namesOf = (slots: readonly SlotRow[]): string =>
  slots
    .map((slot) => `${slot.type} slot "${slot.name}" (${slot.active ? 'in use' : 'not in use'})`)
    .toSorted()
    .join(', ');
