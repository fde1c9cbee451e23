import type { ClusterView, ConfigValue, MemberRef } from '../../dcs/index.ts';
import { replicationName } from '../../postgres/replication-names.ts';
import { isFresh } from './candidate.ts';
import type { Facts } from './facts.ts';
import { noDataId } from './names.ts';
import { mayLead, streamFromOf } from './options.ts';

/** The data ids that this agent has seen: a slot belongs to an instance's data, which outlive the instance's lease in etcd. */
export interface KnownData {
  /** By instance: the newest data id that it announced. */
  readonly latest: ReadonlyMap<string, string>;
  /** Data ids that an instance has replaced by newer ones. */
  readonly replaced: ReadonlySet<string>;
}

export const nothingKnown: KnownData = { latest: new Map(), replaced: new Set() };

/** What is known after a look at etcd; the same object if that is nothing new. */
export function rememberData(known: KnownData, view: ClusterView): KnownData {
  const latest = new Map(known.latest);
  const replaced = new Set(known.replaced);
  const announced = [...view.members.values()].map((m) => m.value).filter((m) => m.dataId !== noDataId);
  for (const { instance, dataId } of announced) {
    const before = latest.get(instance);
    if (before === dataId) continue;
    if (before !== undefined) replaced.add(before);
    replaced.delete(dataId);
    latest.set(instance, dataId);
  }
  for (const { instance, dataId } of namedByLeader(view))
    if (!latest.has(instance) && !replaced.has(dataId)) latest.set(instance, dataId);
  const same = latest.size === known.latest.size && [...latest].every(([i, d]) => known.latest.get(i) === d);
  return same ? known : { latest, replaced };
}

/** The slots that an instance has, and which of its others are nobody's any more. */
export interface SlotPlan {
  readonly wanted: readonly string[];
  /** Whether a slot that is not wanted belongs to data that certainly never come back. */
  readonly obsolete: (slot: string) => boolean;
}

/** A plan, and how far slots that nobody streams from may be moved. */
export interface SlotUpkeep extends SlotPlan {
  /** By slot: what its instance is known to have on its disk. */
  readonly positions: ReadonlyMap<string, bigint>;
}

/**
 * Slots on the primary, and on every standby for the day that it is promoted: for the newest data of every configured
 * instance but itself, also of one that is away (none on a standby from which nobody ever streams), and always for the synchronous set
 * and the leader's list: whoever comes back then finds the WAL that it needs, up to `max_slot_wal_keep_size`. A slot is
 * dropped when its instance has left the configuration or has newer data; one of unknown data is kept until the data of
 * every configured instance are known. Who is being cloned has no data yet, and gets none.
 */
export function planSlots(known: KnownData, view: ClusterView, me: string): SlotPlan {
  const config = view.config?.value;
  if (view.leader?.value.instance !== me && !isNeeded(config, me))
    return { wanted: [], obsolete: () => true };
  const { latest, replaced } = rememberData(known, view);
  const belongs = (instance: string) => instance !== me && (config?.members.includes(instance) ?? true);
  const present: MemberRef[] = [...latest].map(([instance, dataId]) => ({ instance, dataId }));
  const wanted = new Set(
    [...present, ...namedByLeader(view)]
      .filter(({ instance }) => belongs(instance))
      .map(({ dataId }) => replicationName(dataId)),
  );
  const owned = new Set([...latest.values(), ...replaced].map(replicationName));
  const allKnown = config?.members.every((instance) => instance === me || latest.has(instance)) ?? false;
  return {
    wanted: [...wanted],
    obsolete: (slot) => config !== undefined && !wanted.has(slot) && (owned.has(slot) || allKnown),
  };
}

/** Whether anybody may ever stream from this instance while another one leads. */
function isNeeded(config: ConfigValue | undefined, me: string): boolean {
  const upstreams = config?.members.map((instance) => streamFromOf(config, instance)) ?? [];
  return mayLead(config, me) || upstreams.includes(me) || upstreams.includes('standby');
}

/**
 * What the others have on their disks, by slot, as far as they say so just now: nobody else moves the slots of instances
 * that stream from somewhere else. Only those on the timeline of this one: who is on another one may have to be rewound,
 * and needs WAL from before. An instance that is away keeps its place.
 */
export function slotPositions(facts: Facts): ReadonlyMap<string, bigint> {
  const timeline = facts.postgres.observation?.timeline;
  const positions = new Map<string, bigint>();
  for (const peer of facts.peers.values()) {
    const { dataId, state, receivedLsn } = peer.answer;
    if (dataId === undefined || receivedLsn === undefined || !isFresh(facts, peer)) continue;
    if ((state === 'standby' || state === 'primary') && peer.answer.timeline === timeline)
      positions.set(replicationName(dataId), receivedLsn);
  }
  return positions;
}

/** Those who may be promoted without this agent having seen them. */
function namedByLeader(view: ClusterView): MemberRef[] {
  return [...(view.sync?.value.names ?? []), ...(view.leader?.value.members ?? [])].filter(
    ({ dataId }) => dataId !== noDataId,
  );
}
