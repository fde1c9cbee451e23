import type { LeaderValue, SyncValue } from '../../dcs/index.ts';
import { placeholderName, replicationName } from '../../postgres/replication-names.ts';
import { standsBack } from './candidate.ts';
import type { Facts, HaState, Settings, Upstream } from './facts.ts';
import { includesMember } from './names.ts';
import { applyDelayOf } from './options.ts';
import { upstreamOf } from './upstream.ts';

/** The settings that Postgres should have now; the driver writes `configure` operations only on command. */
export function wantedSettings(state: HaState, facts: Facts): Settings {
  const { reign } = state;
  if (reign !== undefined) return { synchronousNames: state.syncNames, clientsAllowed: reign.open };
  const leader = facts.dcs.view.leader?.value;
  const following = leader !== undefined && !isMine(facts, leader) && state.takeover === undefined;
  const upstream = following ? upstreamOf(state, facts, leader) : undefined;
  // A standby that stands back passes nothing on either.
  const receives = upstream?.cascades === true || !standsBack(facts, state);
  return {
    synchronousNames: state.takeover === undefined ? standbyNames(facts) : state.syncNames,
    // A candidate has the settings that it will be promoted with.
    clientsAllowed: state.takeover === undefined || opensWithPromotion(state, facts.dcs.view.sync?.value),
    ...(upstream !== undefined && receives ? { upstream } : {}),
    ...applyDelay(state, facts),
  };
}

/** Who confirms commits replays at once: some sessions wait for that. */
function applyDelay(state: HaState, { dcs, me, volume }: Facts): Pick<Settings, 'applyDelaySeconds'> {
  const { view } = dcs;
  const seconds = applyDelayOf(view.config?.value, me.instance);
  const isSync =
    volume.state === 'ready' &&
    includesMember(view.sync?.value.names ?? [], { instance: me.instance, dataId: volume.dataId });
  return seconds === undefined || isSync || state.takeover !== undefined
    ? {}
    : { applyDelaySeconds: seconds };
}

/** The leader key names this data directory; this boot need not know of it (R7). */
export function isMine(facts: Facts, leader: LeaderValue): boolean {
  return (
    facts.volume.state === 'ready' &&
    leader.dataId === facts.volume.dataId &&
    leader.instance === facts.me.instance
  );
}

/** The names that Postgres must require for this stored set. */
export function namesFor(sync: SyncValue): readonly string[] {
  if (sync.mode === 'async') return [];
  return sync.names.length === 0 ? [placeholderName] : sync.names.map((m) => replicationName(m.dataId));
}

/** A standby waits for a placeholder where commits will have to wait: then waiting works from its promotion on. */
export function standbyNames(facts: Facts): readonly string[] {
  const { sync, config } = facts.dcs.view;
  return sync?.value.mode === 'async' && config?.value.synchronous === 0 ? [] : [placeholderName];
}

/**
 * Clients stay connected through the promotion, unless commits have not been seen to wait or somebody in `sync` may not
 * hold what they would read (rule "Open").
 */
export function opensWithPromotion(state: HaState, sync: SyncValue | undefined): boolean {
  return sync?.mode === 'async' || (state.waitProved && state.takeover?.level === true);
}

export function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

export function sameSettings(a: Settings, b: Settings): boolean {
  return (
    sameNames(a.synchronousNames, b.synchronousNames) &&
    a.clientsAllowed === b.clientsAllowed &&
    a.applyDelaySeconds === b.applyDelaySeconds &&
    sameUpstream(a.upstream, b.upstream)
  );
}

/** The same instance at the same address, whatever it is by now. */
export function isSameSource(a: Upstream | undefined, b: Upstream | undefined): boolean {
  return a?.address === b?.address && a?.instance === b?.instance;
}

export function sameUpstream(a: Upstream | undefined, b: Upstream | undefined): boolean {
  return isSameSource(a, b) && a?.cascades === b?.cascades;
}
