import { leaderGraceMs, type MemberRef } from '../../dcs/index.ts';
import { Draft } from './draft.ts';
import type { Facts, HaState, PromiseAnswer, PromiseFacts, PromiseRequest, Reign, Written } from './facts.ts';
import { cannotLead } from './leader.ts';
import { includesMember, noDataId, sameMember } from './names.ts';
import { olderThanKnown } from './restored-state.ts';

/** A leader asks for promises when no heartbeat has succeeded for this many intervals. */
const overdueBeats = 1.5;

/**
 * Rule R11, at the leader: while etcd gives no good answer, and everybody who may stand has promised not to, the
 * deadline moves on. It counts from before the oldest of those questions was sent; once it is over it stays so.
 */
export function extendByPromises(draft: Draft): void {
  const { facts, state } = draft;
  const { reign } = state;
  if (reign === undefined || !needsPromises(state, facts)) return;
  const asked = whoMustPromise(reign.written, facts.me.instance).map((member) => ({
    instance: member.instance,
    answer: facts.promises.get(member.instance)?.answer,
    until: promisedUntil(facts.promises.get(member.instance), member, reign, facts),
  }));
  const alone = draft.now + graceOf(reign, reign.written.ttlMs);
  const until = asked.reduce((least, a) => Math.min(least, a.until ?? 0), alone);
  if (draft.now < reign.deadline && until > reign.deadline) draft.setReign({ deadline: until });
  const promised = asked.filter((a) => (a.until ?? 0) > draft.now);
  draft.set({
    failsafe: {
      since: state.failsafe?.since ?? reign.goodAt,
      promised: promised.map((a) => a.instance),
      missing: asked
        .filter((a) => !promised.includes(a))
        .map(({ instance, answer }) => ({ instance, because: refusal(answer) })),
    },
  });
}

/** The questions that are to be asked now, again and again, for as long as there are any. */
export function promisesToAsk(state: HaState, facts: Facts): PromiseRequest[] {
  const { reign } = state;
  const { clusterId, instance, bootId } = facts.me;
  if (reign === undefined || facts.volume.state !== 'ready' || !needsPromises(state, facts)) return [];
  const leader = { instance, dataId: facts.volume.dataId };
  const { term, written } = reign;
  return whoMustPromise(written, instance).map((to) => ({
    ...{ clusterId, leader, bootId, term, to },
    ttlMs: written.ttlMs,
  }));
}

/**
 * Who could take the leader's place by what this boot has written, or may have: each of them, not a majority. With a
 * synchronous set nobody but its members stands (R9); otherwise those on the leader's list do, and no new member (CE7).
 */
export function whoMustPromise(written: Written, me: string): MemberRef[] {
  const others = written.async ? written.members.filter((m) => !includesMember(written.names, m)) : [];
  // Who has no data cannot stand with them, and with new data it is somebody else.
  return [...written.names, ...others].filter((m) => m.instance !== me && m.dataId !== noDataId);
}

/**
 * Rule R11, at everybody else: promises the leader not to stand for its ttl because of its silence, counted on this
 * agent's clock from now on. That is a heartbeat which came another way, and counts as one (`eligibility`): with a
 * synchronous set and fast fencing, where nothing rests on clocks, who promised may go on to suspect the leader. A
 * promise need not outlive the agent: one that starts anew waits for a ttl in any case (R10).
 */
export function givePromise(
  state: HaState,
  facts: Facts,
  asked: PromiseRequest,
): { readonly state: HaState; readonly answer: PromiseAnswer } {
  const { instance } = facts.me;
  const { bootId, term, ttlMs } = asked;
  const dataId = facts.volume.state === 'ready' ? facts.volume.dataId : noDataId;
  const answer = { by: { instance, dataId }, clusterId: facts.me.clusterId, bootId, term, ttlMs };
  const because = whyNot(state, facts, asked);
  if (because !== undefined) return { state, answer: { ...answer, promised: false, because } };
  const promise = { to: asked.leader, term, at: facts.now, ttlMs };
  return { state: { ...state, promise }, answer: { ...answer, promised: true } };
}

/** Whether a promise has not yet run out, whatever etcd says. */
export function hasPromised({ promise }: HaState, now: number): boolean {
  return promise !== undefined && now < promise.at + promise.ttlMs;
}

/**
 * What a person should know of a leader that goes, or went, without etcd; `since`: when its last good heartbeat was sent,
 * as people write it. The text stays the same while nothing changes.
 */
export function failsafeProblem(
  { failsafe, reign }: HaState,
  { postgres }: Facts,
  since: string,
): { readonly reason: string; readonly message: string } | undefined {
  if (failsafe === undefined) return undefined;
  const silence = `etcd has accepted nothing from this primary since ${since}`;
  const missing = failsafe.missing.map((m) => `${m.instance} has not promised (${m.because})`).join(', ');
  if (reign === undefined || postgres.process === 'none')
    return {
      reason: 'WaitingForEtcd',
      message: `${silence}; Postgres is down${missing === '' ? '' : `, because ${missing}`}, and starts when etcd answers`,
    };
  if (missing === '')
    return {
      reason: 'Failsafe',
      message: `${silence}; it serves on, as all who could take its place have promised not to: ${failsafe.promised.join(', ') || 'there is nobody'}`,
    };
  return {
    reason: 'FailsafeRefused',
    message: `${silence}; all who could take its place must promise not to, and ${missing}: it stops if that does not change within seconds`,
  };
}

/** A running primary whose heartbeat is overdue although it is able to lead. */
function needsPromises(state: HaState, facts: Facts): boolean {
  const { reign, operation } = state;
  const { process, observation } = facts.postgres;
  return (
    reign?.stage === 'leading' &&
    facts.now - reign.goodAt > overdueBeats * reign.timing.heartbeatMs &&
    process === 'running' &&
    observation?.inRecovery === false &&
    operation?.operation.do !== 'fence' &&
    !facts.stopRequested &&
    !cannotLead(new Draft(state, facts))
  );
}

/** Until when, on the leader's clock, the leader may rely on this answer; undefined: not at all. */
function promisedUntil(
  given: PromiseFacts | undefined,
  member: MemberRef,
  reign: Reign,
  { me }: Facts,
): number | undefined {
  if (given === undefined || !given.answer.promised) return undefined;
  const { by, clusterId, bootId, term, ttlMs } = given.answer;
  const isMeant =
    sameMember(by, member) && clusterId === me.clusterId && bootId === me.bootId && term === reign.term;
  return isMeant ? given.at + graceOf(reign, Math.min(ttlMs, reign.written.ttlMs)) : undefined;
}

function graceOf(reign: Reign, ttlMs: number): number {
  return leaderGraceMs({ ...reign.timing, ttlMs });
}

function refusal(answer: PromiseFacts['answer'] | undefined): string {
  if (answer === undefined) return 'it has not been asked yet';
  return answer.promised ? 'its promise has run out' : (answer.because ?? 'it gave no reason');
}

function whyNot(state: HaState, facts: Facts, asked: PromiseRequest): string | undefined {
  const { me, volume, dcs } = facts;
  const { leader } = dcs.view;
  if (asked.clusterId !== me.clusterId) return `it belongs to the cluster ${me.clusterId}`;
  if (asked.to.instance !== me.instance) return `it is ${me.instance}`;
  if (volume.state !== 'ready' || volume.dataId !== asked.to.dataId) return 'it has other data now';
  if (state.reign !== undefined) return `it leads term ${state.reign.term}`;
  if (state.takeover !== undefined || state.transaction !== undefined) return 'it is taking over';
  if (leader === undefined)
    return dcs.readAt === undefined ? 'it has not read etcd since it started' : 'etcd knows of no leader';
  if (olderThanKnown(state, facts, leader) !== undefined) return 'the state in etcd is older than its data';
  const { instance, bootId, term, phase } = leader.value;
  if (!sameMember(asked.leader, leader.value) || asked.bootId !== bootId || asked.term !== term)
    return `it follows ${instance} in term ${term}`;
  return phase === 'vacated' ? `${instance} handed over` : undefined;
}
