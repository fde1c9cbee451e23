import type { LeaderValue } from '../../dcs/index.ts';
import { freshMs } from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Cascade, Facts, HaState, Upstream } from './facts.ts';
import { includesMember, noDataId } from './names.ts';
import { streamFromOf } from './options.ts';

/** A standby that does not say any more that it streams from the primary is left after this long, ms ... */
const cascadeGraceMs = 1_000;
/** ... and taken as upstream only when it has said so for this long, ms: a failover is no reason to change to and fro. */
const cascadeSettlesMs = 5_000;
/** An upstream that does not serve this standby is left after this long, ms ... */
const unservedMs = 2_000;
/** ... and not tried again for this long, ms. */
const detourMs = 30_000;

/** Where this standby streams from: the primary, or the standby that it is to stream from while that one does. Pure. */
export function upstreamOf(state: HaState, facts: Facts, leader: LeaderValue): Upstream {
  const primary = { instance: leader.instance, address: leader.address };
  const { cascade } = state;
  if (cascade === undefined || wantedUpstream(facts, leader, cascade) !== cascade.instance) return primary;
  const member = facts.dcs.view.members.get(cascade.instance)?.value;
  const uses = facts.applied?.upstream?.instance === cascade.instance;
  const settled = uses || cascade.goodAt - cascade.since >= cascadeSettlesMs;
  const broken =
    facts.now - Math.min(cascade.goodAt, cascade.wholeAt) > cascadeGraceMs ||
    facts.now < (cascade.detourUntil ?? 0);
  return member === undefined || broken || !settled
    ? primary
    : { instance: cascade.instance, address: member.address, cascades: true };
}

/** Notes how long the standby that this one is to stream from has streamed itself, and whether it serves this one. */
export function observeUpstream(draft: Draft): void {
  const { facts, state } = draft;
  const leader = facts.dcs.view.leader?.value;
  const wanted = leader === undefined ? undefined : wantedUpstream(facts, leader, state.cascade);
  if (leader === undefined || wanted === undefined) {
    if (state.cascade !== undefined) draft.set({ cascade: undefined });
    return;
  }
  const goodAt = streamsSince(facts, leader, wanted);
  const before = state.cascade?.instance === wanted ? state.cascade : undefined;
  if (goodAt === undefined && before === undefined) return;
  const first = goodAt ?? draft.now;
  const known: Cascade = before ?? { instance: wanted, since: first, goodAt: first, wholeAt: first };
  const wholeAt = wholeSince(facts, leader);
  const gap = goodAt !== undefined && goodAt - known.goodAt > cascadeGraceMs;
  draft.set({
    cascade: serving(facts, {
      ...known,
      ...(goodAt === undefined ? {} : { goodAt: Math.max(goodAt, known.goodAt) }),
      ...(gap ? { since: goodAt } : {}),
      ...(wholeAt === undefined ? {} : { wholeAt: Math.max(wholeAt, known.wholeAt) }),
    }),
  });
}

/** Since when the upstream has not served this standby although it is asked to. */
function serving(facts: Facts, cascade: Cascade): Cascade {
  const { unservedSince: since, ...rest } = cascade;
  const { process, observation: o, walLost } = facts.postgres;
  const asks = facts.applied?.upstream?.instance === cascade.instance && process === 'running';
  if (!asks || o === undefined || o.receiver?.status === 'streaming') return rest;
  const unservedSince = since ?? facts.now;
  return walLost || facts.now - unservedSince > unservedMs
    ? { ...rest, detourUntil: facts.now + detourMs }
    : { ...rest, unservedSince };
}

/** The instance that this one is to stream from instead of the primary, if any is fit for that now. */
function wantedUpstream(facts: Facts, leader: LeaderValue, now: Cascade | undefined): string | undefined {
  const { view } = facts.dcs;
  const { volume, me } = facts;
  const option = streamFromOf(view.config?.value, me.instance);
  if (option === undefined || volume.state !== 'ready' || leader.instance === me.instance) return undefined;
  // Who confirms commits, or is to become the primary, streams from the primary.
  const self = { instance: me.instance, dataId: volume.dataId };
  if (includesMember(view.sync?.value.names ?? [], self) || view.request?.value.to === me.instance)
    return undefined;
  if (option !== 'standby') return option === leader.instance || option === me.instance ? undefined : option;
  const able = (instance: string) => streamsSince(facts, leader, instance) !== undefined;
  if (now !== undefined && (able(now.instance) || facts.now - now.goodAt <= cascadeGraceMs))
    return now.instance;
  const isSync = (instance: string) => view.sync?.value.names.some((m) => m.instance === instance) === true;
  return [...view.members.keys()]
    .filter((instance) => instance !== me.instance && able(instance))
    .toSorted((a, b) => Number(isSync(b)) - Number(isSync(a)) || (a < b ? -1 : 1))[0];
}

/**
 * When as many standbys as are asked for were last known to be synchronous and to stream; undefined: they are not now.
 * Else this one is perhaps the only one that could take a place in the set, which the primary gives only to who streams
 * from it.
 */
function wholeSince(facts: Facts, leader: LeaderValue): number | undefined {
  const { sync, config } = facts.dcs.view;
  if (sync === undefined || sync.value.mode === 'async') return facts.now;
  const times = sync.value.names.map(({ instance, dataId }) =>
    facts.peers.get(instance)?.answer.dataId === dataId ? streamsSince(facts, leader, instance) : undefined,
  );
  const known = times.filter((at) => at !== undefined);
  const count = new Set(sync.value.names.map((m) => m.instance)).size;
  return known.length === times.length && count >= (config?.value.synchronous ?? 0)
    ? Math.min(facts.now, ...known)
    : undefined;
}

/** When a standby was asked that answered that it streams from the leader itself: nobody cascades from who cascades. */
function streamsSince(facts: Facts, leader: LeaderValue, instance: string): number | undefined {
  const peer = facts.peers.get(instance);
  const member = facts.dcs.view.members.get(instance)?.value;
  if (peer === undefined || member === undefined || facts.now - peer.at > freshMs) return undefined;
  const { state, dataId, streamsFrom } = peer.answer;
  const same = dataId === member.dataId && dataId !== noDataId;
  return same && state === 'standby' && streamsFrom === leader.instance ? peer.at : undefined;
}
