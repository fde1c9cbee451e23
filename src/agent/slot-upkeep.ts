import type { LocalSql, SlotRow } from '../postgres/index.ts';
import type { SlotUpkeep } from './ha/index.ts';

/**
 * Makes the slots that are missing, drops those that are nobody's or that hold nothing any more, and moves those that
 * nobody streams from to what their instance has. `there`: the slots as seen last. Slots of others than Koschei are
 * never touched. Throws PostgresError as the statements do; what is left is done the next time.
 */
export async function tendSlots(
  sql: LocalSql,
  { wanted, obsolete, positions }: SlotUpkeep,
  there: readonly SlotRow[],
  inRecovery: boolean,
): Promise<void> {
  const left = new Map(there.map((slot) => [slot.name, slot]));
  for (const slot of there) {
    if (slot.type !== 'physical' || !slot.name.startsWith('k_') || slot.active) continue;
    // On a standby nobody asks for rows through it any more, but the standby would ask its primary for them for ever.
    const isStale = slot.walStatus === 'lost' || (inRecovery && slot.holdsRows);
    if (!isStale && !obsolete(slot.name)) continue;
    await sql.dropSlot(slot.name);
    left.delete(slot.name);
  }
  for (const name of wanted) if (!left.has(name)) await sql.createSlot(name);
  for (const [name, position] of positions) {
    const slot = left.get(name);
    if (slot?.restartLsn == null || slot.type !== 'physical' || slot.active) continue;
    if (wanted.includes(name) && slot.restartLsn < position) await sql.advanceSlot(name, position);
  }
}
