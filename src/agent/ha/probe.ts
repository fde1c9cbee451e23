import { freshMs, leaderAnswer, provesLeadership } from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Facts, HaState, PeerAnswer } from './facts.ts';
import { wentBack } from './restored-state.ts';
import { stalledStorage, standbyStorageSilenceMs } from './storage.ts';

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
  const stalled = stalledStorage(facts, standbyStorageSilenceMs) !== undefined;
  const standby = running && o.inRecovery && !stalled;
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
    ...(standby && o.failoverSlots !== undefined ? { failoverSlots: o.failoverSlots } : {}),
    ...(standby && o.receiver?.status === 'streaming'
      ? { streamsFrom: facts.applied?.upstream?.instance }
      : {}),
    ...(standby && o.replaysLocalWal === true ? { replaysLocalWal: true } : {}),
    ...(stalled ? { storageStalled: true } : {}),
    checkpointed: false,
    ancestors: [],
  };
}

/** Notes when the leader key last changed and when its holder last proved that it leads. */
export function observeLeader(draft: Draft): void {
  const { facts, state } = draft;
  const { leader } = facts.dcs.view;
  const initialize = facts.dcs.view.initialize?.revision;
  if (leader === undefined) {
    // A state that is gone is another matter than one that is old: it will be founded anew, at lower revisions.
    if (facts.dcs.readAt !== undefined) draft.set({ leaderSeen: undefined, stateLost: undefined });
    return;
  }
  const known = state.leaderSeen;
  if (known !== undefined && known.initialize === initialize && wentBack(leader.revision, known.revision))
    draft.set({ stateLost: { initialize } });
  else if (state.stateLost !== undefined && state.stateLost.initialize !== initialize)
    draft.set({ stateLost: undefined });
  if (known?.revision !== leader.revision)
    draft.set({ leaderSeen: { revision: leader.revision, initialize, at: draft.now } });
  const peer = leaderAnswer(facts, leader.value);
  if (peer !== undefined && provesLeadership(peer, leader.value) && peer.at > draft.state.proofAt)
    draft.set({ proofAt: peer.at, provedTerm: leader.value.term });
}
