import { replicationName } from '../../postgres/replication-names.ts';
import {
  clearWaiting,
  configureIfNeeded,
  type Draft,
  forgetFailure,
  isSlow,
  mayWriteAgain,
} from './draft.ts';
import type { Observation, Reign, Settings } from './facts.ts';
import { continueHandover, startAgain, startHandover } from './handover.ts';
import { leaveIfIsolated } from './isolation.ts';
import { rewrite } from './leader-write.ts';
import { sameMember } from './names.ts';
import { obeyCommand } from './orders.ts';
import { pausedUntil } from './pause.ts';
import { wantedSettings } from './settings.ts';
import { nothingKnown, planSlots } from './slots.ts';
import { levelSyncMember, livingSyncMember, tendSyncSet } from './sync-upkeep.ts';

/** A leader whose Postgres did not start this often goes silent, so that others may lead. */
export const maxStarts = 3;

/** Rule "Heartbeat" (R1, R2): one write outstanding; behind a barrier at once, else every interval. */
export function heartbeat(draft: Draft): void {
  const { reign, transaction } = draft.state;
  if (reign === undefined || transaction !== undefined || !mayWriteAgain(draft)) return;
  // A leader that cannot lead lets its heartbeat go silent, else it would block everybody for ever.
  if (cannotLead(draft)) return;
  if (reign.barrier || draft.now - reign.goodAt >= reign.timing.heartbeatMs)
    draft.transact(
      rewrite(draft, reign, 'heartbeat'),
      reign.barrier ? 'a write had no definite answer' : 'the interval is over',
    );
}

/** In a pause nobody would take a place that is left to them. */
function isPaused({ facts, state }: Draft): boolean {
  return pausedUntil(facts, state) !== undefined;
}

/** A leader that lets its heartbeat go silent, so that others may lead. */
export function cannotLead(draft: Draft): boolean {
  const { attempts, fenceAfter, operation, reign } = draft.state;
  if (draft.facts.volume.state !== 'ready') return true;
  // Nobody knows what a Postgres does that could not be fenced; most likely its disk is stalled.
  if (fenceAfter !== undefined) return true;
  if (attempts.start >= maxStarts && operation?.operation.do !== 'start') return true;
  if (reign === undefined || !isSlow(draft, reign) || isPaused(draft)) return false;
  const heir = levelSyncMember(draft, reign.sync);
  if (heir === undefined) return false;
  draft.problem('SlowStart', `Postgres is not ready yet; meanwhile ${heir.instance} may become the primary`);
  return true;
}

/** The rules of whoever holds the leader key. */
export function lead(draft: Draft, reign: Reign): void {
  const { facts, state } = draft;
  if (reign.barrier) return;
  const { process, observation } = facts.postgres;
  if (facts.volume.state !== 'ready') return;
  clearWaiting(draft);
  const settings = wantedSettings(draft.state, facts);
  if (process === 'none' && facts.stopRequested && state.handover === undefined) {
    if (state.transaction === undefined)
      draft.transact(
        rewrite(draft, reign, 'vacate', { phase: 'vacated', reason: 'it was stopped' }),
        'Postgres is stopped for good',
      );
    return;
  }

  if (process === 'none') {
    if (state.handover !== undefined) return continueHandover(draft, reign);
    if (reign.stage === 'history' || reign.stage === 'leading') return afterCrash(draft, reign);
    if (draft.now < state.retryAt) return;
    if (reign.stage === 'start')
      return draft.operate(
        { do: 'start', as: 'primary', settings, term: reign.term, timeline: reign.timeline },
        `this instance leads term ${reign.term}`,
      );
    return draft.operate({ do: 'start', as: 'standby', settings }, `to be promoted in term ${reign.term}`);
  }
  if (draft.now < state.retryAt) return;
  if (process !== 'running' || observation === undefined || observation.at < facts.postgres.since) return;

  // A start whose end was not seen: it runs all the same, and what its start began is to be gone on with.
  if (reign.stage === 'start')
    return draft.setReign({ stage: observation.inRecovery ? 'promote' : 'history' });
  if (reign.stage === 'promote') return promote(draft, reign, settings, observation);
  if (reign.stage === 'history') {
    if (observation.inRecovery) return;
    if (draft.state.transaction !== undefined) {
      // Commits wait for the set, and what Postgres is to do for it need not wait for etcd.
      tendSyncSet(draft, reign, observation);
      return;
    }
    // Restarted in place: the history of this term is written once.
    if (facts.dcs.view.history.has(reign.term)) return continueReign(draft);
    const lsn = reign.beginLsn ?? observation.flushLsn ?? 0n;
    return draft.transact(
      {
        ...rewrite(draft, reign, 'history'),
        history: { lsn, why: reign.why, lossAccepted: reign.lossAccepted === true },
      },
      'the history says who leads before clients may write',
    );
  }
  if (reign.stage !== 'leading' || observation.inRecovery) return;
  if (state.handover !== undefined) return continueHandover(draft, reign);
  if (startHandover(draft, reign)) return;
  if (obeyCommand(draft)) return;
  if (leaveIfIsolated(draft, reign, observation)) return;
  if (tendSyncSet(draft, reign, observation)) return;
  if (openToClients(draft, reign, observation)) return;
  if (!configureIfNeeded(draft)) forgetFailure(draft);
}

/** Postgres was started again in place and leads on. */
function continueReign(draft: Draft): void {
  draft.setReign({ stage: 'leading' });
  draft.set({ yielded: 0 });
}

function promote(draft: Draft, reign: Reign, settings: Settings, o: Observation): void {
  const { facts } = draft;
  const volume = facts.volume;
  if (volume.state !== 'ready') return;
  // R5: the leader key was ours just now.
  if (draft.now - reign.goodAt > 1.5 * reign.timing.heartbeatMs) return;
  if (!o.inRecovery || volume.promotedTerm >= reign.term || o.timeline >= reign.timeline) {
    // R5: at most one promotion in a term, and R6: never onto a timeline that exists.
    if (draft.state.transaction !== undefined) return;
    const term = reign.term + 1;
    draft.transact(
      {
        ...rewrite(draft, reign, 'new-term', { term, timeline: Math.max(reign.timeline, o.timeline) + 1 }),
        sync: { ...reign.sync, term },
      },
      `term ${reign.term} was used by this data directory already`,
    );
    return;
  }
  const slots = planSlots(nothingKnown, facts.dcs.view, facts.me.instance).wanted;
  draft.operate(
    { do: 'promote', term: reign.term, timeline: reign.timeline, settings, slots },
    `this instance won term ${reign.term}: ${reign.why}`,
  );
}

/** Postgres ended by itself while this instance leads. */
function afterCrash(draft: Draft, reign: Reign): void {
  if (draft.state.transaction !== undefined) return;
  const heir = isPaused(draft) ? undefined : livingSyncMember(draft, reign.sync);
  if (heir !== undefined) {
    draft.transact(
      rewrite(draft, reign, 'vacate', {
        phase: 'vacated',
        successor: heir.instance,
        reason: 'Postgres ended by itself',
      }),
      `${heir.instance} can be primary sooner than this Postgres`,
    );
    return;
  }
  startAgain(draft);
}

/**
 * Rule "Open": a value that was read may not get lost, so every name in `sync` must hold what this primary began with.
 * The leader that was taken from does, where this instance has received nothing but what that one had flushed.
 */
function openToClients(draft: Draft, reign: Reign, o: Observation): boolean {
  if (reign.open) return false;
  const needed = reign.beginLsn ?? o.flushLsn ?? 0n;
  const all = reign.sync.names.every(
    (m) =>
      (reign.heldBy !== undefined && sameMember(m, reign.heldBy)) ||
      o.walsenders.some(
        (w) => w.applicationName === replicationName(m.dataId) && (w.flushLsn ?? 0n) >= needed,
      ),
  );
  if (reign.sync.mode === 'sync' && !(all && (draft.state.waitProved || reign.sync.names.length === 0))) {
    draft.set({
      syncProblem: {
        reason: 'WaitingForStandby',
        message: 'clients wait until the synchronous standbys hold what this primary began with',
      },
    });
    return false;
  }
  draft.setReign({ open: true });
  return false;
}
