import type { LeaderValue, RequestValue, Stamped, SyncValue } from '../../dcs/index.ts';
import { formatLsn, parseLsn } from '../../postgres/lsn.ts';
import {
  isFresh,
  leaderAnswer,
  openReason,
  position,
  provesLeadership,
  type Situation,
  ttlOf,
  unfit,
} from './candidate.ts';
import type { Draft } from './draft.ts';
import type { Facts } from './facts.ts';
import { sameMember } from './names.ts';
import { mayLead } from './options.ts';

/** A candidate that cannot carry out a failover this long after the leader's ttl gives it up, ms. */
const patienceMs = 30_000;

export type FailoverRequest = Extract<RequestValue, { kind: 'failover' }>;

/** What a candidate does about a failover that a person asks for; undefined: nobody asks this one. */
export type Verdict =
  /** `accepts`: the loss that a person accepts; undefined: this instance holds every acknowledged commit. */
  | {
      readonly verdict: 'stand';
      readonly revision: string;
      readonly why: string;
      readonly accepts: string | undefined;
    }
  | { readonly verdict: 'wait'; readonly for: string }
  | { readonly verdict: 'refuse'; readonly because: string };

/**
 * Whether this standby takes over although acknowledged commits may be lost, because a person has decided so. The request
 * names the data, the boot and the lost leader's term that the person saw, and is newer than that leader's last write: what
 * has changed since then, or began again, was not decided about. The old leader has been silent for its whole ttl on this
 * observer's own clock. That alone does not stop a leader which serves on without etcd because all who may stand otherwise
 * have promised not to (R11): it must be seen not to serve, or a person must have made sure (invariant 1).
 */
export function judgeFailover(s: Situation, askedAt: number): Verdict | undefined {
  const { facts, leader } = s;
  const { request, config } = facts.dcs.view;
  if (request?.value.kind !== 'failover' || request.value.to !== facts.me.instance) return undefined;
  const because = refusal(s, request.revision, request.value);
  if (because !== undefined) return { verdict: 'refuse', because };
  const ttlMs = ttlOf(config?.value, leader.value);
  const hindrance =
    unfit(facts) ??
    (openReason(s, ttlMs, false) === undefined
      ? `${leader.value.instance} has not been silent for its ttl, ${ttlMs} ms`
      : undefined);
  const why = `failover asked for by ${request.value.by}`;
  const loss = isInSet(s) ? undefined : `${why}, which accepts that ${statedLoss(facts, leader.value)}`;
  if (hindrance === undefined)
    return { verdict: 'stand', revision: request.revision, why: loss ?? why, accepts: loss };
  return facts.now - askedAt > ttlMs + patienceMs
    ? { verdict: 'refuse', because: hindrance }
    : { verdict: 'wait', for: hindrance };
}

function refusal(s: Situation, revision: string, asked: FailoverRequest): string | undefined {
  const { facts, leader } = s;
  const { me, volume } = facts;
  const who = leader.value.instance;
  if (!mayLead(facts.dcs.view.config?.value, me.instance))
    return `${me.instance} may not become the primary (noFailover)`;
  if (volume.state !== 'ready' || volume.dataId !== asked.dataId)
    return `${me.instance} has other data than when it was asked for`;
  if (me.bootId !== asked.bootId) return `the agent of ${me.instance} was started anew since; ask again`;
  if (leader.value.term !== asked.term)
    return `it was asked for in term ${asked.term}, and this is term ${leader.value.term}: look at the cluster again`;
  const peer = leaderAnswer(facts, leader.value);
  if (peer !== undefined && provesLeadership(peer, leader.value)) return `${who} leads: use a switchover`;
  if (BigInt(leader.revision) > BigInt(revision))
    return `${who} has given a sign of life since: if it leads, use a switchover; if it is lost again, ask again`;
  if (!asked.acceptLoss && !isInSet(s))
    return `${me.instance} may lack acknowledged commits, and nobody has accepted that (acceptLoss)`;
  if (!asked.primaryIsOff && mayServe(s))
    return `${who} does not answer, and may serve on without etcd: make sure that it is off, and say so (primaryIsOff)`;
  const better = livingSyncMember(s);
  return better === undefined ? undefined : `${better} holds every acknowledged commit and can take over`;
}

/** Whether this instance holds every acknowledged commit. */
function isInSet({ facts, sync }: Situation): boolean {
  const { volume, me } = facts;
  return (
    sync.value.mode === 'sync' &&
    volume.state === 'ready' &&
    sync.value.names.some((m) => sameMember(m, { instance: me.instance, dataId: volume.dataId }))
  );
}

/** Whether the old leader may go on by promises that this instance was not asked for. */
function mayServe({ facts, leader, sync }: Situation): boolean {
  const { bootId, instance, dataId, term, phase, members } = leader.value;
  const promisers = sync.value.mode === 'sync' ? sync.value.names : members;
  const mine = facts.volume.state === 'ready' ? facts.volume.dataId : '';
  if (phase === 'vacated' || promisers.some((m) => m.dataId === mine)) return false;
  const peer = facts.peers.get(instance);
  if (peer === undefined || !isFresh(facts, peer)) return true;
  const { answer } = peer;
  // Another boot, or other data, would have to write to etcd before it could serve.
  const isAnother = answer.bootId !== bootId || answer.dataId !== dataId;
  const isStopped = answer.state === 'standby' || (answer.state === 'fenced' && answer.term === term);
  return !isAnother && !isStopped;
}

/** Another member of the synchronous set that could lead, unless this one is in it, too. */
function livingSyncMember(s: Situation): string | undefined {
  const { facts, sync } = s;
  if (sync.value.mode !== 'sync' || isInSet(s)) return undefined;
  return sync.value.names.find(({ instance, dataId }) => {
    const peer = facts.peers.get(instance);
    return (
      mayLead(facts.dcs.view.config?.value, instance) &&
      peer !== undefined &&
      isFresh(facts, peer) &&
      peer.answer.dataId === dataId &&
      peer.answer.state === 'standby'
    );
  })?.instance;
}

/** What may be lost, as far as it is known: how far the lost leader had come, and how far this standby has. */
function statedLoss({ me, postgres }: Facts, leader: LeaderValue): string {
  const o = postgres.observation;
  const mine = o === undefined ? 0n : position(o);
  const last = leader.lsn === undefined ? undefined : parseLsn(leader.lsn);
  const known =
    last === undefined
      ? 'how far it had come is not known'
      : `it had flushed ${formatLsn(last)} on timeline ${leader.timeline} at its last heartbeat`;
  return `commits of ${leader.instance} may be lost: ${known}, ${me.instance} holds ${formatLsn(mine)} on timeline ${o?.timeline ?? '?'}`;
}

/** Carries the verdict out as far as it is a refusal. Returns what to stand for. */
export function failoverAskedFor(
  draft: Draft,
  leader: Stamped<LeaderValue>,
  sync: Stamped<SyncValue>,
): Extract<Verdict, { verdict: 'stand' }> | undefined {
  const { facts, state } = draft;
  const { request } = facts.dcs.view;
  if (request?.value.kind !== 'failover' || request.value.to !== facts.me.instance) return undefined;
  if (state.asked?.revision !== request.revision)
    draft.set({ asked: { revision: request.revision, at: draft.now } });
  const refused = state.refusedRequest;
  const verdict: Verdict | undefined =
    refused?.revision === request.revision
      ? { verdict: 'refuse', because: refused.because }
      : judgeFailover({ facts, state, leader, sync }, draft.state.asked?.at ?? draft.now);
  if (verdict?.verdict === 'stand') return verdict;
  if (verdict?.verdict === 'wait')
    draft.problem('WaitingForTtl', `to take over as asked for: ${verdict.for}`);
  if (verdict?.verdict === 'refuse') {
    draft.commands.push({ kind: 'refuse-request', revision: request.revision, because: verdict.because });
    draft.set({
      refusedRequest: {
        revision: request.revision,
        because: verdict.because,
        term: leader.value.term,
        kind: 'failover',
      },
    });
  }
  return undefined;
}
