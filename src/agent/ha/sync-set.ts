import type { ConfigValue, MemberRef, SyncValue } from '../../dcs/index.ts';
import { placeholderName, replicationName } from '../../postgres/replication-names.ts';
import type { Observation } from './facts.ts';
import { includesMember } from './names.ts';

/** What the leader knows when it thinks about its synchronous set. */
export interface SyncSituation {
  readonly config: Pick<ConfigValue, 'synchronous' | 'durability'>;
  /** etcd's `sync`, known by a definite answer of this boot. */
  readonly stored: SyncValue;
  /** `synchronous_standby_names` as wanted so far, and whether Postgres has it, live and on disk. */
  readonly names: readonly string[];
  readonly namesApplied: boolean;
  /** Taken after the names were applied; undefined: none yet. */
  readonly observation: Observation | undefined;
  /** Everybody who could be a synchronous standby, best first. */
  readonly candidates: readonly Candidate[];
  readonly joining: Joining | undefined;
  readonly waitProved: boolean;
  /** Data ids of those for whom commits wait in vain: they look connected, but nothing answers. */
  readonly silent?: readonly string[];
  /** Data ids of those that are about to stream, though they do not yet: they are not replaced for having been later. */
  readonly awaited?: readonly string[];
}

/** A known instance, as ranked by `rankCandidates`. */
export interface Candidate extends MemberRef {
  /** On another node than the leader. */
  readonly apart: boolean;
  /** In another zone than the leader, as far as both are known. */
  readonly zoneApart?: boolean;
  /** A switchover goes to this one: it comes before everybody else. */
  readonly target?: boolean;
  /** It may not lead, so it is not made synchronous; in the set already, it stays until another one replaces it. */
  readonly noFailover?: boolean;
  /** It is to stream from a standby: others on as good a node are made synchronous first. */
  readonly cascades?: boolean;
  /** Who is preferred among equally well placed ones. */
  readonly priority?: number;
}

/** Who is this far behind has not caught up, bytes: commits would wait for as long as that takes to be sent. */
const caughtUpBytes = 16n * 1024n * 1024n;

export interface Joining {
  readonly names: readonly string[];
  readonly settledAt?: number;
  readonly target?: bigint;
}

export type SyncStep =
  | { readonly step: 'nothing'; readonly problem?: { readonly reason: string; readonly message: string } }
  /** Set `synchronous_standby_names`. */
  | {
      readonly step: 'names';
      readonly names: readonly string[];
      readonly joining?: Joining;
      readonly because: string;
    }
  /** Write etcd's `sync`. */
  | {
      readonly step: 'store';
      readonly mode: SyncValue['mode'];
      readonly members: readonly MemberRef[];
      readonly because: string;
    }
  /** See one own commit wait, before anybody may be counted on. */
  | { readonly step: 'prove-wait'; readonly because: string }
  /** Remember how far the addition has come. */
  | { readonly step: 'remember'; readonly joining: Joining };

/**
 * The next step towards the synchronous set that is asked for (rules R3 and R8): at every instant the names in etcd are
 * a subset of those that Postgres requires. A name leaves etcd first and Postgres afterwards; it enters Postgres first,
 * and etcd only when every walsender is known to have the new list and its flush has reached a position read after that.
 * Pure; one step per call, and every prefix of the steps is safe.
 */
export function planSyncSet(s: SyncSituation): SyncStep {
  const step = nextStep(s);
  return step.step === 'names' ? changeOver(s, step) : step;
}

/**
 * A change of names as it may be made now. Walsenders load a new list one by one, and each counts on its own: with the
 * number of names of the list that it has loaded, but with everybody who has a priority in the list that *they* have
 * loaded (`SyncRepGetCandidateStandbys` in Postgres's syncrep.c). So one with the old list may count a standby that is
 * only in the new one, in place of one that etcd names, and the other way round. Where that can happen, commits wait for
 * a moment: in between stands a list that nobody can satisfy, of the names that stay and placeholders.
 */
function changeOver(s: SyncSituation, step: Extract<SyncStep, { step: 'names' }>): SyncStep {
  const kept = step.names.filter((n) => n !== placeholderName && s.names.includes(n));
  if (s.stored.names.length === 0) return step; // Nobody is counted on.
  const settled = s.namesApplied && (s.observation === undefined || isSettled(s.observation, s.names));
  // Such a list goes only when every walsender has it: one with the list before it would be counted by the next list,
  // unless that counts one name alone.
  const ends = s.names.includes(placeholderName) && kept.length === step.names.length && kept.length > 1;
  if (isSafeChange(s.names, step.names) && (settled || !ends)) return step;
  if (!settled) return { step: 'nothing' };
  let length = Math.max(s.names.length, step.names.length) + 1;
  const between = () => [...Array<string>(length - kept.length).fill(placeholderName), ...kept];
  // Everybody gets another priority, so that it can be seen who has loaded it.
  while (kept.some((n) => between().indexOf(n) === s.names.indexOf(n))) length += 1;
  return {
    step: 'names',
    names: between(),
    because: `commits wait while the walsenders change over: ${step.because}`,
  };
}

/** Whether no mixture of walsenders with either list can release a commit that a name in both has not confirmed. */
function isSafeChange(from: readonly string[], to: readonly string[]): boolean {
  const real = (list: readonly string[]) => list.filter((n) => n !== placeholderName);
  const all = new Set([...real(from), ...real(to)]).size;
  const joins = real(to).some((n) => !from.includes(n));
  const leaves = real(from).some((n) => !to.includes(n));
  // Who counts one name counts itself; who counts as many as there are counts all of them.
  const alone = (list: readonly string[]) => list.length <= 1 || list.length >= all;
  return (!joins || alone(from)) && (!leaves || alone(to));
}

function nextStep(s: SyncSituation): SyncStep {
  const storedNames = s.stored.names.map((m) => replicationName(m.dataId));
  const missing = storedNames.filter((n) => !s.names.includes(n));
  if (missing.length > 0)
    return {
      step: 'names',
      names: [...s.names.filter((n) => n !== placeholderName || !s.waitProved), ...missing],
      because: 'every name in etcd is required by Postgres',
    };

  if (s.config.synchronous === 0) {
    if (s.stored.mode !== 'async' || s.stored.names.length > 0)
      return { step: 'store', mode: 'async', members: [], because: 'no synchronous standby is asked for' };
    return s.names.length === 0
      ? { step: 'nothing' }
      : { step: 'names', names: [], because: 'no synchronous standby is asked for' };
  }
  if (s.stored.mode === 'async')
    return {
      step: 'store',
      mode: 'sync',
      members: [],
      because: 'from now on only the synchronous set may be promoted',
    };

  const streaming = new Map(
    (s.observation?.walsenders ?? [])
      .filter((w) => w.state === 'streaming')
      .map((w) => [w.applicationName, w]),
  );
  const alive = (m: MemberRef) => streaming.has(replicationName(m.dataId)) && !s.silent?.includes(m.dataId);
  const isAwaited = (m: MemberRef) =>
    s.names.includes(replicationName(m.dataId)) && s.awaited?.includes(m.dataId) === true;
  const wanted = chooseSet(
    s,
    s.candidates.filter((m) => alive(m) || isAwaited(m)),
  );
  const joiners = wanted.filter((m) => !includesMember(s.stored.names, m));
  const lost = s.stored.names.filter((m) => !alive(m));
  const problem = shortage(s, wanted.length, lost);

  // Only the placeholder makes the proof certain: no standby can confirm the proving commit before it is seen to wait.
  if (!s.waitProved && (joiners.length > 0 || storedNames.length > 0)) {
    const because = 'commits must be seen to wait before anybody is counted on';
    if (!s.names.includes(placeholderName))
      return { step: 'names', names: [placeholderName, ...s.names], because };
    return s.namesApplied ? { step: 'prove-wait', because } : { step: 'nothing', ...problem };
  }

  if (joiners.length > 0 && s.observation !== undefined) {
    const joinerNames = joiners.map((m) => replicationName(m.dataId));
    const added = s.names.filter((n) => n !== placeholderName && !storedNames.includes(n));
    // A walsender shows only a priority. That it has loaded the new list is certain if all showed the one before, and
    // everybody has another priority in the new one: so additions go one after the other, each before everything else.
    if (added.some((n) => !joinerNames.includes(n)))
      return {
        step: 'names',
        names: storedNames.length > 0 ? s.names.filter((n) => storedNames.includes(n)) : [placeholderName],
        because: 'an addition was given up',
      };
    if (added.length === 0) {
      const names = [...joinerNames, ...s.names.filter((n) => n !== placeholderName)];
      return s.namesApplied && isSettled(s.observation, s.names)
        ? {
            step: 'names',
            names,
            joining: { names },
            because: `${joiners.map((m) => m.instance).join(', ')} becomes synchronous`,
          }
        : { step: 'nothing', ...problem };
    }
    if (!s.namesApplied) return { step: 'nothing', ...problem };
    const members = wanted.filter((m) => s.names.includes(replicationName(m.dataId)));
    return confirm(s, s.names, added, members) ?? { step: 'nothing', ...problem };
  }

  // Nobody to add: drop whom etcd names in vain.
  const keep =
    s.config.durability === 'required' && wanted.length < s.config.synchronous
      ? // Who is awaited is wanted although it does not stream yet.
        [...wanted, ...lost.filter((m) => !includesMember(wanted, m))].slice(0, s.config.synchronous)
      : wanted;
  if (s.observation !== undefined && s.stored.names.some((m) => !includesMember(keep, m)))
    return {
      step: 'store',
      mode: 'sync',
      members: keep,
      because:
        lost.length > 0
          ? `${lost.map((m) => m.instance).join(', ')} does not stream any more`
          : 'fewer synchronous standbys are asked for',
    };
  // Nobody confirms, so commits wait in any case: names that were added ahead of their walsenders may stay.
  if (s.config.durability === 'required' && lost.length > 0 && lost.length === s.stored.names.length)
    return { step: 'nothing', ...problem };
  const rest =
    storedNames.length > 0 ? storedNames : s.config.durability === 'required' ? [placeholderName] : [];
  if (s.observation !== undefined && !sameSet(s.names, rest))
    return { step: 'names', names: rest, because: 'only names in etcd need to confirm' };
  return { step: 'nothing', ...problem };
}

/**
 * Walsenders reload one by one; each shows the priority of the setting that it uses. One that catches up releases nobody
 * yet, but will as soon as it streams.
 */
function isSettled(o: Observation, names: readonly string[]): boolean {
  return o.walsenders.every(
    (w) =>
      w.syncPriority === names.indexOf(w.applicationName) + 1 ||
      w.state === 'startup' ||
      w.state === 'backup',
  );
}

/** Steps of an addition after Postgres has the names: settled, then a target, then etcd. */
function confirm(
  s: SyncSituation,
  names: readonly string[],
  joiners: readonly string[],
  wanted: readonly MemberRef[],
): SyncStep | undefined {
  const o = s.observation;
  if (o === undefined) return undefined;
  const joining = s.joining !== undefined && sameList(s.joining.names, names) ? s.joining : { names };
  // One that connects may still be given the old list: then nothing that was seen before counts.
  if (!isSettled(o, names))
    return joining.settledAt === undefined ? undefined : { step: 'remember', joining: { names } };
  if (joining.settledAt === undefined) return { step: 'remember', joining: { names, settledAt: o.at } };
  if (joining.target === undefined)
    return o.at > joining.settledAt && o.flushLsn !== undefined
      ? { step: 'remember', joining: { names, settledAt: joining.settledAt, target: o.flushLsn } }
      : undefined;
  const target = joining.target;
  const reached = joiners.every((n) =>
    o.walsenders.some(
      (w) => w.applicationName === n && w.state === 'streaming' && (w.flushLsn ?? 0n) >= target,
    ),
  );
  return reached
    ? {
        step: 'store',
        mode: 'sync',
        members: wanted,
        because: 'the new synchronous standby holds everything acknowledged',
      }
    : undefined;
}

/**
 * The members that should be synchronous: up to `count` of the living candidates, best first; one that is in the set
 * already stays unless a better one has caught up: one that may lead, on another node than the leader's, in another zone,
 * or of a higher priority, in this order. Commits wait for whoever joins, so one that is far behind is no better.
 */
function chooseSet(s: SyncSituation, living: readonly Candidate[]): MemberRef[] {
  const stored = (c: Candidate) => includesMember(s.stored.names, c);
  const isAdded = (c: Candidate) => s.names.includes(replicationName(c.dataId));
  const level = (c: Candidate) => stored(c) || hasCaughtUp(s.observation, c);
  const ranked = living
    .filter((c) => c.noFailover !== true || stored(c))
    .toSorted(
      (a, b) =>
        Number(b.target ?? false) - Number(a.target ?? false) ||
        Number(a.noFailover ?? false) - Number(b.noFailover ?? false) ||
        Number(level(b)) - Number(level(a)) ||
        Number(b.apart) - Number(a.apart) ||
        Number(a.cascades ?? false) - Number(b.cascades ?? false) ||
        Number(b.zoneApart ?? false) - Number(a.zoneApart ?? false) ||
        (b.priority ?? 0) - (a.priority ?? 0) ||
        Number(stored(b)) - Number(stored(a)) ||
        // An addition under way is not given up for somebody who is as good: each costs a reload and two looks.
        Number(isAdded(b)) - Number(isAdded(a)),
    );
  return ranked.slice(0, s.config.synchronous).map(({ instance, dataId }) => ({ instance, dataId }));
}

function hasCaughtUp(o: Observation | undefined, candidate: MemberRef): boolean {
  const walsender = o?.walsenders.find((w) => w.applicationName === replicationName(candidate.dataId));
  return (o?.flushLsn ?? 0n) - (walsender?.flushLsn ?? 0n) <= caughtUpBytes;
}

function shortage(
  s: SyncSituation,
  have: number,
  lost: readonly MemberRef[],
): { problem?: { reason: string; message: string } } {
  if (have >= s.config.synchronous) {
    const apart = s.candidates.filter((c) => includesMember(s.stored.names, c));
    return apart.length > 0 && apart.every((c) => !c.apart)
      ? {
          problem: {
            reason: 'SyncOnSameNode',
            message: "the synchronous standbys run on the primary's node: one node failure can stop writes",
          },
        }
      : {};
  }
  const barred = s.candidates.filter((c) => c.noFailover === true && !includesMember(s.stored.names, c));
  const besides = barred.length === 0 ? '' : ` but ${barred.map((c) => c.instance).join(', ')} (noFailover)`;
  const missing =
    lost.length > 0
      ? `${lost.map((m) => m.instance).join(', ')} does not stream`
      : `no other standby streams${besides}`;
  return {
    problem: {
      reason: 'WaitingForStandby',
      message:
        s.config.durability === 'required'
          ? `${have} of ${s.config.synchronous} synchronous standbys: ${missing}; commits wait until one does`
          : `${have} of ${s.config.synchronous} synchronous standbys: ${missing}; commits are not waiting (durability: preferred)`,
    },
  };
}

function sameList(a: readonly string[], b: readonly string[]): boolean {
  return a.length === b.length && a.every((x, i) => x === b[i]);
}

function sameSet(a: readonly string[], b: readonly string[]): boolean {
  return sameList(a.toSorted(), b.toSorted());
}
