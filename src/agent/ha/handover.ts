import type { MemberRef } from '../../dcs/index.ts';
import { replicationName } from '../../postgres/replication-names.ts';
import { isFresh } from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Facts, Reign } from './facts.ts';
import { rewrite } from './leader-write.ts';
import { mayLead } from './options.ts';
import { handoverLagBytes, livingStandby, livingSyncMember, tendSyncSet } from './sync-upkeep.ts';

/** How long each phase of a switchover may take before the old primary leads on, ms. */
const handoverPhaseMs = {
  prepare: 10_000,
  checkpoint: 300_000,
  stop: 60_000,
  verify: 5_000,
  vacate: 5_000,
} as const;

/** How long a switchover waits for copies of failover slots, ms: longer than an agent lets a copier sleep. */
const slotCopiesMs = 7_000;

/** Postgres is down in the midst of a reign that goes on. */
export function startAgain(draft: Draft): void {
  // Crash recovery may find records that nobody else has.
  draft.setReign({ stage: 'start', open: false, heldBy: undefined, since: draft.now });
}

/** Rule "Hand over": on SIGTERM, or because a person asks for a switchover. True: it was begun. */
export function startHandover(draft: Draft, reign: Reign): boolean {
  const { facts } = draft;
  const { request } = facts.dcs.view;
  if (facts.stopRequested) {
    if (livingStandby(draft) === undefined) {
      draft.operate({ do: 'stop' }, 'it is being stopped and nobody can take over');
      return true;
    }
    draft.set({ handover: { reason: 'the pod is being stopped', phase: 'prepare', since: draft.now } });
    return true;
  }
  if (request === undefined) return false;
  const { to, kind } = request.value;
  const refused = draft.state.refusedRequest;
  if (request.revision === refused?.revision) {
    refuseRequest(draft, request.revision, refused.because);
    return false;
  }
  if (kind === 'failover') {
    refuseRequest(draft, request.revision, `${facts.me.instance} leads: use a switchover`);
    return false;
  }
  if (!reign.open) return false;
  const because = to === undefined ? undefined : unsuitable(facts, to);
  if (because !== undefined) {
    refuseRequest(draft, request.revision, because);
    return false;
  }
  const member = to === undefined ? undefined : facts.dcs.view.members.get(to)?.value;
  draft.set({
    handover: {
      reason: `switchover asked for by ${request.value.by}`,
      requestRevision: request.revision,
      phase: 'prepare',
      since: draft.now,
      ...(member === undefined ? {} : { target: { instance: member.instance, dataId: member.dataId } }),
    },
  });
  return true;
}

/** Why nobody can hand over to this instance, or undefined. */
function unsuitable(facts: Facts, to: string): string | undefined {
  if (to === facts.me.instance) return `${to} is the primary already`;
  if (!facts.dcs.view.members.has(to)) return `there is no instance ${to}`;
  return mayLead(facts.dcs.view.config?.value, to)
    ? undefined
    : `${to} may not become the primary (noFailover)`;
}

/** Refused once is refused for good: the request may still be there for a while. */
function refuseRequest(draft: Draft, revision: string, because: string): void {
  draft.commands.push({ kind: 'refuse-request', revision, because });
  draft.set({
    refusedRequest: { revision, because, term: draft.state.reign?.term ?? 0 },
  });
}

/** One step of the hand-over under way; each has a deadline, and a way back to this primary. */
export function continueHandover(draft: Draft, reign: Reign): void {
  const { facts, state } = draft;
  const { handover } = state;
  if (handover === undefined || state.transaction !== undefined) return;
  if (draft.now - handover.since > handoverPhaseMs[handover.phase])
    return abandonHandover(draft, `the phase "${handover.phase}" took too long`);
  const o = facts.postgres.observation;
  switch (handover.phase) {
    case 'prepare': {
      const target =
        reign.sync.mode === 'sync'
          ? (reign.sync.names.find((m) => handover.target?.instance === m.instance) ??
            (handover.target === undefined ? livingSyncMember(draft, reign.sync) : undefined))
          : (handover.target ?? livingStandby(draft));
      const walsender =
        target && o?.walsenders.find((w) => w.applicationName === replicationName(target.dataId));
      const near =
        walsender?.state === 'streaming' &&
        (o?.flushLsn ?? 0n) - (walsender.flushLsn ?? 0n) <= handoverLagBytes;
      const lacking = target === undefined ? [] : slotsWithoutCopy(facts, target);
      const waits = lacking.length > 0 && draft.now - handover.since < slotCopiesMs && !facts.stopRequested;
      if (target !== undefined && near && !waits) {
        draft.set({ handover: { ...handover, target, phase: 'checkpoint', since: draft.now } });
        return draft.operate(
          { do: 'checkpoint' },
          `a short shutdown needs little left to write (${handover.reason})${lacking.length === 0 ? '' : `; slots without a copy, which will be lost: ${lacking.join(', ')}`}`,
        );
      }
      if (o !== undefined) tendSyncSet(draft, reign, o);
      return;
    }
    case 'checkpoint':
      return;
    case 'stop':
      return draft.operate(
        { do: 'stop' },
        `hand-over to ${handover.target?.instance ?? 'a standby'}: ${handover.reason}`,
      );
    case 'verify': {
      const peer = handover.target && facts.peers.get(handover.target.instance);
      const received = peer?.answer.receivedLsn ?? 0n;
      const level =
        peer !== undefined &&
        isFresh(facts, peer) &&
        peer.answer.dataId === handover.target?.dataId &&
        handover.stoppedAt !== undefined &&
        received > handover.stoppedAt;
      if (!level && handover.unreachable !== true) return;
      draft.set({ handover: { ...handover, phase: 'vacate', since: draft.now } });
      draft.transact(
        {
          ...rewrite(draft, reign, 'vacate', {
            phase: 'vacated',
            reason: handover.reason.slice(0, 200),
            ...(handover.target === undefined ? {} : { successor: handover.target.instance }),
          }),
          deleteRequest: handover.requestRevision !== undefined,
        },
        `${handover.target?.instance ?? 'the standby'} holds everything`,
      );
      return;
    }
    case 'vacate':
      // The transaction had no definite answer, and a later write succeeded: it did not happen and never will.
      return draft.set({ handover: { ...handover, phase: 'verify' } });
  }
}

/**
 * Failover slots of which the target has no copy that can be used. They are waited for a while only: one whose consumer
 * does not go on never gets a copy, and is no reason not to hand over.
 */
function slotsWithoutCopy({ postgres, peers }: Facts, target: MemberRef): string[] {
  const copies = peers.get(target.instance)?.answer.failoverSlots ?? [];
  return (postgres.observation?.failoverSlots ?? []).filter((name) => !copies.includes(name));
}

/** The way back: this instance leads on (rule R2 has been obeyed: no barrier stands). */
export function abandonHandover(draft: Draft, why: string): void {
  const { handover } = draft.state;
  if (handover === undefined) return;
  const because = `${handover.reason}: ${why}; the primary stays`;
  draft.problem('SwitchoverFailed', because);
  if (handover.requestRevision !== undefined) refuseRequest(draft, handover.requestRevision, because);
  draft.set({ handover: undefined });
  if (draft.facts.postgres.process === 'none') startAgain(draft);
  if (
    draft.facts.stopRequested &&
    draft.state.operation === undefined &&
    draft.facts.postgres.process !== 'none'
  )
    draft.operate({ do: 'stop' }, 'it is being stopped and the hand-over failed');
}
