import {
  type CommandValue,
  type LeaderValue,
  leaderGraceMs,
  type MemberRef,
  type Stamped,
  type SyncValue,
  type Timing,
} from '../../dcs/index.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import { placeholderName, replicationName } from '../../postgres/replication-names.ts';
import {
  eligibility,
  freshMs,
  isFresh,
  leaderAnswer,
  provesLeadership,
  successorHeadStartMs,
  takeWrite,
} from './candidate.ts';
import type {
  Command,
  Decision,
  Facts,
  HaState,
  Input,
  LeaderWrite,
  Observation,
  Operation,
  OperationOutcome,
  PeerAnswer,
  Reign,
  Settings,
  TransactionOutcome,
  Upstream,
} from './facts.ts';
import { includesMember, noDataId, sameMember } from './names.ts';
import { nothingKnown, planSlots } from './slots.ts';
import { type Candidate, planSyncSet } from './sync-set.ts';

/** A synchronous standby is replaced when commits have waited this long for it, ms ... */
const commitWaitLimitMs = 500;
/** ... and its agent, asked every 250 ms, has not answered for this long, ms. */
const agentSilenceMs = 750;
/** A primary whose database has not answered for this long is given up, ms. */
const databaseSilenceMs = 5_000;
/** A standby must look diverged for this long before it is rewound, ms: positions and timelines come from different places. */
const divergedMs = 1_000;
/** A standby that has not streamed from a primary that leads for this long is started anew, ms. */
const notStreamingMs = 60_000;
/** How long each phase of a switchover may take before the old primary leads on, ms. */
const handoverPhaseMs = {
  prepare: 10_000,
  checkpoint: 300_000,
  stop: 60_000,
  verify: 5_000,
  vacate: 5_000,
} as const;
/** A target further behind than this would make a switchover slow, bytes. */
const handoverLagBytes = 16n * 1024n * 1024n;
/** How old a linearizable read may be when a candidate begins a takeover, ms; the taking transaction compares again. */
const readFreshMs = 500;
/** At least this long between two writes after one without a definite answer, ms. */
const barrierPaceMs = 100;
/** At least this long between two attempts to take over, ms. */
const standAgainMs = 200;
/** At least this long between two fences, the first of which failed, ms; koschei-init does not wait for the second. */
const fenceAgainMs = 1_000;
/** The longest wait between two attempts to clone, ms: each may read the whole of the primary's data. */
const longestCloneWaitMs = 300_000;
/** A leader whose Postgres did not start this often goes silent, so that others may lead. */
const maxStarts = 3;
/** How long it then waits before it tries again, if nobody else leads by then, ms. */
const startAgainMs = 30_000;
/**
 * A leader whose Postgres is not ready after this long leaves the place to a level standby, ms. A usual start, with the
 * recovery of a checkpoint interval from warm caches, is over by then; a takeover takes 2 s. It doubles with every place
 * given up in vain or by turns, so that a Postgres which needs long everywhere gets the time somewhere.
 */
const readyPatienceMs = 5_000;
/** How long a leader that starts anew waits for the first answers of the synchronous set, ms: a probe and its deadline. */
const firstAnswersMs = 600;
/** A start that takes longer is told, ms. */
const slowStartMs = 60_000;
/** A standby that neither starts nor ends, with nothing under way that would change it, is ended after this long, ms. */
const stuckStandbyMs = 5_000;
/** How often the deletion of a finished order is asked for, ms. */
const finishAgainMs = 5_000;

/** The memory of an agent that has just started. */
export function initialState(now: number): HaState {
  return {
    bootedAt: now,
    proofAt: now,
    nextId: 1,
    syncNames: [placeholderName],
    waitProved: true,
    attempts: { start: 0, rewind: 0, clone: 0, promote: 0 },
    yielded: 0,
    retryAt: 0,
  };
}

/**
 * The agent's decisions, whole: what it remembers and what it knows in, what it remembers and does next out. Pure. The
 * rules are tried in order; each says why it acts. Rule numbers (R1 ...) are those of docs/high-availability.md.
 */
export function decide(state: HaState, input: Input, facts: Facts): Decision {
  const draft = new Draft(state, facts);
  if (input.kind === 'transaction') absorbTransaction(draft, input.id, input.outcome);
  if (input.kind === 'operation') absorbOperation(draft, input.id, input.outcome);
  observeLeader(draft);
  if (fenceIfDue(draft)) return draft.decision();
  heartbeat(draft);
  const { operation, reign } = draft.state;
  if (operation !== undefined) interruptIfVain(draft, operation);
  else if (endIfStuck(draft)) return draft.decision();
  else if (reign !== undefined) lead(draft, reign);
  else follow(draft);
  return draft.decision();
}

/** The settings that Postgres should have now; the driver writes `configure` operations only on command. */
export function wantedSettings(state: HaState, facts: Facts): Settings {
  const { reign } = state;
  if (reign !== undefined) return { synchronousNames: state.syncNames, clientsAllowed: reign.open };
  const leader = facts.dcs.view.leader?.value;
  const following = leader !== undefined && !isMine(facts, leader) && state.takeover === undefined;
  return {
    synchronousNames: state.takeover === undefined ? standbyNames(facts) : state.syncNames,
    // A candidate has the settings that it will be promoted with.
    clientsAllowed: state.takeover === undefined || opensWithPromotion(state, facts.dcs.view.sync?.value),
    ...(following ? { upstream: { instance: leader.instance, address: leader.address } } : {}),
  };
}

/**
 * When koschei-init must fence, on the boot-time clock; 0: no Postgres that could acknowledge a write runs. The deadline
 * outlives the reign: until Postgres is down, whoever should end it may get stuck.
 */
export function fenceDeadline(state: HaState, facts: Facts): number {
  const running = state.operation?.operation;
  const ending = running?.do === 'fence' && facts.postgres.process !== 'none';
  if (!mayWrite(facts) && !isOpening(running) && !ending) return 0;
  return state.reign?.deadline ?? state.lastDeadline ?? 0;
}

/** What this agent answers to a probe now: a proof of leadership is computed, never remembered. */
export function answerProbe(state: HaState, facts: Facts): PeerAnswer {
  const o = facts.postgres.observation;
  const running = facts.postgres.process === 'running' && o !== undefined && facts.now - o.at <= freshMs;
  const { reign } = state;
  const leads =
    reign !== undefined &&
    reign.stage === 'leading' &&
    running &&
    !o.inRecovery &&
    facts.now < reign.deadline;
  const standby = running && o.inRecovery;
  return {
    instance: facts.me.instance,
    ...(facts.volume.state === 'ready' ? { dataId: facts.volume.dataId } : {}),
    bootId: facts.me.bootId,
    state: leads ? 'primary' : standby ? 'standby' : state.fencedTerm !== undefined ? 'fenced' : 'unknown',
    term: reign?.term ?? state.fencedTerm ?? 0,
    openMs: leads ? reign.deadline - facts.now : 0,
    timeline: o?.timeline,
    receivedLsn: running ? (o.inRecovery ? o.receivedLsn : o.flushLsn) : undefined,
    replayedLsn: running ? o.replayedLsn : undefined,
    ...(standby && o.replaysLocalWal === true ? { replaysLocalWal: true } : {}),
    checkpointed: false,
    ancestors: [],
  };
}

// ------------------------------------------------------------------------------------------------ bookkeeping

/** The next state and the commands, while they are being put together. */
class Draft {
  state: HaState;
  readonly facts: Facts;
  readonly commands: Command[] = [];

  constructor(state: HaState, facts: Facts) {
    this.state = state;
    this.facts = facts;
  }

  get now(): number {
    return this.facts.now;
  }

  set(change: { [K in keyof HaState]?: HaState[K] | undefined }): void {
    const next: Record<string, unknown> = { ...this.state };
    for (const [key, value] of Object.entries(change)) {
      if (value === undefined) delete next[key];
      else next[key] = value;
    }
    this.state = next as unknown as HaState;
  }

  setReign(change: Partial<Reign>): void {
    if (this.state.reign !== undefined) this.set({ reign: { ...this.state.reign, ...change } });
  }

  operate(operation: Operation, because: string): void {
    const id = this.state.nextId;
    this.set({ nextId: id + 1, operation: { id, operation, since: this.now } });
    // It may have interrupted the stop of the receiver, whose end is then not heard of.
    if (operation.do === 'fence') this.set({ takeover: undefined });
    // R8: from an empty setting on, even one that is only half applied, a commit must be seen to wait again.
    if ('settings' in operation && operation.settings.synchronousNames.length === 0)
      this.set({ waitProved: false });
    this.commands.push({ kind: 'operate', id, operation, because });
  }

  transact(wanted: LeaderWrite, because: string): void {
    const id = this.state.nextId;
    const { reign } = this.state;
    const timing = timingOf(this.facts, reign);
    const write =
      timing === undefined ? wanted : { ...wanted, leader: { ...wanted.leader, ttlMs: timing.ttlMs } };
    this.set({
      nextId: id + 1,
      transaction: { id, write, sentAt: this.now },
      lastWriteAt: this.now,
    });
    // From now on observers may go by this ttl, whether or not an answer comes: it may be shorter than the one before.
    if (reign !== undefined && timing !== undefined)
      this.setReign({ deadline: Math.min(reign.deadline, this.now + leaderGraceMs(timing)) });
    this.commands.push({ kind: 'transact', id, write, because });
  }

  /** `of`: the operation that failed; what other operations achieve does not take its problem away. */
  problem(reason: string, message: string, of?: Operation['do']): void {
    this.set({ problem: { reason, message }, problemOf: of });
  }

  clearProblem(): void {
    this.set({ problem: undefined, problemOf: undefined });
  }

  /** Leadership is over for this boot, for whatever reason. */
  endReign(fenced: boolean): void {
    const { reign } = this.state;
    if (reign !== undefined && isSlow(this, reign)) this.set({ yielded: this.state.yielded + 1 });
    this.set({
      reign: undefined,
      handover: undefined,
      joining: undefined,
      syncProblem: undefined,
      proofAt: this.now,
      syncNames: standbyNames(this.facts),
      ...(reign === undefined ? {} : { lastDeadline: reign.deadline }),
      ...(fenced && reign !== undefined ? { fencedTerm: reign.term, fencedAt: this.now } : {}),
    });
  }

  decision(): Decision {
    return { state: this.state, commands: this.commands };
  }
}

function absorbTransaction(draft: Draft, id: number, outcome: TransactionOutcome): void {
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
    if (
      leader?.value.bootId === draft.facts.me.bootId &&
      leader.value.phase === 'leading' &&
      sync !== undefined
    ) {
      // An abandoned write of this boot landed: go on from it, still behind the barrier.
      const { term, timeline } = leader.value;
      draft.setReign({ revision: leader.revision, barrier: true, sync: sync.value, term, timeline });
    } else draft.endReign(false);
    return;
  }
  won(draft, write, sentAt, outcome.revision, outcome.sync?.value ?? write.sync);
}

/** Takes in a write of the leader key that certainly happened. */
function won(
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
    // Counted from before sending: no observer can have seen this heartbeat earlier.
    deadline: sentAt + leaderGraceMs(timing),
    goodAt: sentAt,
    beat: write.leader.beat,
    sync,
    term: write.leader.term,
    timeline: write.leader.timeline,
  };
  const { reign } = draft.state;
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
          why: 'restart of the leader',
        },
      });
      return;
  }
}

function absorbOperation(draft: Draft, id: number, outcome: OperationOutcome): void {
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
      draft.set({ attempts: { start: 0, rewind: 0, clone: 0, promote: 0 }, freshCopy: true });
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
  draft.set({ attempts: { ...attempts, clone: count }, retryAt: draft.now + waitMs });
  draft.problem(
    outcome.reason === 'NotEnoughSpace' ? outcome.reason : 'CloneFailed',
    `attempt ${count} to clone failed (${outcome.reason}), the next is in ${Math.round(waitMs / 1_000)} s: ${outcome.message}`,
  );
}

/** What the operator asks this instance to do. */
function orderOf(draft: Draft): CommandValue | undefined {
  return draft.facts.dcs.view.commands.get(draft.facts.me.instance)?.value;
}

function finishCommand(draft: Draft, because: string): void {
  if (draft.state.commandId === undefined) return;
  draft.commands.push({ kind: 'finish-command', commandId: draft.state.commandId, because });
  draft.set({ commandId: undefined, finishedCommand: { id: draft.state.commandId, at: draft.now } });
}

/** Notes when the leader key last changed and when its holder last proved that it leads. */
function observeLeader(draft: Draft): void {
  const { facts, state } = draft;
  const { leader } = facts.dcs.view;
  if (leader === undefined) return;
  if (state.leaderSeen?.revision !== leader.revision)
    draft.set({ leaderSeen: { revision: leader.revision, at: draft.now } });
  const peer = leaderAnswer(facts, leader.value);
  if (peer !== undefined && provesLeadership(peer, leader.value) && peer.at > draft.state.proofAt)
    draft.set({ proofAt: peer.at });
}

// ------------------------------------------------------------------------------------------------ fence

/** An operation that ends with a Postgres that could acknowledge a write. */
function isOpening(operation: Operation | undefined): boolean {
  return operation?.do === 'promote' || (operation?.do === 'start' && operation.as === 'primary');
}

/** Postgres runs and could acknowledge a write. */
function mayWrite(facts: Facts): boolean {
  const { process, startedAs, observation } = facts.postgres;
  return (
    process !== 'none' &&
    (startedAs !== 'standby' || observation?.inRecovery === false || process === 'leftovers')
  );
}

/** Rule "Fence": no write is acknowledged without leadership, or past the deadline. True: nothing else is to be decided. */
function fenceIfDue(draft: Draft): boolean {
  const { facts, state } = draft;
  const running = state.operation?.operation;
  if (running?.do === 'fence') return true;
  // A fence that failed, on a volume that cannot be read for example, is not tried again at once.
  if (state.fenceAfter !== undefined && draft.now < state.fenceAfter) return true;
  const { reign } = state;
  if (!mayWrite(facts) && !isOpening(running)) {
    // Nothing to fence. Who is past the deadline must win a new write before anything is started (R10), also when the
    // start of a standby that it was to promote does not end.
    const idle = running === undefined || running.do === 'start';
    if (reign !== undefined && idle && draft.now >= reign.deadline) draft.endReign(true);
    draft.set({ lastDeadline: undefined, fenceAfter: undefined });
    return false;
  }
  if (facts.postgres.process === 'leftovers' && running === undefined) {
    draft.operate(
      { do: 'fence', why: 'processes of an earlier Postgres are alive' },
      'two servers never write to one data directory',
    );
    return true;
  }
  if (reign === undefined) {
    draft.operate(
      { do: 'fence', why: 'this instance does not lead' },
      'only the leader may acknowledge writes',
    );
    return true;
  }
  if (draft.now >= reign.deadline) {
    draft.operate(
      { do: 'fence', why: `no heartbeat succeeded for ${draft.now - reign.goodAt} ms` },
      'others may take over when the ttl is over',
    );
    return true;
  }
  const o = facts.postgres.observation;
  const silentSince = Math.max(o?.at ?? 0, facts.postgres.since, reign.goodAt - databaseSilenceMs * 10);
  // A Postgres that is being stopped answers nobody; what else a leader does takes no answer away.
  if (
    reign.stage === 'leading' &&
    running?.do !== 'stop' &&
    facts.postgres.process === 'running' &&
    draft.now - silentSince > databaseSilenceMs
  ) {
    draft.operate(
      { do: 'fence', why: `Postgres has not answered for ${draft.now - silentSince} ms` },
      'a primary that does not answer is no primary',
    );
    return true;
  }
  return false;
}

// ------------------------------------------------------------------------------------------------ the leader

/** Rule "Heartbeat" (R1, R2): one write outstanding; behind a barrier at once, else every interval. */
function heartbeat(draft: Draft): void {
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

function cannotLead(draft: Draft): boolean {
  const { attempts, fenceAfter, operation, reign } = draft.state;
  if (draft.facts.volume.state !== 'ready') return true;
  // Nobody knows what a Postgres does that could not be fenced; most likely its disk is stalled.
  if (fenceAfter !== undefined) return true;
  if (attempts.start >= maxStarts && operation?.operation.do !== 'start') return true;
  if (reign === undefined || !isSlow(draft, reign)) return false;
  const heir = levelSyncMember(draft, reign.sync);
  if (heir === undefined) return false;
  draft.problem('SlowStart', `Postgres is not ready yet; meanwhile ${heir.instance} may become the primary`);
  return true;
}

/**
 * Postgres has not become the primary of this reign for so long that somebody else should. It goes on meanwhile, and
 * leads after all if it is ready before somebody has taken the place or the deadline is over.
 */
function isSlow(draft: Draft, reign: Reign): boolean {
  const { operation, yielded } = draft.state;
  const { process, since } = draft.facts.postgres;
  const patience = readyPatienceMs * 2 ** yielded;
  // Postgres has ended, and the look at its volume that must come next does not.
  if (reign.stage === 'leading') return process === 'starting' && draft.now - since > patience;
  // With Postgres up and nothing under way the next step is about to be taken, and it needs a heartbeat (R5).
  const waits = process !== 'running' || operation !== undefined;
  return waits && draft.now - reign.since > patience;
}

/**
 * A start may never end, below the point of consistency for example, and a copy takes long: both end when this instance
 * is to stop, or when whom they get their WAL or data from does not lead any more.
 */
function interruptIfVain(draft: Draft, current: NonNullable<HaState['operation']>): void {
  const { facts, state } = draft;
  const { operation } = current;
  if (operation.do !== 'start' && operation.do !== 'clone' && operation.do !== 'rewind') return;
  const from = operation.do === 'start' ? operation.settings.upstream : operation.upstream;
  const { upstream } = wantedSettings(state, facts);
  const vain = facts.stopRequested
    ? 'it is being stopped'
    : upstream !== undefined && !sameUpstream(from, upstream)
      ? `${upstream.instance} leads now`
      : undefined;
  if (vain !== undefined) {
    // An order that was being carried out is not done.
    draft.set({ commandId: undefined });
    return draft.operate({ do: 'stop' }, vain);
  }
  if (operation.do !== 'start' || draft.now - current.since <= slowStartMs) return;
  if (state.problem?.reason === 'SlowStart') return;
  const why =
    operation.as === 'primary'
      ? 'it replays its WAL'
      : `a standby is ready when it has replayed up to where it was before, with WAL from ${from?.instance ?? 'its disk'}`;
  draft.problem('StartIsSlow', `Postgres has been starting for more than ${slowStartMs / 1_000} s: ${why}`);
}

/** A standby whose start was interrupted and whose stop failed would stay as it is for ever. True: it is being ended. */
function endIfStuck(draft: Draft): boolean {
  const { process, startedAs, since } = draft.facts.postgres;
  if (process !== 'starting' || startedAs !== 'standby') return false;
  if (draft.now < draft.state.retryAt || draft.now - since <= stuckStandbyMs) return false;
  draft.operate(
    { do: 'fence', why: 'this standby neither starts nor ends' },
    'nothing is under way that would change it',
  );
  return true;
}

/** Writes that fail at once are not repeated at once. */
function mayWriteAgain(draft: Draft): boolean {
  return draft.now - (draft.state.lastWriteAt ?? -barrierPaceMs) >= barrierPaceMs;
}

function rewrite(
  draft: Draft,
  reign: Reign,
  kind: LeaderWrite['kind'],
  change: Partial<LeaderValue> = {},
): LeaderWrite {
  const { facts } = draft;
  const o = facts.postgres.observation;
  const dataId = facts.volume.state === 'ready' ? facts.volume.dataId : '';
  return {
    kind,
    leader: {
      instance: facts.me.instance,
      dataId,
      bootId: facts.me.bootId,
      term: reign.term,
      timeline: reign.timeline,
      phase: 'leading',
      ...(o?.flushLsn === undefined || o.inRecovery ? {} : { lsn: formatLsn(o.flushLsn) }),
      beat: reign.beat + 1,
      address: facts.me.address,
      members: memberList(facts),
      ...change,
    },
    expectLeader: reign.revision,
  };
}

function lead(draft: Draft, reign: Reign): void {
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
    if (observation.inRecovery || draft.state.transaction !== undefined) return;
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
  const heir = livingSyncMember(draft, reign.sync);
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

/** Postgres is down in the midst of a reign that goes on. */
function startAgain(draft: Draft): void {
  // Crash recovery may find records that nobody else has.
  draft.setReign({ stage: 'start', open: false, heldBy: undefined, since: draft.now });
}

/** A member of `sync` whose agent answers and whose Postgres is a standby. */
function livingSyncMember(draft: Draft, sync: SyncValue): MemberRef | undefined {
  return livingSyncMembers(draft, sync)[0]?.member;
}

function livingSyncMembers(draft: Draft, sync: SyncValue): { member: MemberRef; answer: PeerAnswer }[] {
  if (sync.mode !== 'sync') return [];
  return sync.names.flatMap((member) => {
    const peer = draft.facts.peers.get(member.instance);
    const lives =
      peer !== undefined &&
      isFresh(draft.facts, peer) &&
      peer.answer.dataId === member.dataId &&
      peer.answer.state === 'standby';
    return lives ? [{ member, answer: peer.answer }] : [];
  });
}

/** A living member of `sync` that has little left to replay: what it needs for its promotion is not what is slow here. */
function levelSyncMember(draft: Draft, sync: SyncValue): MemberRef | undefined {
  return livingSyncMembers(draft, sync).find(
    ({ answer }) => (answer.receivedLsn ?? 0n) - (answer.replayedLsn ?? 0n) <= handoverLagBytes,
  )?.member;
}

/** A member of `sync` that is said to live but has not yet been heard of by an agent that has just started. */
function unheardSyncMember(draft: Draft, sync: SyncValue): boolean {
  const { dcs, peers } = draft.facts;
  return (
    sync.mode === 'sync' &&
    sync.names.some(
      (m) => dcs.view.members.get(m.instance)?.value.dataId === m.dataId && !peers.has(m.instance),
    )
  );
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

function tendSyncSet(draft: Draft, reign: Reign, o: Observation): boolean {
  const { state, facts } = draft;
  const config = facts.dcs.view.config?.value;
  // R3: until a change of `sync` is known to have happened or not, the names must hold for both.
  if (config === undefined || state.transaction?.write.sync !== undefined) return false;
  const applied = facts.applied;
  const namesApplied = applied !== undefined && sameNames(applied.synchronousNames, state.syncNames);
  const step = planSyncSet({
    config,
    stored: reign.sync,
    names: state.syncNames,
    namesApplied,
    observation: namesApplied && o.overridden.length === 0 ? o : undefined,
    candidates: rankCandidates(draft),
    joining: state.joining,
    waitProved: state.waitProved,
    silent: silentMembers(facts, reign, o),
  });
  switch (step.step) {
    case 'nothing':
      draft.set({ syncProblem: step.problem });
      return false;
    case 'remember':
      draft.set({ joining: step.joining });
      return false;
    case 'prove-wait':
      draft.operate({ do: 'prove-wait' }, step.because);
      return true;
    case 'names':
      draft.set({ syncNames: step.names, joining: step.joining });
      draft.operate({ do: 'configure', settings: wantedSettings(draft.state, facts) }, step.because);
      return true;
    case 'store':
      if (state.transaction !== undefined) return false;
      draft.set({ joining: undefined });
      draft.transact(
        {
          ...rewrite(draft, reign, 'sync'),
          sync: { term: reign.term, mode: step.mode, names: [...step.members] },
        },
        step.because,
      );
      return true;
  }
}

/**
 * Members of `sync` for whom commits wait while their agents do not answer: on a dead node a connection looks alive
 * until `wal_sender_timeout`.
 */
function silentMembers(facts: Facts, reign: Reign, o: Observation): string[] {
  if (o.commitWaitMs < commitWaitLimitMs) return [];
  return reign.sync.names
    .filter((m) => facts.now - (facts.peers.get(m.instance)?.at ?? 0) > agentSilenceMs)
    .map((m) => m.dataId);
}

/** Known members that could be synchronous, best first: a switchover's target, then other nodes, then by position. */
function rankCandidates(draft: Draft): Candidate[] {
  const { facts, state } = draft;
  const config = facts.dcs.view.config?.value;
  const target = state.handover?.target?.instance;
  const position = (dataId: string) =>
    facts.postgres.observation?.walsenders.find((w) => w.applicationName === replicationName(dataId))
      ?.flushLsn ?? 0n;
  return (
    [...facts.dcs.view.members.values()]
      .map((m) => m.value)
      .filter((m) => m.instance !== facts.me.instance && (config?.members.includes(m.instance) ?? false))
      // Who has no data yet announces a data id that is nobody's.
      .filter((m) => m.dataId !== noDataId)
      .map((m) => ({
        instance: m.instance,
        dataId: m.dataId,
        apart: m.node !== facts.me.node,
        target: m.instance === target,
      }))
      .sort(
        (a, b) =>
          Number(b.instance === target) - Number(a.instance === target) ||
          Number(position(b.dataId) - position(a.dataId)) ||
          a.instance.localeCompare(b.instance),
      )
  );
}

// ------------------------------------------------------------------------------------------------ hand-over

function startHandover(draft: Draft, reign: Reign): boolean {
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
  if (request === undefined || !reign.open) return false;
  const { to } = request.value;
  const refused = draft.state.refusedRequest;
  if (request.revision === refused?.revision) {
    refuseRequest(draft, request.revision, refused.because);
    return false;
  }
  if (to === facts.me.instance || (to !== undefined && !facts.dcs.view.members.has(to))) {
    const because = to === facts.me.instance ? `${to} is the primary already` : `there is no instance ${to}`;
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

/** Refused once is refused for good: the request may still be there for a while. */
function refuseRequest(draft: Draft, revision: string, because: string): void {
  draft.commands.push({ kind: 'refuse-request', revision, because });
  draft.set({
    refusedRequest: { revision, because, term: draft.state.reign?.term ?? 0 },
  });
}

/** A standby that streams and whose agent answers. */
function livingStandby(draft: Draft): MemberRef | undefined {
  const { facts } = draft;
  return rankCandidates(draft).find((c) => {
    const peer = facts.peers.get(c.instance);
    const streams = facts.postgres.observation?.walsenders.some(
      (w) => w.applicationName === replicationName(c.dataId) && w.state === 'streaming',
    );
    return streams === true && peer !== undefined && isFresh(facts, peer) && peer.answer.state === 'standby';
  });
}

function continueHandover(draft: Draft, reign: Reign): void {
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
      if (target !== undefined && near) {
        draft.set({ handover: { ...handover, target, phase: 'checkpoint', since: draft.now } });
        return draft.operate(
          { do: 'checkpoint' },
          `a short shutdown needs little left to write (${handover.reason})`,
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
      if (!level) return;
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

/** The way back: this instance leads on (rule R2 has been obeyed: no barrier stands). */
function abandonHandover(draft: Draft, why: string): void {
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

// ------------------------------------------------------------------------------------------------ everybody else

function follow(draft: Draft): void {
  const { facts, state } = draft;
  const { view } = facts.dcs;
  const { volume, postgres } = facts;
  if (facts.stopRequested) {
    if (postgres.process === 'none') draft.commands.push({ kind: 'exit', because: 'everything is down' });
    else if (draft.now >= state.retryAt) draft.operate({ do: 'stop' }, 'it is being stopped');
    return;
  }
  clearWaiting(draft);
  if (view.config === undefined || state.transaction !== undefined) {
    if (view.config === undefined)
      draft.problem(
        'WaitingForConfiguration',
        facts.dcs.readAt === undefined
          ? 'the state in etcd has not been read yet'
          : 'the operator has not yet written the configuration to etcd',
      );
    return;
  }
  if (view.invalid.some((i) => i.key.endsWith('/leader') || i.key.endsWith('/sync')))
    return draft.problem(
      'InvalidState',
      `etcd holds values that cannot be read: ${view.invalid.map((i) => i.key).join(', ')}`,
    );
  if (
    view.initialize !== undefined &&
    volume.state === 'ready' &&
    view.initialize.value.systemIdentifier !== volume.systemIdentifier
  )
    return draft.problem(
      'ForeignData',
      `the data directory belongs to system ${volume.systemIdentifier}, the cluster to ${view.initialize.value.systemIdentifier}; it is not started`,
    );
  const { leader, sync } = view;
  if (leader === undefined || sync === undefined) return bootstrap(draft);
  if (isMine(facts, leader.value)) return resume(draft, leader, sync);
  if (volume.state !== 'ready') {
    if (state.takeover !== undefined) draft.set({ takeover: undefined });
    clone(draft, leader.value, volume.state === 'tainted' ? volume.why : 'the volume is empty');
    return;
  }
  if (state.takeover !== undefined) return takeOver(draft, leader, sync);
  if (postgres.process === 'none') {
    if (draft.now < state.retryAt) return;
    // Once only: a setting with which Postgres cannot start would have it copied for ever.
    const copyMayHelp = state.attempts.start >= 5 && state.freshCopy !== true;
    if (copyMayHelp && clone(draft, leader.value, 'Postgres does not start')) return;
    return draft.operate(
      { do: 'start', as: 'standby', settings: wantedSettings(state, facts) },
      `${leader.value.instance} leads`,
    );
  }
  if (postgres.process !== 'running') return;

  const may = eligibility({ facts, state, leader, sync });
  if (may.stand && draft.now >= (state.standAfter ?? 0)) {
    // Promotion rests on a linearizable read, sent after the suspicion arose.
    if (facts.dcs.readAt === undefined || facts.dcs.readAt < draft.now - readFreshMs) {
      draft.commands.push({ kind: 'read', because: may.why });
      return;
    }
    const next = takeWrite({ facts, state, leader, sync }).sync ?? sync.value;
    const heldBy = predecessor(facts, leader.value);
    draft.set({
      takeover: {
        phase: 'stop-receiver',
        since: draft.now,
        leaderRevision: leader.revision,
        syncRevision: sync.revision,
        why: may.why,
        ...(heldBy === undefined ? {} : { heldBy }),
        level: next.names.every((m) => heldBy !== undefined && sameMember(m, heldBy)),
      },
      // What the taking transaction will make necessary is set in the same reload.
      syncNames: namesAfterTakeover(draft, next),
    });
    return draft.operate({ do: 'stop-receiver', settings: wantedSettings(draft.state, facts) }, may.why);
  }
  if (obeyCommand(draft)) return;
  if (rejoin(draft, leader.value)) return;
  const streams = postgres.observation?.receiver?.status === 'streaming';
  if (!configureIfNeeded(draft) && streams && !may.stand) forgetFailure(draft);
}

/** Rule "Take": the receiver is gone, so the old primary can acknowledge no further synchronous commit through it. */
function takeOver(draft: Draft, leader: Stamped<LeaderValue>, sync: Stamped<SyncValue>): void {
  const { facts, state } = draft;
  const { takeover } = state;
  if (takeover?.phase !== 'take') return;
  const o = facts.postgres.observation;
  if (leader.revision !== takeover.leaderRevision || sync.revision !== takeover.syncRevision) {
    return draft.set({ takeover: undefined }); // The leader lives, or somebody else was faster: stream again.
  }
  if (draft.now - takeover.since > 3_000) return draft.set({ takeover: undefined });
  if (o === undefined || o.at < takeover.since || o.receiver !== undefined) return;
  draft.transact(takeWrite({ facts, state, leader, sync }), takeover.why);
}

/**
 * etcd knows of no leader. Whoever holds the data that initdb made for this cluster, and that were never started, founds
 * it; or, when the state in etcd was lost, the instance that a person has named, in a new term and on a new timeline.
 */
function bootstrap(draft: Draft): void {
  const { facts } = draft;
  const { volume } = facts;
  const { view } = facts.dcs;
  if (facts.dcs.readAt === undefined || !mayWriteAgain(draft)) return;
  if (view.initialize !== undefined || view.leader !== undefined)
    return draft.problem(
      'StateIncomplete',
      'etcd knows the cluster but not its leader; a person has to decide',
    );
  const config = view.config?.value;
  const fresh =
    volume.state === 'ready' && volume.bootstrap && volume.promotedTerm === 0 && volume.timeline === 1;
  const chosen = config?.adopt?.instance === facts.me.instance;
  if (volume.state !== 'ready' || !(chosen || (fresh && config?.adopt === undefined)))
    return draft.problem(
      'WaitingForLeader',
      'etcd knows of no leader of this cluster; waiting for the first instance, or for a decision of a person',
    );
  const me = { instance: facts.me.instance, dataId: volume.dataId };
  const founding = fresh && !chosen;
  // Never below a term in which a leader that nobody remembers may still call itself one.
  const term = founding ? 1 : Math.max(volume.promotedTerm, config?.adopt?.term ?? 0, 1) + 1;
  draft.transact(
    {
      kind: 'bootstrap',
      leader: {
        ...me,
        bootId: facts.me.bootId,
        term,
        timeline: founding ? 1 : Math.max(volume.timeline, config?.adopt?.timeline ?? 0) + 1,
        phase: 'leading',
        beat: 0,
        address: facts.me.address,
        members: [me],
      },
      expectLeader: '0',
      expectSync: '0',
      sync: { term, mode: (config?.synchronous ?? 0) > 0 ? 'sync' : 'async', names: [] },
      initialize: { systemIdentifier: volume.systemIdentifier },
    },
    founding ? 'the cluster is new' : 'the state in etcd was lost, and a person chose this instance',
  );
}

/** etcd says that this data directory leads, and this boot does not know it: R2, R5, R10. */
function resume(draft: Draft, leader: Stamped<LeaderValue>, sync: Stamped<SyncValue>): void {
  const { facts, state } = draft;
  if (facts.volume.state !== 'ready' || facts.dcs.readAt === undefined || !mayWriteAgain(draft)) return;
  if (state.attempts.start >= maxStarts && draft.now < state.retryAt + startAgainMs) return;
  if (state.attempts.promote > 0 && draft.now < state.retryAt) return;
  // Those who may stand go first: after a hand-over, and when they live and this Postgres is down. Also after a restart
  // of the agent, which does not know what ended the one before: perhaps koschei-init, after this rule had gone silent.
  const isDown = facts.postgres.process === 'none';
  const heirs =
    leader.value.phase === 'vacated'
      ? electors(leader.value, sync.value).length > 0
      : isDown && livingSyncMember(draft, sync.value) !== undefined;
  const since = Math.max(state.leaderSeen?.at ?? draft.now, state.fencedAt ?? 0);
  if (heirs && draft.now - since < 2 * successorHeadStartMs) return;
  if (isDown && draft.now - since < firstAnswersMs && unheardSyncMember(draft, sync.value)) return;
  draft.transact(
    {
      kind: 'resume',
      leader: {
        ...leader.value,
        bootId: facts.me.bootId,
        phase: 'leading',
        beat: 0,
        address: facts.me.address,
        successor: undefined,
        reason: undefined,
      },
      expectLeader: leader.revision,
      expectSync: sync.revision,
      sync: sync.value,
    },
    'this data directory led last',
  );
}

/** Who may stand besides the last leader. */
function electors(leader: LeaderValue, sync: SyncValue): readonly MemberRef[] {
  return sync.mode === 'sync' ? sync.names : leader.members.filter((m) => !sameMember(m, leader));
}

/** Rewinds or clones a standby that cannot follow. True: something was begun. */
function rejoin(draft: Draft, leader: LeaderValue): boolean {
  const { facts, state } = draft;
  const { postgres } = facts;
  const o = postgres.observation;
  if (draft.now < state.retryAt || o === undefined || leader.phase !== 'leading') return false;
  if (postgres.walLost) return clone(draft, leader, 'the WAL that is needed is no longer to be had');
  if (o.receiver?.status === 'streaming' && state.attempts.rewind > 0)
    draft.set({ attempts: { ...state.attempts, rewind: 0 } });
  const peer = leaderAnswer(facts, leader);
  if (peer === undefined || !provesLeadership(peer, leader) || peer.answer.timeline === undefined)
    return false;
  const forked = o.receiver?.status === 'streaming' ? undefined : divergence(o, peer.answer);
  if (forked === undefined) {
    draft.set({ diverged: undefined });
    if (state.problem?.reason === 'Diverged') draft.clearProblem();
    const upSince = Math.max(postgres.since, state.streamedAt ?? 0);
    if (o.receiver?.status === 'streaming') draft.set({ streamedAt: draft.now });
    else if (draft.now - upSince > notStreamingMs) {
      // A start clears what keeps Postgres from following, such as the history of a leader that has lost.
      draft.operate(
        { do: 'stop' },
        `it has not streamed from ${leader.instance} for ${notStreamingMs / 1000} s`,
      );
      return true;
    }
    return false;
  }
  const diverged = state.diverged?.term === leader.term ? state.diverged : undefined;
  const { term, since } = diverged ?? { term: leader.term, since: draft.now };
  draft.set({ diverged: { term, since } });
  if (draft.now - Math.max(postgres.since, since) < divergedMs) return false;
  if (state.attempts.rewind >= 2) return clone(draft, leader, `${forked}, and pg_rewind did not help`);
  if (!peer.answer.checkpointed) {
    draft.problem('Diverged', `${forked}; waiting for the primary's checkpoint on its timeline`);
    return false;
  }
  draft.operate({ do: 'rewind', upstream: { instance: leader.instance, address: leader.address } }, forked);
  return true;
}

/**
 * Why this standby's WAL is not a prefix of the primary's, or undefined. What was received counts only as far as it is
 * known to be of the timeline that is replayed: of the primary's own, a standby may hold much before it replays the fork.
 */
export function divergence(
  o: Pick<Observation, 'timeline' | 'receivedTimeline' | 'receivedLsn' | 'replayedLsn'>,
  primary: Pick<PeerAnswer, 'timeline' | 'ancestors'>,
): string | undefined {
  if (o.timeline === primary.timeline) return undefined;
  const replayed = o.replayedLsn ?? 0n;
  const received = o.receivedTimeline === o.timeline ? (o.receivedLsn ?? 0n) : 0n;
  const mine = received > replayed ? received : replayed;
  const ancestor = primary.ancestors.find((a) => a.timeline === o.timeline);
  if (ancestor === undefined)
    return `timeline ${o.timeline} is not in the history of the primary's timeline ${primary.timeline ?? '?'}`;
  return mine > ancestor.end
    ? `this instance has timeline ${o.timeline} up to ${formatLsn(mine)}, the primary left it at ${formatLsn(ancestor.end)}`
    : undefined;
}

/** Only from a primary that proves that it leads: old data may be the only copy. True: it was begun. */
function clone(draft: Draft, leader: LeaderValue, why: string): boolean {
  const { facts, state } = draft;
  if (draft.now < state.retryAt) return false;
  const peer = leaderAnswer(facts, leader);
  if (peer === undefined || !provesLeadership(peer, leader)) {
    draft.problem('WaitingForPrimary', `${why}; waiting for a primary to clone from`);
    return false;
  }
  draft.operate({ do: 'clone', upstream: { instance: leader.instance, address: leader.address } }, why);
  return true;
}

/** Carries out the operator's order. True: something was begun. */
function obeyCommand(draft: Draft): boolean {
  const { facts, state } = draft;
  const command = orderOf(draft);
  if (command === undefined || state.commandId !== undefined || draft.now < state.retryAt) return false;
  const done = state.finishedCommand;
  if (command.id === done?.id) {
    if (draft.now - done.at >= finishAgainMs) {
      draft.set({ commandId: command.id });
      finishCommand(draft, 'it was carried out already');
    }
    return false;
  }
  if (command.do === 'restart') {
    draft.set({ commandId: command.id });
    draft.operate({ do: 'stop' }, 'the operator asks for a restart of Postgres');
    return true;
  }
  const leader = facts.dcs.view.leader?.value;
  if (state.reign !== undefined || leader === undefined) {
    draft.set({ commandId: command.id });
    finishCommand(draft, 'the primary is never cloned');
    return false;
  }
  if (!clone(draft, leader, 'the operator asks for it')) return false;
  draft.set({ commandId: command.id });
  return true;
}

/** True: the settings are not yet in force. */
function configureIfNeeded(draft: Draft): boolean {
  const { facts } = draft;
  const settings = wantedSettings(draft.state, facts);
  const { applied } = facts;
  const generation = facts.dcs.view.config?.value.generation ?? 0;
  if (applied !== undefined && applied.generation === generation && sameSettings(applied, settings))
    return false;
  if (draft.now >= draft.state.retryAt) draft.operate({ do: 'configure', settings }, 'the settings changed');
  return true;
}

/** All is as it should be: what failed on the way is over. */
function forgetFailure(draft: Draft): void {
  if (draft.state.problemOf !== undefined) draft.clearProblem();
  if (draft.state.attempts.promote > 0) draft.set({ attempts: { ...draft.state.attempts, promote: 0 } });
}

// ------------------------------------------------------------------------------------------------ small questions

/** What this agent waited for is looked at anew in every decision. */
function clearWaiting(draft: Draft): void {
  if (draft.state.problem?.reason.startsWith('WaitingFor')) draft.clearProblem();
}

function timingOf(facts: Facts, reign: Reign | undefined): Timing | undefined {
  return facts.dcs.view.config?.value.timing ?? reign?.timing;
}

function isMine(facts: Facts, leader: LeaderValue): boolean {
  return (
    facts.volume.state === 'ready' &&
    leader.dataId === facts.volume.dataId &&
    leader.instance === facts.me.instance
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

/**
 * Everybody who has announced data, and whoever was listed and has announced nothing since: an instance that is started
 * anew is away for a moment, and must not lose its right to stand if the leader is lost just then.
 */
function memberList(facts: Facts): MemberRef[] {
  const { view } = facts.dcs;
  const config = view.config?.value;
  const announced = [...view.members.values()].map(({ value: { instance, dataId } }) => ({
    instance,
    dataId,
  }));
  const away = (view.leader?.value.members ?? []).filter((m) => !view.members.has(m.instance));
  const known = [...announced, ...away].filter(
    (m) => m.instance !== facts.me.instance && (config?.members.includes(m.instance) ?? true),
  );
  return facts.volume.state === 'ready'
    ? [{ instance: facts.me.instance, dataId: facts.volume.dataId }, ...known]
    : known;
}

/** The names that Postgres must require for this stored set. */
function namesFor(sync: SyncValue): readonly string[] {
  if (sync.mode === 'async') return [];
  return sync.names.length === 0 ? [placeholderName] : sync.names.map((m) => replicationName(m.dataId));
}

/** A standby waits for a placeholder where commits will have to wait: then waiting works from its promotion on. */
function standbyNames(facts: Facts): readonly string[] {
  const { sync, config } = facts.dcs.view;
  return sync?.value.mode === 'async' && config?.value.synchronous === 0 ? [] : [placeholderName];
}

/**
 * Clients stay connected through the promotion, unless commits have not been seen to wait or somebody in `sync` may not
 * hold what they would read (rule "Open").
 */
function opensWithPromotion(state: HaState, sync: SyncValue | undefined): boolean {
  return sync?.mode === 'async' || (state.waitProved && state.takeover?.level === true);
}

/**
 * The leader, if this standby's WAL is a prefix of that one's: only it has written on its timeline (R6), and it sends
 * nothing before it is on its own disk. A standby that replays an earlier timeline may hold what that leader never had.
 */
function predecessor(facts: Facts, leader: LeaderValue): MemberRef | undefined {
  const { instance, dataId, timeline } = leader;
  return facts.postgres.observation?.timeline === timeline ? { instance, dataId } : undefined;
}

/**
 * The names right after a takeover: those of the stored set (R4), and first a living standby that will replace them, so
 * that its walsender starts with its final priority. Without proof that commits wait, a placeholder holds them.
 */
function namesAfterTakeover(draft: Draft, sync: SyncValue): readonly string[] {
  if (sync.mode === 'async') return [];
  const stored = namesFor(sync);
  const first = rankCandidates(draft).find(
    (c) =>
      c.apart && !includesMember(sync.names, c) && isFresh(draft.facts, draft.facts.peers.get(c.instance)),
  );
  const ahead = draft.state.waitProved ? [] : [placeholderName];
  return [...new Set([...ahead, ...(first === undefined ? [] : [replicationName(first.dataId)]), ...stored])];
}

function sameNames(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

function sameSettings(a: Settings, b: Settings): boolean {
  return (
    sameNames(a.synchronousNames, b.synchronousNames) &&
    a.clientsAllowed === b.clientsAllowed &&
    sameUpstream(a.upstream, b.upstream)
  );
}

function sameUpstream(a: Upstream | undefined, b: Upstream | undefined): boolean {
  return a?.address === b?.address && a?.instance === b?.instance;
}
