import type { MemberRef } from '../../dcs/index.ts';
import { isFresh } from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Observation, Reign } from './facts.ts';
import { mayLead } from './options.ts';
import { pausedUntil } from './pause.ts';
import { rankCandidates } from './sync-upkeep.ts';

/** A primary whose commits have waited this long, and that no standby can reach, leaves for one that others reach, ms. */
const isolatedForMs = 2_000;
/** At least this long between two hand-overs for this reason, ms: the second would most likely find what the first did. */
const leaveAgainMs = 60_000;

/**
 * Rule "Leave": a primary that reaches etcd, but no standby, can acknowledge nothing, and nobody takes its place while it
 * sends heartbeats. It hands over to a member of `sync` that says in etcd that it reaches another instance. That member
 * holds every acknowledged commit by being in `sync`: nothing needs to be asked of it. True: a hand-over was begun.
 */
export function leaveIfIsolated(draft: Draft, reign: Reign, o: Observation): boolean {
  const { facts, state } = draft;
  if (reign.sync.mode !== 'sync' || o.commitWaitMs < isolatedForMs) return false;
  if (pausedUntil(facts, state) !== undefined) return false;
  if (state.leftAt !== undefined && draft.now - state.leftAt < leaveAgainMs) return false;
  if (rankCandidates(draft).some((c) => isFresh(facts, facts.peers.get(c.instance)))) return false;
  const target = reign.sync.names.find((m) => reachesAnother(draft, m));
  if (target === undefined) return false;
  draft.set({
    leftAt: draft.now,
    handover: {
      reason: `commits wait, and this instance reaches no standby; ${target.instance} reaches others`,
      phase: 'stop',
      since: draft.now,
      target,
      unreachable: true,
    },
  });
  return true;
}

function reachesAnother(draft: Draft, { instance, dataId }: MemberRef): boolean {
  const { view } = draft.facts.dcs;
  const member = view.members.get(instance)?.value;
  return (
    member?.dataId === dataId &&
    mayLead(view.config?.value, instance) &&
    member.reaches?.some((other) => other !== draft.facts.me.instance && other !== instance) === true
  );
}
