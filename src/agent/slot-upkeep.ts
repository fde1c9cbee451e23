import type { LocalSql, SlotRow } from '../postgres/index.ts';
import type { SlotUpkeep } from './ha/index.ts';

/** An instance's own slots, and how to ask the primary for its. */
export interface SlotSite {
  readonly sql: LocalSql;
  /** As seen last. */
  readonly slots: readonly SlotRow[];
  readonly inRecovery: boolean;
  /** Names of the primary's failover slots. */
  readonly primaryHas: () => Promise<readonly string[]>;
}

/**
 * Makes the slots that are missing, drops those that are nobody's or that hold nothing any more, and moves those that
 * nobody streams from to what their instance has. Slots of others than Koschei are never touched, but for one case:
 * `dropSuperseded`. Throws PostgresError as the statements do; what is left is done the next time.
 */
export async function tendSlots(
  { wanted, obsolete, positions }: SlotUpkeep,
  { sql, slots, inRecovery, primaryHas }: SlotSite,
): Promise<void> {
  const left = new Map(slots.map((slot) => [slot.name, slot]));
  for (const slot of slots) {
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
  if (inRecovery) await dropSuperseded({ sql, slots, primaryHas });
}

/**
 * A failover slot that was made here when this was the primary is in the way of its copy: Postgres copies no slot at all
 * while one of a name exists that is no copy. It is dropped if the primary has one of this name, which goes on with it.
 */
async function dropSuperseded({
  sql,
  slots,
  primaryHas,
}: Pick<SlotSite, 'sql' | 'slots' | 'primaryHas'>): Promise<void> {
  const own = slots.filter((slot) => slot.failover && !slot.synced && !slot.temporary && !slot.active);
  if (own.length === 0) return;
  const theirs = await primaryHas();
  for (const { name } of own) if (theirs.includes(name)) await sql.dropSlot(name);
}
