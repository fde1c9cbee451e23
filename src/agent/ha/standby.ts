import type { LeaderValue, MemberRef, Stamped, SyncValue } from '../../dcs/index.ts';
import { bootstrap, resume } from './bootstrap.ts';
import { eligibility, takeWrite } from './candidate.ts';
import { clearWaiting, configureIfNeeded, type Draft, forgetFailure } from './draft.ts';
import type { Facts } from './facts.ts';
import { failoverAskedFor } from './failover.ts';
import { sameMember } from './names.ts';
import { obeyCommand } from './orders.ts';
import { clone, rejoin } from './rejoin.ts';
import { olderThanKnown } from './restored-state.ts';
import { isMine, wantedSettings } from './settings.ts';
import { stalledStorage, standbyStorageSilenceMs } from './storage.ts';
import { namesAfterTakeover } from './sync-upkeep.ts';

/** How old a linearizable read may be when a candidate begins a takeover, ms; the taking transaction compares again. */
const readFreshMs = 500;
/** A takeover that has waited for such a read for longer is told, ms. */
const readPatienceMs = 2_000;

/** The rules of everybody who does not lead: found, resume, clone, stand, follow, rejoin. */
export function follow(draft: Draft): void {
  const { facts, state } = draft;
  const { view } = facts.dcs;
  const { volume, postgres } = facts;
  if (facts.stopRequested) {
    if (postgres.process === 'none' || postgres.process === 'ended')
      draft.commands.push({ kind: 'exit', because: 'everything is down' });
    else if (draft.now >= state.retryAt) draft.operate({ do: 'stop' }, 'it is being stopped');
    return;
  }
  clearWaiting(draft);
  // Nothing is founded, taken, started or copied on a volume that does not take it in.
  if (postgres.process === 'ended' || volume.state === 'unknown') return;
  if (stalledStorage(facts, standbyStorageSilenceMs) !== undefined) return;
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
  const old = olderThanKnown(draft.state, facts, leader);
  if (old !== undefined) {
    draft.set({ takeover: undefined });
    // What a person orders for this instance by name is done all the same.
    if (!obeyCommand(draft)) draft.problem('StateOlderThanData', old);
    return;
  }
  if (draft.state.problem?.reason === 'StateOlderThanData') draft.clearProblem();
  if (isMine(facts, leader.value)) return resume(draft, leader, sync);
  if (state.failsafe !== undefined) draft.set({ failsafe: undefined });
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
  const asked = may.stand ? undefined : failoverAskedFor(draft, leader, sync);
  const why = may.stand ? may.why : asked?.why;
  if (why !== undefined && draft.now >= (state.standAfter ?? 0)) {
    // Promotion rests on a linearizable read, sent after the suspicion arose.
    if (facts.dcs.readAt === undefined || facts.dcs.readAt < draft.now - readFreshMs) {
      draft.commands.push({ kind: 'read', because: why });
      if (may.stand && draft.now - may.since > readPatienceMs)
        draft.problem('WaitingForEtcd', `${why}; nobody is promoted before etcd answers`);
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
        why,
        ...(asked === undefined ? {} : { asked: { revision: asked.revision, accepts: asked.accepts } }),
        ...(heldBy === undefined ? {} : { heldBy }),
        level: next.names.every((m) => heldBy !== undefined && sameMember(m, heldBy)),
      },
      // What the taking transaction will make necessary is set in the same reload.
      syncNames: namesAfterTakeover(draft, next),
    });
    return draft.operate({ do: 'stop-receiver', settings: wantedSettings(draft.state, facts) }, why);
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
  const { request } = facts.dcs.view;
  const isWithdrawn = takeover.asked !== undefined && request?.revision !== takeover.asked.revision;
  if (isWithdrawn || draft.now - takeover.since > 3_000) return draft.set({ takeover: undefined });
  if (o === undefined || o.at < takeover.since || o.receiver !== undefined) return;
  const write = takeWrite({ facts, state, leader, sync });
  if (takeover.asked === undefined) return draft.transact(write, takeover.why);
  const { revision, accepts } = takeover.asked;
  // What a person has accepted is not to be forgotten before the history says it.
  const leading = accepts === undefined ? write.leader : { ...write.leader, accepted: accepts.slice(0, 300) };
  draft.transact({ ...write, leader: leading, expectRequest: revision, deleteRequest: true }, takeover.why);
}

/**
 * The leader, if this standby's WAL is a prefix of that one's: only it has written on its timeline (R6), and it sends
 * nothing before it is on its own disk. A standby that replays an earlier timeline may hold what that leader never had.
 */
function predecessor(facts: Facts, leader: LeaderValue): MemberRef | undefined {
  const { instance, dataId, timeline } = leader;
  return facts.postgres.observation?.timeline === timeline ? { instance, dataId } : undefined;
}
