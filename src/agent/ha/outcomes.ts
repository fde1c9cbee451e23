import { type LeaderValue, leaderGraceMs, type SyncValue } from '../../dcs/index.ts';
import type { Draft } from './draft.ts';
import { timingOf } from './draft.ts';
import type { Facts, LeaderWrite, Operation, OperationOutcome, TransactionOutcome } from './facts.ts';
import { abandonHandover, startAgain } from './handover.ts';
import { maxStarts } from './leader.ts';
import { eitherWritten, writtenBy } from './leader-write.ts';
import { finishCommand, orderOf } from './orders.ts';
import { wentBack } from './restored-state.ts';
import { namesFor, opensWithPromotion } from './settings.ts';
import { namesAfterTakeover } from './sync-upkeep.ts';

/** At least this long between two attempts to take over, ms. */
const standAgainMs = 200;
/** At least this long between two fences, the first of which failed, ms; koschei-init does not wait for the second. */
const fenceAgainMs = 1_000;
/** How often it is looked whether there is room to start Postgres again, ms. */
const roomAgainMs = 5_000;
/** The longest wait between two attempts to clone, ms: each may read the whole of the primary's data. */
const longestCloneWaitMs = 300_000;
/** The longest wait before Postgres is started on what is there after a clone failed, ms. */
const longestStartWaitMs = 30_000;

/** Takes in how a transaction ended: done, refused, or not known (R2). */
export function absorbTransaction(draft: Draft, id: number, outcome: TransactionOutcome): void {
  const outstanding = draft.state.transaction;
  if (outstanding === undefined || outstanding.id !== id) return; // R1: the answer to an abandoned one is ignored.
  draft.set({ transaction: undefined });
  const { write, sentAt } = outstanding;
  const { reign } = draft.state;
  if (outcome.kind === 'unknown') {
    // R2: whatever was asked may still happen; a new write must succeed before anything else is decided.
    if (reign !== undefined) draft.setReign({ barrier: true });
    draft.set({ takeover: undefined });
    return;
  }
  if (outcome.kind === 'refused') {
    draft.set({ takeover: undefined, standAfter: draft.now + standAgainMs });
    if (reign === undefined) return;
    const { leader, sync } = outcome;
    if (leader !== undefined && wentBack(leader.revision, reign.revision)) {
      draft.set({ stateLost: { initialize: draft.facts.dcs.view.initialize?.revision } });
      return draft.endReign(false);
    }
    if (
      leader?.value.bootId === draft.facts.me.bootId &&
      leader.value.phase === 'leading' &&
      sync !== undefined
    ) {
      // An abandoned write of this boot landed: go on from it, still behind the barrier.
      const { term, timeline } = leader.value;
      const landed = writtenBy(leader.value, sync.value, reign.timing.ttlMs);
      draft.setReign({
        revision: leader.revision,
        barrier: true,
        sync: sync.value,
        written: eitherWritten(reign.written, landed),
        term,
        timeline,
      });
    } else draft.endReign(false);
    return;
  }
  won(draft, write, sentAt, outcome.revision, outcome.sync?.value ?? write.sync);
}

/** Takes in a write of the leader key that certainly happened. */
export function won(
  draft: Draft,
  write: LeaderWrite,
  sentAt: number,
  revision: string,
  sync: SyncValue | undefined,
): void {
  const { facts } = draft;
  const configured = timingOf(facts, draft.state.reign);
  if (configured === undefined || sync === undefined) return;
  // Observers go by what was written, whatever has been configured since.
  const timing = { ...configured, ttlMs: write.leader.ttlMs ?? configured.ttlMs };
  const good = {
    revision,
    barrier: false,
    timing,
    // R2: no older write can happen any more.
    written: writtenBy(write.leader, sync, timing.ttlMs),
    // Counted from before sending: no observer can have seen this heartbeat earlier.
    deadline: sentAt + leaderGraceMs(timing),
    goodAt: sentAt,
    beat: write.leader.beat,
    sync,
    term: write.leader.term,
    timeline: write.leader.timeline,
  };
  const { reign } = draft.state;
  draft.set({ failsafe: undefined });
  switch (write.kind) {
    case 'heartbeat':
    case 'sync':
      if (reign !== undefined) draft.setReign(good);
      return;
    case 'history':
      if (reign !== undefined) draft.setReign({ ...good, stage: 'leading' });
      draft.set({ yielded: 0 });
      return;
    case 'vacate':
      draft.endReign(true);
      return;
    case 'bootstrap': {
      const founded = write.leader.term === 1;
      draft.set({
        syncNames: namesFor(sync),
        reign: {
          ...good,
          stage: founded ? 'start' : 'promote',
          since: draft.now,
          open: false,
          why: founded ? 'first start of the cluster' : 'a person decided to go on with this instance',
          lossAccepted: !founded,
        },
        fencedTerm: undefined,
      });
      return;
    }
    case 'take':
      draft.set({
        fencedTerm: undefined,
        // Set with the receiver's stop already, if that still holds.
        syncNames: namesFor(sync).every((name) => draft.state.syncNames.includes(name))
          ? draft.state.syncNames
          : namesAfterTakeover(draft, sync),
        reign: {
          ...good,
          stage: 'promote',
          since: draft.now,
          open: opensWithPromotion(draft.state, sync),
          heldBy: draft.state.takeover?.heldBy,
          why: draft.state.takeover?.why ?? 'takeover',
          ...(write.leader.accepted === undefined ? {} : { lossAccepted: true }),
        },
      });
      draft.set({ takeover: undefined, retryAt: 0 });
      return;
    case 'resume':
    case 'new-term':
      draft.set({
        takeover: undefined,
        fencedTerm: undefined,
        syncNames: namesFor(sync),
        reign: {
          ...good,
          stage: write.kind === 'resume' && holdsTerm(facts, write.leader) ? 'start' : 'promote',
          since: reign?.since ?? draft.now,
          open: false,
          why: write.leader.accepted ?? 'restart of the leader',
          ...(write.leader.accepted === undefined ? {} : { lossAccepted: true }),
        },
      });
      return;
  }
}

/** Takes in how slow work on Postgres ended. */
export function absorbOperation(draft: Draft, id: number, outcome: OperationOutcome): void {
  const current = draft.state.operation;
  if (current === undefined || current.id !== id) return;
  draft.set({ operation: undefined });
  const { operation } = current;
  if (outcome.ok) {
    const of = draft.state.problemOf;
    // A clone makes everything new; else a fence or a start would hide why they were necessary.
    if (of === undefined || of === operation.do || operation.do === 'clone') draft.clearProblem();
    succeeded(draft, operation, outcome.lsn);
    return;
  }
  draft.problem(outcome.reason, outcome.message, operation.do);
  failed(draft, operation, outcome);
}

function succeeded(draft: Draft, operation: Operation, lsn: bigint | undefined): void {
  const { reign, handover, attempts } = draft.state;
  switch (operation.do) {
    case 'fence':
      draft.set({ fenceAfter: undefined });
      draft.endReign(true);
      return;
    case 'start':
      draft.set({
        attempts: { ...attempts, start: 0 },
        freshCopy: undefined,
        // A Postgres that starts with names makes commits wait from the first one on.
        waitProved: operation.settings.synchronousNames.length > 0,
      });
      if (operation.as === 'primary')
        draft.setReign({ stage: 'history', ...(lsn === undefined ? {} : { beginLsn: lsn }) });
      return;
    case 'promote':
      draft.set({ attempts: { ...attempts, promote: 0 } });
      draft.setReign({ stage: 'history', ...(lsn === undefined ? {} : { beginLsn: lsn }) });
      return;
    case 'configure':
      return;
    case 'stop-receiver':
      draft.set({ takeover: draft.state.takeover && { ...draft.state.takeover, phase: 'take' } });
      return;
    case 'prove-wait':
      draft.set({ waitProved: true });
      return;
    case 'checkpoint':
      if (handover?.phase === 'checkpoint')
        draft.set({ handover: { ...handover, phase: 'stop', since: draft.now } });
      return;
    case 'stop':
      if (handover !== undefined && reign !== undefined)
        draft.set({
          handover: {
            ...handover,
            phase: 'verify',
            since: draft.now,
            ...(lsn === undefined ? {} : { stoppedAt: lsn }),
          },
        });
      else if (reign !== undefined && reign.stage !== 'promote') startAgain(draft);
      finishCommand(draft, 'Postgres was restarted');
      return;
    case 'rewind':
      // It has helped when the standby streams; until then it counts.
      draft.set({ attempts: { ...attempts, rewind: attempts.rewind + 1 } });
      return;
    case 'clone':
      draft.set({
        attempts: { start: 0, rewind: 0, clone: 0, promote: 0 },
        freshCopy: true,
        cloneAfter: undefined,
      });
      // Whatever it was done for, an order to clone is thereby carried out.
      if (orderOf(draft)?.do === 'reclone') draft.set({ commandId: orderOf(draft)?.id });
      finishCommand(draft, 'the data directory was cloned anew');
      return;
  }
}

function failed(
  draft: Draft,
  operation: Operation,
  outcome: { needsClone?: boolean; reason: string; message: string },
): void {
  const { attempts, handover } = draft.state;
  // An order that failed is tried again: it is still there.
  draft.set({ commandId: undefined });
  const backoff = (n: number) => draft.now + Math.min(500 * 2 ** n, 30_000);
  switch (operation.do) {
    case 'start':
      // A copy would need more room, not less; and a leader need not try again before it lets others lead.
      if (outcome.reason === 'DiskFull')
        draft.set({
          attempts: { ...attempts, start: Math.max(attempts.start, maxStarts) },
          retryAt: draft.now + roomAgainMs,
        });
      else
        draft.set({ attempts: { ...attempts, start: attempts.start + 1 }, retryAt: backoff(attempts.start) });
      return;
    case 'rewind': {
      // One that never began, because the primary could not be asked, says nothing about rewinding.
      const failures = outcome.needsClone
        ? 99
        : attempts.rewind + (outcome.reason === 'RewindPostponed' ? 0 : 1);
      draft.set({ attempts: { ...attempts, rewind: failures }, retryAt: backoff(attempts.rewind) });
      return;
    }
    case 'clone':
      cloneFailed(draft, outcome);
      return;
    case 'fence':
      draft.set({ fenceAfter: draft.now + fenceAgainMs });
      return;
    case 'stop-receiver':
      draft.set({ takeover: undefined, standAfter: draft.now + standAgainMs });
      return;
    case 'promote':
      // A leader that cannot lead must not keep the place: fence, then hand over. It stands again only after a while.
      draft.set({
        attempts: { ...attempts, promote: attempts.promote + 1 },
        retryAt: backoff(attempts.promote),
      });
      draft.operate({ do: 'fence', why: outcome.message }, 'the promotion failed');
      return;
    case 'checkpoint':
    case 'stop':
      if (handover !== undefined) abandonHandover(draft, outcome.message);
      else draft.set({ retryAt: backoff(1) });
      return;
    default:
      draft.set({ retryAt: backoff(1) });
  }
}

/** Says how often, and when again: it goes on for as long as there is no other way, but never faster than it helps. */
function cloneFailed(draft: Draft, outcome: { reason: string; message: string }): void {
  const { attempts } = draft.state;
  const count = attempts.clone + 1;
  const waitMs = Math.min(1_000 * 2 ** attempts.clone, longestCloneWaitMs);
  // What is there may be started sooner than it is copied again.
  const startMs = Math.min(waitMs, longestStartWaitMs);
  draft.set({
    attempts: { ...attempts, clone: count },
    cloneAfter: draft.now + waitMs,
    retryAt: draft.now + startMs,
  });
  draft.problem(
    outcome.reason === 'NotEnoughSpace' ? outcome.reason : 'CloneFailed',
    `attempt ${count} to clone failed (${outcome.reason}), the next is in ${Math.round(waitMs / 1_000)} s: ${outcome.message}`,
  );
}

/** The data directory is on the timeline of this term already: it may be started as primary without a promotion. */
function holdsTerm(facts: Facts, leader: LeaderValue): boolean {
  const { volume } = facts;
  if (volume.state !== 'ready' || facts.postgres.process !== 'none' || volume.timeline !== leader.timeline)
    return false;
  if (volume.wrongParent === true) return false;
  return volume.promotedTerm === leader.term || (volume.bootstrap && leader.term === 1);
}
