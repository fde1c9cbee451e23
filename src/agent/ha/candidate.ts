import type { ConfigValue, LeaderValue, Stamped, SyncValue } from '../../dcs/index.ts';
import { parseLsn } from '../../postgres/lsn.ts';
import type { Facts, HaState, LeaderWrite, PeerFacts } from './facts.ts';
import { includesMember } from './names.ts';
import { mayLead, priorityOf } from './options.ts';
import { isSuccessor, pausedUntil } from './pause.ts';

/** A leader whose agent has proved nothing for this long is suspect, ms (with `heartbeatSilenceMs`, in parallel). */
export const probeSilenceMs = 1_000;
/** ... and whose heartbeat has not changed for this long, ms. */
export const heartbeatSilenceMs = 1_250;
/**
 * Who may not stand stops receiving from a leader whose agent has proved nothing for this long, ms: half a second, two
 * unanswered questions, before a member of `sync` may stand ...
 */
const standBackProbeMs = 500;
/** ... and whose heartbeat has not changed for this long, ms: longer than one interval and a tick, and before others stand. */
const standBackHeartbeatMs = 1_150;
/** A leader is gone when it was refused to connect to its agent so often, for so long, ms. */
const refusedTimes = 3;
const refusedForMs = 150;
/** How long others leave the way to the successor that a vacating leader named, ms. */
export const successorHeadStartMs = 1_500;
/** How long a member of `sync` leaves the way to each living member that is named before it, ms. */
export const headStartMs = 300;
/**
 * How long an asynchronous takeover waits, beyond the ttl, for standbys that still find out by replaying how much they
 * hold, ms: then they count with what they have replayed.
 */
export const replayPatienceMs = 60_000;
/** How old a look at Postgres or a peer's answer may be to count, ms. */
export const freshMs = 1_500;

/** Why this instance may take the leadership now, or why not. */
export type Eligibility =
  | {
      readonly stand: true;
      readonly why: string;
      /** Since when the place has been open. */
      readonly since: number;
    }
  | { readonly stand: false; readonly waitingFor: string };

export interface Situation {
  readonly facts: Facts;
  readonly state: HaState;
  readonly leader: Stamped<LeaderValue>;
  readonly sync: Stamped<SyncValue>;
}

/**
 * Whether a standby may stand for election: sections "Sync takeover" and "Async takeover" (rules R9 and R10). Suspicion
 * costs only time: that it is safe rests on the comparison of the leader's and the synchronous set's revisions and on
 * the receiver being stopped, never on a clock. Async and strict takeovers rest on `ttl`, which the old leader has
 * outwaited by then.
 */
export function eligibility(s: Situation): Eligibility {
  const { facts, leader, sync } = s;
  const config = facts.dcs.view.config?.value;
  const refusal = unfit(facts);
  if (refusal !== undefined) return { stand: false, waitingFor: refusal };
  if (config === undefined || facts.volume.state !== 'ready')
    return { stand: false, waitingFor: 'the configuration' };
  if (!mayLead(config, facts.me.instance))
    return { stand: false, waitingFor: 'this instance may not become the primary (noFailover)' };
  const paused = pausedUntil(facts, s.state);
  if (paused !== undefined && !isSuccessor(leader.value, facts.me.instance))
    return { stand: false, waitingFor: `automatic failover is paused until ${paused}` };
  const me = { instance: facts.me.instance, dataId: facts.volume.dataId };
  const synchronous = sync.value.mode === 'sync';
  const ttlMs = ttlOf(config, leader.value);

  if (synchronous && !includesMember(sync.value.names, me))
    return {
      stand: false,
      waitingFor: 'only members of the synchronous set may be promoted, and this is none',
    };
  if (!synchronous && !includesMember(leader.value.members, me))
    return { stand: false, waitingFor: 'the leader has not yet listed this instance' };
  if (!synchronous) {
    const ahead = aheadOfMe(facts, leader.value);
    if (ahead !== undefined) return { stand: false, waitingFor: `${ahead} holds more` };
    const lag = tooFarBehind(facts, leader.value, config.maximumLagBytes);
    if (lag !== undefined) return { stand: false, waitingFor: lag };
    const replaying = mayBeAhead(s, ttlMs);
    if (replaying !== undefined)
      return { stand: false, waitingFor: `${replaying} still replays: it may hold more` };
  }

  const fast = synchronous && config.fencing === 'fast';
  const reason = openReason(s, ttlMs, fast);
  if (reason === undefined) return { stand: false, waitingFor: 'the leader leads' };
  if (facts.now < reason.since + headStart(s, me.instance))
    return { stand: false, waitingFor: 'another member goes first' };
  return { stand: true, ...reason };
}

/** The ttl to outwait, ms: a leader that has not yet heard of a shorter one goes on by its own. */
export function ttlOf(config: Pick<ConfigValue, 'timing'> | undefined, leader: LeaderValue): number {
  return Math.max(config?.timing.ttlMs ?? 0, leader.ttlMs ?? 0);
}

/** Since when, and why, the leader's place is open; undefined: it is not. */
export function openReason(
  s: Situation,
  ttlMs: number,
  fast: boolean,
): { since: number; why: string } | undefined {
  const { facts, state, leader } = s;
  const seenAt = state.leaderSeen?.at ?? state.bootedAt;
  if (leader.value.phase === 'vacated')
    return {
      since: seenAt,
      why: `${leader.value.instance} handed over: ${leader.value.reason ?? 'no reason given'}`,
    };
  const peer = leaderAnswer(facts, leader.value);
  if (fast && peer?.answer.state === 'fenced' && peer.answer.term === leader.value.term)
    return { since: seenAt, why: `${leader.value.instance} says that it has fenced itself` };
  const silentFrom = silentForTtl(state, ttlMs);
  if (facts.now >= silentFrom)
    return { since: silentFrom, why: `no heartbeat of ${leader.value.instance} for ${ttlMs} ms` };
  if (!fast) return undefined;
  const goneAt = gone(facts, leader.value);
  if (goneAt !== undefined && facts.now >= goneAt)
    return { since: goneAt, why: `nobody listens at the address of ${leader.value.instance} any more` };
  const suspectAt = suspicion(state);
  return facts.now >= suspectAt
    ? { since: suspectAt, why: `${leader.value.instance} neither answers nor sends heartbeats` }
    : undefined;
}

/**
 * Whether this standby stops receiving from a leader that is about to be taken from. Its Postgres may go on although its
 * agent is silent: what a standby then receives after the candidate has stopped is not in the history of the next term,
 * and it would have to be rewound before it can confirm commits. So everybody stops no later than who stands, which costs
 * a new connection if the suspicion was wrong. Only while the leader may yet write, and only where others need not wait
 * for its ttl: in an asynchronous cluster what is not received is lost.
 */
export function standsBack(facts: Facts, state: HaState): boolean {
  const { leader, sync, config } = facts.dcs.view;
  if (leader === undefined || sync?.value.mode !== 'sync' || config?.value.fencing !== 'fast') return false;
  if (pausedUntil(facts, state) !== undefined) return false;
  // One that has not yet been promoted sends nothing that could be in no history.
  if (state.provedTerm !== leader.value.term || facts.volume.state !== 'ready') return false;
  const mayStand = includesMember(sync.value.names, {
    instance: facts.me.instance,
    dataId: facts.volume.dataId,
  });
  const suspectAt = mayStand
    ? suspicion(state)
    : Math.max(state.proofAt + standBackProbeMs, silentSince(state) + standBackHeartbeatMs);
  const ttlMs = Math.max(config.value.timing.ttlMs, leader.value.ttlMs ?? 0);
  return facts.now >= suspectAt && facts.now < silentForTtl(state, ttlMs);
}

/** When a leader from which nothing has been heard is suspect. */
function suspicion(state: HaState): number {
  return Math.max(state.proofAt + probeSilenceMs, silentSince(state) + heartbeatSilenceMs);
}

/** Since when nothing was heard of the leader through etcd; a promise counts as a heartbeat that was seen then (R11). */
function silentSince(state: HaState): number {
  return Math.max(state.leaderSeen?.at ?? 0, state.bootedAt, state.promise?.at ?? 0);
}

/** When that has lasted for a ttl: this observer's, or the one that it has promised to wait for. */
function silentForTtl(state: HaState, ttlMs: number): number {
  const { promise } = state;
  return Math.max(silentSince(state) + ttlMs, promise === undefined ? 0 : promise.at + promise.ttlMs);
}

/**
 * When a leader is suspect whose machine says that nobody listens: its agent has ended, which ends its Postgres, too (see
 * koschei-init), and this standby has seen since that no WAL comes any more. Silence proves less and takes longer.
 */
function gone(facts: Facts, leader: LeaderValue): number | undefined {
  const peer = facts.peers.get(leader.instance);
  const o = facts.postgres.observation;
  if (peer?.refused === undefined || peer.answer.dataId !== leader.dataId || o === undefined)
    return undefined;
  const { since, times } = peer.refused;
  if (times < refusedTimes || o.at < since || o.receiver?.status === 'streaming') return undefined;
  return since + refusedForMs;
}

/** How long to leave the way to somebody else, ms. */
function headStart(s: Situation, instance: string): number {
  const { successor, phase } = s.leader.value;
  if (phase === 'vacated' && successor !== undefined)
    return successor === instance ? 0 : successorHeadStartMs;
  const config = s.facts.dcs.view.config?.value;
  const { names } = s.sync.value;
  const mine = names.findIndex((m) => m.instance === instance);
  // They are equally safe to promote: each holds every acknowledged commit.
  const before = names.filter((m, at) => {
    const more = priorityOf(config, m.instance) - priorityOf(config, instance);
    return mine >= 0 && at !== mine && (more > 0 || (more === 0 && at < mine)) && mayLead(config, m.instance);
  });
  const living = before.filter(
    (m) => isFresh(s.facts, s.facts.peers.get(m.instance)) && m.instance !== s.leader.value.instance,
  );
  return living.length * headStartMs;
}

/** Why this instance is in no state to stand at all. */
export function unfit(facts: Facts): string | undefined {
  const { volume, postgres, dcs, me } = facts;
  if (facts.stopRequested) return 'it is being stopped';
  if (volume.state !== 'ready') return 'its data directory is not usable';
  if (dcs.view.initialize?.value.systemIdentifier !== volume.systemIdentifier)
    return 'its data belong to another cluster';
  if (dcs.view.config !== undefined && !dcs.view.config.value.members.includes(me.instance))
    return 'it is not a member any more';
  const o = postgres.observation;
  if (postgres.process !== 'running' || o === undefined || facts.now - o.at > freshMs)
    return 'its Postgres does not answer';
  if (!o.inRecovery) return 'its Postgres is not a standby';
  return undefined;
}

/**
 * A reachable listed member that holds more than this one, or as much and goes first (async takeover only). What only
 * an instance holds that never leads is lost with the leader.
 */
function aheadOfMe(facts: Facts, leader: LeaderValue): string | undefined {
  const mine = facts.postgres.observation;
  const config = facts.dcs.view.config?.value;
  for (const member of leader.members) {
    if (member.instance === leader.instance || member.instance === facts.me.instance) continue;
    if (!mayLead(config, member.instance)) continue;
    const peer = facts.peers.get(member.instance);
    if (peer === undefined || !isFresh(facts, peer) || peer.answer.dataId !== member.dataId) continue;
    if (peer.answer.state !== 'standby') continue;
    const [theirTimeline, myTimeline] = [peer.answer.timeline ?? 0, mine?.timeline ?? 0];
    const [theirs, ours] = [position(peer.answer), mine === undefined ? 0n : position(mine)];
    const more = theirTimeline > myTimeline || (theirTimeline === myTimeline && theirs > ours);
    const preferred =
      priorityOf(config, member.instance) - priorityOf(config, facts.me.instance) ||
      Number(member.instance < facts.me.instance);
    const first = theirTimeline === myTimeline && theirs === ours && preferred > 0;
    if (more || (first && facts.now - (peer.at ?? 0) < 500)) return member.instance;
  }
  return undefined;
}

/**
 * Why this instance lacks more than an asynchronous takeover may lose, or undefined. What was written after the leader's
 * last heartbeat is not known to anybody, and comes on top of the bound. A leader that handed over has seen its successor
 * hold everything; one that never said how far it is has let no clients in.
 */
function tooFarBehind(facts: Facts, leader: LeaderValue, bound: number | undefined): string | undefined {
  const { observation: o } = facts.postgres;
  if (bound === undefined || leader.lsn === undefined || o === undefined) return undefined;
  if (leader.phase === 'vacated' && leader.successor === facts.me.instance) return undefined;
  if (o.timeline !== leader.timeline)
    return `it is on timeline ${o.timeline} and ${leader.instance} was on ${leader.timeline}: how much it lacks is not known`;
  const lacks = parseLsn(leader.lsn) - position(o);
  return lacks > BigInt(bound)
    ? `it lacks ${lacks} bytes that ${leader.instance} had, and may lack ${bound} (failover.maximumLag)`
    : undefined;
}

/**
 * A reachable listed member that was started anew and has not yet replayed all that is on its disk: only then do its
 * timeline and position say what it holds. Undefined: none, or it has been waited for long enough.
 */
function mayBeAhead({ facts, state, leader }: Situation, ttlMs: number): string | undefined {
  // A leader that handed over has seen its successor hold everything.
  if (leader.value.phase === 'vacated' && leader.value.successor === facts.me.instance) return undefined;
  if (facts.now - silentForTtl(state, ttlMs) >= replayPatienceMs) return undefined;
  return leader.value.members.find(({ instance, dataId }) => {
    if (instance === leader.value.instance || instance === facts.me.instance) return false;
    if (!mayLead(facts.dcs.view.config?.value, instance)) return false;
    const peer = facts.peers.get(instance);
    return (
      peer !== undefined &&
      isFresh(facts, peer) &&
      peer.answer.dataId === dataId &&
      peer.answer.state === 'standby' &&
      peer.answer.replaysLocalWal === true
    );
  })?.instance;
}

export function position(p: {
  readonly receivedLsn?: bigint | undefined;
  readonly replayedLsn?: bigint | undefined;
}): bigint {
  const [received, replayed] = [p.receivedLsn ?? 0n, p.replayedLsn ?? 0n];
  return received > replayed ? received : replayed;
}

/** The leader's own, fresh answer; undefined when there is none or when somebody else answers at its address. */
export function leaderAnswer(facts: Facts, leader: LeaderValue): PeerFacts | undefined {
  const peer = facts.peers.get(leader.instance);
  return peer !== undefined && isFresh(facts, peer) && peer.answer.dataId === leader.dataId
    ? peer
    : undefined;
}

/** Whether an answer proves that its giver leads now: the only kind that is a veto. */
export function provesLeadership(peer: PeerFacts, leader: LeaderValue): boolean {
  const { answer } = peer;
  return (
    answer.state === 'primary' &&
    answer.term === leader.term &&
    answer.dataId === leader.dataId &&
    answer.bootId === leader.bootId &&
    answer.openMs > 0
  );
}

export function isFresh(facts: Facts, peer: PeerFacts | undefined): boolean {
  return peer !== undefined && facts.now - peer.at <= freshMs;
}

/**
 * The transaction that takes the leadership: the next term, a timeline greater than any ever stored (rule R6), and the
 * synchronous set `(old set + old leader) - me` (rule R4): the old primary holds every acknowledged commit.
 */
export function takeWrite(s: Situation): LeaderWrite {
  const { facts, leader, sync } = s;
  if (facts.volume.state !== 'ready')
    throw new Error('only an instance with a usable data directory takes the leadership');
  const me = { instance: facts.me.instance, dataId: facts.volume.dataId };
  const term = leader.value.term + 1;
  const oldLeader = { instance: leader.value.instance, dataId: leader.value.dataId };
  const names =
    sync.value.mode === 'sync'
      ? [...sync.value.names, ...(includesMember(sync.value.names, oldLeader) ? [] : [oldLeader])].filter(
          (m) => m.dataId !== me.dataId,
        )
      : [];
  return {
    kind: 'take',
    leader: {
      ...me,
      bootId: facts.me.bootId,
      term,
      timeline: Math.max(leader.value.timeline, facts.postgres.observation?.timeline ?? 0) + 1,
      phase: 'leading',
      beat: 0,
      address: facts.me.address,
      members: leader.value.members,
    },
    expectLeader: leader.revision,
    expectSync: sync.revision,
    sync: { term, mode: sync.value.mode, names },
  };
}
