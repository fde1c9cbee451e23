import { parseDuration } from '../../api/duration.ts';
import { walClaimName } from '../../api/names.ts';
import type { Observed } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import type { Fleet } from './fleet.ts';
import type { Member } from './members.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/**
 * Replacing an instance whose node is lost together with its volume: another instance, with a name, a volume and data of
 * its own, is added first; only when it works, and nothing depends on the lost one any more, does that one go. Its volume
 * stays, marked as detached. Until then the lost one is a member like any other, and when its node comes back, it simply
 * goes on.
 */
export type ReplacementStep =
  | { readonly do: 'nothing' }
  /** Mark it: one more instance is made. */
  | { readonly do: 'begin'; readonly member: Member; readonly because: string }
  /** The other instance is on its way, or something keeps the lost one from being removed. */
  | { readonly do: 'wait'; readonly member: Member; readonly for: string }
  /** Take the mark back. */
  | { readonly do: 'cancel'; readonly member: Member; readonly because: string }
  /** It may be removed. */
  | { readonly do: 'remove'; readonly member: Member; readonly because: string };

export interface Replacement {
  readonly step: ReplacementStep;
  /** The instance that is marked as being replaced: it does not count among those that the spec asks for. */
  readonly replaced: Member | undefined;
  /** What people are told: when it begins, or why it does not. */
  readonly notice: string | undefined;
  /** Look again after this long, ms. */
  readonly againInMs: number | undefined;
}

export interface ReplacementInput {
  readonly snapshot: ClusterSnapshot;
  readonly members: readonly Member[];
  /** How many instances the spec asks for. */
  readonly count: number;
  /** `spec.failover.replaceLostInstanceAfter`. */
  readonly after: string;
  /** A leader that was silent for so long is not believed to lead, ms. */
  readonly leaderPatienceMs: number;
  /** Automatic failover is paused: whoever works on machines just then does not want their instances elsewhere. */
  readonly paused: boolean;
}

/** How often it is looked at what holds a replacement up, ms: no event tells of nodes and their volumes. */
const lookEveryMs = 10_000;

/** Whether an instance is marked as being replaced. */
export const isReplaced = ({ instance }: Pick<Member, 'instance'>): boolean =>
  instance.metadata.annotations?.[operatorAnnotation.replacedSince] !== undefined;

/** Since when the node of an instance has been away, ms since the epoch; undefined: it is not. */
export function awaySince({ instance, ready }: Pick<Member, 'instance' | 'ready'>): number | undefined {
  const since = instance.status?.waitingForNodeSince;
  return ready || since === undefined ? undefined : Date.parse(since);
}

/** The instances about whose nodes and volumes something has to be known. */
export function needsFleet(members: readonly Member[], after: string, now: Date): readonly Member[] {
  const afterMs = parseDuration(after) ?? 0;
  return members.filter((member) => {
    const since = awaySince(member);
    return isReplaced(member) || (afterMs > 0 && since !== undefined && now.getTime() - since >= afterMs);
  });
}

/** Decides about the next step of replacing a lost instance: one at a time, and never one that may be needed. Pure. */
export function planReplacement(input: ReplacementInput): Replacement {
  const { members, after, snapshot } = input;
  const afterMs = parseDuration(after) ?? 0;
  const replaced = members.find(isReplaced);
  if (replaced !== undefined) return continued(input, replaced, afterMs);
  const now = snapshot.now.getTime();
  const away = members.flatMap((member) => {
    const since = awaySince(member);
    return afterMs === 0 || since === undefined ? [] : [{ member, dueAt: since + afterMs }];
  });
  const due = away.filter(({ dueAt }) => dueAt <= now).map(({ member }) => member);
  if (due.length === 0) {
    const [next] = away.sort((a, b) => a.dueAt - b.dueAt);
    if (next === undefined) return nothing;
    const at = new Date(next.dueAt).toISOString().replace(/\.\d+Z$/, 'Z');
    return {
      ...nothing,
      notice: `${next.member.name} is replaced on another node if its own is not back at ${at} (spec.failover.replaceLostInstanceAfter)`,
      againInMs: Math.min(next.dueAt - now, lookEveryMs * 6),
    };
  }
  const judged = due.map((member) => ({ member, why: whyNotBegin(input, member) }));
  const chosen = judged.find(({ why }) => why === undefined);
  if (chosen === undefined) {
    return {
      ...nothing,
      notice: judged.map(({ member, why }) => `${member.name} is not replaced: ${why}`).join('; '),
      againInMs: lookEveryMs,
    };
  }
  const { member } = chosen;
  const because = `its node ${nodeOf(member)} has been away for ${after} and no other node can mount its volume`;
  return {
    step: { do: 'begin', member, because },
    replaced: undefined,
    notice: undefined,
    againInMs: lookEveryMs,
  };
}

const nothing: Replacement = {
  step: { do: 'nothing' },
  replaced: undefined,
  notice: undefined,
  againInMs: undefined,
};

function continued(input: ReplacementInput, member: Member, afterMs: number): Replacement {
  const step = ((): ReplacementStep => {
    if (afterMs === 0) return { do: 'cancel', member, because: 'the spec asks for no replacement any more' };
    if (member.healthy) return { do: 'cancel', member, because: 'it works again' };
    const why = whyNotRemove(input, member);
    return why === undefined
      ? {
          do: 'remove',
          member,
          because: `its node ${nodeOf(member)} is lost, and another instance has taken its place`,
        }
      : { do: 'wait', member, for: why };
  })();
  return { step, replaced: member, notice: undefined, againInMs: lookEveryMs };
}

/** What speaks against beginning to replace this instance; undefined: nothing. */
function whyNotBegin(input: ReplacementInput, member: Member): string | undefined {
  const { members, count } = input;
  const filling = members.find((each) => each !== member && awaySince(each) === undefined && !isFilled(each));
  return (
    whyNotAtAll(input, member) ??
    (members.length < count ? 'instances are being made' : undefined) ??
    (members.length > count ? 'instances are being removed' : undefined) ??
    (filling === undefined ? undefined : `${filling.name} is being filled`)
  );
}

/** What speaks against removing a marked instance; undefined: nothing. */
function whyNotRemove(input: ReplacementInput, member: Member): string | undefined {
  const { members, count } = input;
  const standing = members.filter((each) => each !== member);
  // Others that wait for their nodes get their turn after this one.
  const unwell = standing.find((each) => !each.healthy && awaySince(each) === undefined);
  return (
    whyNotAtAll(input, member) ??
    (standing.length < count ? 'the instance that takes its place to be made' : undefined) ??
    (unwell === undefined ? undefined : `${unwell.name} to work`) ??
    (member.isSync ? 'another standby to take its place in the synchronous set' : undefined)
  );
}

/** What speaks against giving this instance up, at whatever stage; undefined: nothing. */
function whyNotAtAll(
  { snapshot, members, leaderPatienceMs, paused }: ReplacementInput,
  member: Member,
): string | undefined {
  const { etcd, fleet } = snapshot;
  if (paused) return 'automatic failover is paused (spec.paused)';
  if (!etcd.known) return 'etcd cannot be asked who leads';
  const { view, leaderSilentMs } = etcd.value;
  const unread = view.invalid.find(({ key }) => /\/(leader|sync|config)$/.test(key));
  if (unread !== undefined) return `etcd holds a value that cannot be read (${unread.key})`;
  const last = view.leader?.value;
  if (last === undefined) return 'nobody has led yet';
  // Whoever led last may hold what nobody else does, also when it has given up.
  if (last.instance === member.name)
    return 'it is the primary, or was the last one: a failover must come first';
  const leader = members.find((each) => each.isLeader);
  if (leader === undefined || !leader.healthy || leaderSilentMs >= leaderPatienceMs)
    return `no primary works that its data could be copied from (${last.instance} led last)`;
  return whyNotLost(fleet, member);
}

/** Why it is not certain that the instance's volume is lost to all nodes. */
function whyNotLost(fleet: Observed<Fleet> | undefined, member: Member): string | undefined {
  if (awaySince(member) === undefined) return 'its node is not known to be away';
  if (fleet === undefined) return 'the nodes have not been looked at yet';
  if (!fleet.known) return fleet.message;
  const { nodes, reach } = fleet.value;
  // A control plane that has lost touch shows nodes as away that are well.
  if (nodes.ready * 2 <= nodes.total)
    return `only ${nodes.ready} of ${nodes.total} nodes are ready, so it may be the control plane that has lost touch`;
  const claims = [member.name, walClaimName(member.name)];
  if (claims.some((claim) => reach.get(claim) === 'stranded')) return undefined;
  return claims.some((claim) => reach.get(claim) === 'elsewhere')
    ? 'its volume is not tied to one node: it waits for the zone, or the storage, to come back'
    : 'its volume can be mounted on another node';
}

const isFilled = ({ claim }: Member): boolean =>
  claim?.metadata.annotations?.[operatorAnnotation.initialized] !== undefined;

const nodeOf = ({ instance }: Member): string => instance.status?.node ?? '?';
