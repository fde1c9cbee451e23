import type { LeaderValue, MemberRef, Stamped, SyncValue } from '../../dcs/index.ts';
import { successorHeadStartMs } from './candidate.ts';
import { type Draft, mayWriteAgain } from './draft.ts';
import type { Facts } from './facts.ts';
import { hasPromised } from './failsafe.ts';
import { maxStarts } from './leader.ts';
import { sameMember } from './names.ts';
import { mayLead } from './options.ts';
import { pausedUntil } from './pause.ts';
import { livingSyncMember, unheardSyncMember } from './sync-upkeep.ts';

/** How long it then waits before it tries again, if nobody else leads by then, ms. */
const startAgainMs = 30_000;
/** How long a leader that starts anew waits for the first answers of the synchronous set, ms: a probe and its deadline. */
const firstAnswersMs = 600;

/**
 * etcd knows of no leader. Whoever holds the data that initdb made for this cluster, and that were never started, founds
 * it; or, when the state in etcd was lost, the instance that a person has named, in a new term and on a new timeline.
 */
export function bootstrap(draft: Draft): void {
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
  // Whoever it was promised to may still serve: with another etcd it learns of nothing.
  if (hasPromised(draft.state, draft.now)) return;
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
export function resume(draft: Draft, leader: Stamped<LeaderValue>, sync: Stamped<SyncValue>): void {
  const { facts, state } = draft;
  if (facts.volume.state !== 'ready' || facts.dcs.readAt === undefined || !mayWriteAgain(draft)) return;
  if (state.attempts.start >= maxStarts && draft.now < state.retryAt + startAgainMs) return;
  if (state.attempts.promote > 0 && draft.now < state.retryAt) return;
  // Those who may stand go first: after a hand-over, and when they live and this Postgres is down. Also after a restart
  // of the agent, which does not know what ended the one before: perhaps koschei-init, after this rule had gone silent.
  const isDown = facts.postgres.process === 'none';
  const paused = pausedUntil(facts, state) !== undefined;
  const heirs = paused
    ? leader.value.phase === 'vacated' && leader.value.successor !== undefined
    : leader.value.phase === 'vacated'
      ? electors(facts, leader.value, sync.value).length > 0
      : isDown && livingSyncMember(draft, sync.value) !== undefined;
  const since = Math.max(state.leaderSeen?.at ?? draft.now, state.fencedAt ?? 0);
  if (heirs && draft.now - since < 2 * successorHeadStartMs) return;
  if (!paused && isDown && draft.now - since < firstAnswersMs && unheardSyncMember(draft, sync.value)) return;
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
function electors({ dcs }: Facts, leader: LeaderValue, sync: SyncValue): readonly MemberRef[] {
  const others = sync.mode === 'sync' ? sync.names : leader.members.filter((m) => !sameMember(m, leader));
  return others.filter((m) => mayLead(dcs.view.config?.value, m.instance));
}
