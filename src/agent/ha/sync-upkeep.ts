import type { MemberRef, SyncValue } from '../../dcs/index.ts';
import { placeholderName, replicationName } from '../../postgres/replication-names.ts';
import { isFresh } from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Facts, Observation, PeerAnswer, Reign } from './facts.ts';
import { rewrite } from './leader-write.ts';
import { includesMember, noDataId } from './names.ts';
import { distance, mayLead, priorityOf, streamFromOf } from './options.ts';
import { namesFor, sameNames, wantedSettings } from './settings.ts';
import { type Candidate, planSyncSet } from './sync-set.ts';

/** How long after a takeover a standby may take to stream from the new primary, ms: a promotion, and to connect. */
const attachPatienceMs = 700;
/** A synchronous standby is replaced when commits have waited this long for it, ms ... */
const commitWaitLimitMs = 500;
/** ... and its agent, asked every 250 ms, has not answered for this long, ms. */
const agentSilenceMs = 750;
/** A target further behind than this would make a switchover slow, bytes. */
export const handoverLagBytes = 16n * 1024n * 1024n;

/** A member of `sync` that may lead, whose agent answers and whose Postgres is a standby. */
export function livingSyncMember(draft: Draft, sync: SyncValue): MemberRef | undefined {
  return livingSyncMembers(draft, sync)[0]?.member;
}

function livingSyncMembers(draft: Draft, sync: SyncValue): { member: MemberRef; answer: PeerAnswer }[] {
  if (sync.mode !== 'sync') return [];
  const config = draft.facts.dcs.view.config?.value;
  return sync.names.flatMap((member) => {
    const peer = draft.facts.peers.get(member.instance);
    const lives =
      peer !== undefined &&
      mayLead(config, member.instance) &&
      isFresh(draft.facts, peer) &&
      peer.answer.dataId === member.dataId &&
      peer.answer.state === 'standby';
    return lives ? [{ member, answer: peer.answer }] : [];
  });
}

/** A living member of `sync` that has little left to replay: what it needs for its promotion is not what is slow here. */
export function levelSyncMember(draft: Draft, sync: SyncValue): MemberRef | undefined {
  return livingSyncMembers(draft, sync).find(
    ({ answer }) => (answer.receivedLsn ?? 0n) - (answer.replayedLsn ?? 0n) <= handoverLagBytes,
  )?.member;
}

/** A member of `sync` that may lead and is said to live but has not yet been heard of by an agent that has just started. */
export function unheardSyncMember(draft: Draft, sync: SyncValue): boolean {
  const { dcs, peers } = draft.facts;
  return (
    sync.mode === 'sync' &&
    sync.names.some(
      (m) =>
        mayLead(dcs.view.config?.value, m.instance) &&
        dcs.view.members.get(m.instance)?.value.dataId === m.dataId &&
        !peers.has(m.instance),
    )
  );
}

/** Rules R3 and R8: the next step towards the synchronous set that is wanted. True: it was taken. */
export function tendSyncSet(draft: Draft, reign: Reign, o: Observation): boolean {
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
    awaited: awaitedMembers(facts, reign),
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
 * Standbys that learned of a takeover a moment ago and are on their way. Whom the names begin with was chosen before
 * anybody could stream; to choose again because another was first costs more than this.
 */
function awaitedMembers(facts: Facts, reign: Reign): string[] {
  if (facts.now - reign.since >= attachPatienceMs) return [];
  return [...facts.peers.values()].flatMap((peer) =>
    isFresh(facts, peer) && peer.answer.state === 'standby' && peer.answer.dataId !== undefined
      ? [peer.answer.dataId]
      : [],
  );
}

/**
 * Members of `sync` for whom commits wait while their agents do not answer, or say that their disk is stalled: on a dead
 * node, or with a receiver that waits for its disk, a connection looks alive until `wal_sender_timeout`.
 */
function silentMembers(facts: Facts, reign: Reign, o: Observation): string[] {
  if (o.commitWaitMs < commitWaitLimitMs) return [];
  return reign.sync.names
    .filter(({ instance }) => {
      const peer = facts.peers.get(instance);
      return facts.now - (peer?.at ?? 0) > agentSilenceMs || peer?.answer.storageStalled === true;
    })
    .map((m) => m.dataId);
}

/**
 * Known members that could be synchronous, best first: a switchover's target, then by priority, then by position. Where
 * they are is for `planSyncSet` to weigh.
 */
export function rankCandidates(draft: Draft): Candidate[] {
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
        ...distance(config, facts.me.node, m.node),
        target: m.instance === target,
        noFailover: !mayLead(config, m.instance),
        cascades: streamFromOf(config, m.instance) !== undefined,
        priority: priorityOf(config, m.instance),
      }))
      .sort(
        (a, b) =>
          Number(b.instance === target) - Number(a.instance === target) ||
          b.priority - a.priority ||
          Number(position(b.dataId) - position(a.dataId)) ||
          a.instance.localeCompare(b.instance),
      )
  );
}

/** A standby that may lead, that streams and whose agent answers. */
export function livingStandby(draft: Draft): MemberRef | undefined {
  const { facts } = draft;
  return rankCandidates(draft).find((c) => {
    if (c.noFailover === true) return false;
    const peer = facts.peers.get(c.instance);
    const streams = facts.postgres.observation?.walsenders.some(
      (w) => w.applicationName === replicationName(c.dataId) && w.state === 'streaming',
    );
    return streams === true && peer !== undefined && isFresh(facts, peer) && peer.answer.state === 'standby';
  });
}

/**
 * The names right after a takeover: those of the stored set (R4), and first a living standby that will replace them, so
 * that its walsender starts with its final priority. Without proof that commits wait, a placeholder holds them.
 */
export function namesAfterTakeover(draft: Draft, sync: SyncValue): readonly string[] {
  if (sync.mode === 'async') return [];
  const stored = namesFor(sync);
  const fit = rankCandidates(draft).filter(
    (c) =>
      c.apart &&
      c.noFailover !== true &&
      !includesMember(sync.names, c) &&
      isFresh(draft.facts, draft.facts.peers.get(c.instance)),
  );
  // Who cascades stays where it streams from; from here it may be.
  const walsenders = draft.facts.postgres.observation?.walsenders ?? [];
  const isHere = (c: Candidate) =>
    walsenders.some(({ applicationName }) => applicationName === replicationName(c.dataId));
  const first = fit.find((c) => c.cascades !== true) ?? fit.find(isHere);
  const ahead = draft.state.waitProved ? [] : [placeholderName];
  return [...new Set([...ahead, ...(first === undefined ? [] : [replicationName(first.dataId)]), ...stored])];
}
