import type { LeaderValue } from '../../dcs/index.ts';
import { formatLsn } from '../../postgres/lsn.ts';
import { isFresh, leaderAnswer, provesLeadership } from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Facts, HaState, Observation, PeerAnswer } from './facts.ts';
import { includesMember } from './names.ts';
import { mayLead } from './options.ts';
import { isSameSource, wantedSettings } from './settings.ts';

/** A standby must look diverged for this long before it is rewound, ms: positions and timelines come from different places. */
const divergedMs = 1_000;
/** Whom the synchronous set names is not taken apart for this long while another standby can replace it there, ms. */
const replacedMs = 5_000;
/** A standby that has not streamed from a primary that leads for this long is started anew, ms. */
const notStreamingMs = 60_000;
/** A start that takes longer is told, ms. */
const slowStartMs = 60_000;
/** A standby that neither starts nor ends, with nothing under way that would change it, is ended after this long, ms. */
const stuckStandbyMs = 5_000;

/**
 * A start may never end, below the point of consistency for example, and a copy takes long: both end when this instance
 * is to stop, or when whom they get their WAL or data from does not lead any more.
 */
export function interruptIfVain(draft: Draft, current: NonNullable<HaState['operation']>): void {
  const { facts, state } = draft;
  const { operation } = current;
  if (operation.do !== 'start' && operation.do !== 'clone' && operation.do !== 'rewind') return;
  const from = operation.do === 'start' ? operation.settings.upstream : operation.upstream;
  const { upstream } = wantedSettings(state, facts);
  const leads = facts.dcs.view.leader?.value;
  const vain = facts.stopRequested
    ? 'it is being stopped'
    : upstream !== undefined && !isSameSource(from, upstream) && !isSameSource(from, leads)
      ? `${leads?.instance} leads now`
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
export function endIfStuck(draft: Draft): boolean {
  const { process, startedAs, since } = draft.facts.postgres;
  if (process !== 'starting' || startedAs !== 'standby') return false;
  if (draft.now < draft.state.retryAt || draft.now - since <= stuckStandbyMs) return false;
  draft.operate(
    { do: 'fence', why: 'this standby neither starts nor ends' },
    'nothing is under way that would change it',
  );
  return true;
}

/** Rewinds or clones a standby that cannot follow. True: something was begun. */
export function rejoin(draft: Draft, leader: LeaderValue): boolean {
  const { facts, state } = draft;
  const { postgres } = facts;
  const o = postgres.observation;
  if (draft.now < state.retryAt || o === undefined || leader.phase !== 'leading') return false;
  const isPrimarys = facts.applied?.upstream?.cascades !== true;
  if (postgres.walLost && isPrimarys)
    return clone(draft, leader, 'the WAL that is needed is no longer to be had');
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
    // Postgres asks for WAL only when it has applied what it has; a start would not change that.
    else if (o.waitsToApply !== true && draft.now - upSince > notStreamingMs) {
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
  if (draft.now - since < replacedMs && canBeReplaced(facts, leader)) {
    draft.problem(
      'Diverged',
      `${forked}; waiting until another standby has replaced it in the synchronous set`,
    );
    return false;
  }
  draft.operate({ do: 'rewind', upstream: { instance: leader.instance, address: leader.address } }, forked);
  return true;
}

/**
 * The synchronous set names this instance, and another one that is not in it could be named instead. Until the rewind has
 * ended nobody could go on with these data: if the primary were lost for good meanwhile, so were all commits (R4, R7).
 */
function canBeReplaced(facts: Facts, leader: LeaderValue): boolean {
  const { dcs, me, peers, volume } = facts;
  const { sync, config } = dcs.view;
  if (sync?.value.mode !== 'sync' || volume.state !== 'ready') return false;
  const { names } = sync.value;
  if (!includesMember(names, { instance: me.instance, dataId: volume.dataId })) return false;
  return [...dcs.view.members.values()].some(({ value: { instance, dataId } }) => {
    const peer = peers.get(instance);
    return (
      instance !== leader.instance &&
      instance !== me.instance &&
      !includesMember(names, { instance, dataId }) &&
      mayLead(config?.value, instance) &&
      peer !== undefined &&
      isFresh(facts, peer) &&
      peer.answer.dataId === dataId &&
      peer.answer.state === 'standby'
    );
  });
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
export function clone(draft: Draft, leader: LeaderValue, why: string): boolean {
  const { facts, state } = draft;
  if (draft.now < Math.max(state.retryAt, state.cloneAfter ?? 0)) return false;
  const peer = leaderAnswer(facts, leader);
  if (peer === undefined || !provesLeadership(peer, leader)) {
    draft.problem('WaitingForPrimary', `${why}; waiting for a primary to clone from`);
    return false;
  }
  draft.operate({ do: 'clone', upstream: { instance: leader.instance, address: leader.address } }, why);
  return true;
}
