import type { Timing } from '../../dcs/index.ts';
import { leaderGraceMs } from '../../dcs/index.ts';
import type { Command, Decision, Facts, HaState, LeaderWrite, Operation, Reign } from './facts.ts';
import { eitherWritten, writtenBy } from './leader-write.ts';
import { sameSettings, standbyNames, wantedSettings } from './settings.ts';

/** At least this long between two writes after one without a definite answer, ms. */
const barrierPaceMs = 100;
/**
 * A leader whose Postgres is not ready after this long leaves the place to a level standby, ms. A usual start, with the
 * recovery of a checkpoint interval from warm caches, is over by then; a takeover takes 2 s. It doubles with every place
 * given up in vain or by turns, so that a Postgres which needs long everywhere gets the time somewhere.
 */
const readyPatienceMs = 5_000;

/** The next state and the commands, while they are being put together. */
export class Draft {
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
      this.setReign({
        deadline: Math.min(reign.deadline, this.now + leaderGraceMs(timing)),
        written: eitherWritten(reign.written, writtenBy(write.leader, write.sync, timing.ttlMs)),
      });
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

/**
 * Postgres has not become the primary of this reign for so long that somebody else should. It goes on meanwhile, and
 * leads after all if it is ready before somebody has taken the place or the deadline is over.
 */
export function isSlow(draft: Draft, reign: Reign): boolean {
  const { operation, yielded } = draft.state;
  const { process, since } = draft.facts.postgres;
  const patience = readyPatienceMs * 2 ** yielded;
  // Postgres has ended, and the look at its volume that must come next does not.
  if (reign.stage === 'leading') return process === 'starting' && draft.now - since > patience;
  // With Postgres up and nothing under way the next step is about to be taken, and it needs a heartbeat (R5).
  const waits = process !== 'running' || operation !== undefined;
  return waits && draft.now - reign.since > patience;
}

/** Writes that fail at once are not repeated at once. */
export function mayWriteAgain(draft: Draft): boolean {
  return draft.now - (draft.state.lastWriteAt ?? -barrierPaceMs) >= barrierPaceMs;
}

/** True: the settings are not yet in force. */
export function configureIfNeeded(draft: Draft): boolean {
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
export function forgetFailure(draft: Draft): void {
  if (draft.state.problemOf !== undefined) draft.clearProblem();
  if (draft.state.attempts.promote > 0) draft.set({ attempts: { ...draft.state.attempts, promote: 0 } });
}

/** What this agent waited for is looked at anew in every decision. */
export function clearWaiting(draft: Draft): void {
  if (draft.state.problem?.reason.startsWith('WaitingFor')) draft.clearProblem();
}

/** The timing to go by: as configured, or as a reign began with when the configuration cannot be read. */
export function timingOf(facts: Facts, reign: Reign | undefined): Timing | undefined {
  return facts.dcs.view.config?.value.timing ?? reign?.timing;
}
