import type { Member } from './members.ts';

/** The next step of changing running instances one by one, or why there is none yet. */
export type Step =
  | { readonly do: 'nothing' }
  | { readonly do: 'wait'; readonly for: string }
  | { readonly do: 'replace-pod'; readonly member: Member; readonly because: string }
  | { readonly do: 'restart'; readonly member: Member; readonly because: string }
  | { readonly do: 'switchover'; readonly to: Member; readonly because: string };

export interface Rollout {
  /** Instances that stay members, in the order of their ordinals. */
  readonly members: readonly Member[];
  /** How many synchronous standbys the spec asks for. */
  readonly synchronous: number;
  /** Instances are about to be removed: then the fewest are disturbed. */
  readonly shrinking: boolean;
  /** A switchover is under way, or was asked for a moment ago. */
  readonly switchingOver: boolean;
  /** Orders that agents have not finished. */
  readonly ordered: readonly string[];
  /** Generation of the configuration in etcd; undefined: there is none. */
  readonly generation: number | undefined;
  /** A person asked that nothing happens to the primary for a while. */
  readonly paused: boolean;
  /** Instances that may not become the primary. */
  readonly barred: readonly string[];
  /** Instances that were restarted for their pending settings without effect. */
  readonly exhausted: readonly string[];
}

/**
 * What to do next about pods with an old template and about settings that need a restart: standbys first, one at a
 * time and only while all others work; the primary last, by a switchover, after which it is a standby like the others.
 */
export function nextStep(rollout: Rollout): Step {
  const { members, ordered, exhausted } = rollout;
  const leader = members.find((member) => member.isLeader);
  const outdated = members.filter((member) => member.outdated);
  const pending = members.filter(
    (member) => !member.outdated && restartHelps(member, leader) && !exhausted.includes(member.name),
  );
  if (outdated.length === 0 && pending.length === 0) return { do: 'nothing' };

  // What does not run anyway is replaced without waiting for anybody: the new template may be what helps it.
  const broken = outdated.find((member) => member.stuck && !member.isLeader);
  if (broken !== undefined) {
    return {
      do: 'replace-pod',
      member: broken,
      because: 'its pod cannot start, and its template has changed',
    };
  }
  if (rollout.shrinking) return { do: 'wait', for: 'the instances that are to be removed' };
  if (ordered.length > 0) {
    const why = ordered.map((name) =>
      withProblem(
        name,
        members.find((each) => each.name === name),
      ),
    );
    return { do: 'wait', for: `${why.join(', ')} to carry out an order` };
  }
  if (rollout.switchingOver) return { do: 'wait', for: 'the switchover' };

  const target = nextTarget(members, outdated, pending);
  if (target === undefined) return { do: 'wait', for: 'a primary' };
  const unwell = members.find((member) => member !== target && !member.healthy);
  if (unwell !== undefined) return { do: 'wait', for: `${withProblem(unwell.name, unwell)} to work again` };
  // Who has not read the configuration yet says nothing of the restart that it will need: a switchover to it would be
  // followed by another one.
  const behind = members.find(
    ({ says }) => says?.problem === undefined && says?.configGeneration !== rollout.generation,
  );
  if (!target.outdated && behind !== undefined) {
    return { do: 'wait', for: `${behind.name} to read the configuration` };
  }
  const confirming = members.filter((member) => member.isSync).length;
  if (confirming < Math.min(rollout.synchronous, members.length - 1)) {
    return { do: 'wait', for: 'the synchronous standbys to be complete' };
  }
  const because = reasonFor(target);
  if (!target.isLeader) return act(target, because);
  if (rollout.paused) return { do: 'wait', for: 'the end of the pause (spec.paused) to change the primary' };
  const lowered = target.says?.pendingRestart?.lowered ?? [];
  // A standby may not have less of these than its primary had: only the primary itself can lower them.
  if (!target.outdated && lowered.length > 0) return { do: 'restart', member: target, because };
  const successor = bestSuccessor(rollout, target);
  if (successor !== undefined) return { do: 'switchover', to: successor, because };
  return members.length === 1 ? act(target, because) : { do: 'wait', for: 'a standby that can take over' };
}

/** The name, and what its agent says keeps it from working. */
function withProblem(name: string, member: Member | undefined): string {
  const problem = member?.says?.problem;
  return problem === undefined ? name : `${name} (${problem.reason}: ${problem.message})`;
}

const act = (member: Member, because: string): Step =>
  member.outdated ? { do: 'replace-pod', member, because } : { do: 'restart', member, because };

/** A standby cannot go below what its primary has: what is being lowered is the primary's turn first. */
function restartHelps(member: Member, leader: Member | undefined): boolean {
  const first = member === leader ? [] : (leader?.says?.pendingRestart?.lowered ?? []);
  return settingsOf(member).some((setting) => !first.includes(setting));
}

export const settingsOf = (member: Member): readonly string[] => member.says?.pendingRestart?.settings ?? [];

function reasonFor(member: Member): string {
  return member.outdated
    ? 'the pod template has changed'
    : `a restart puts ${settingsOf(member).join(', ')} into force`;
}

/** Asynchronous standbys first, then synchronous ones, the primary last; among equals the highest ordinal. */
function nextTarget(
  members: readonly Member[],
  outdated: readonly Member[],
  pending: readonly Member[],
): Member | undefined {
  const rank = (member: Member) => (member.isLeader ? 2 : member.isSync ? 1 : 0);
  // Without a leader nobody is known to be a mere standby.
  if (!members.some((member) => member.isLeader)) return undefined;
  return [...outdated, ...pending].sort((a, b) => rank(a) - rank(b) || b.ordinal - a.ordinal)[0];
}

function bestSuccessor({ members, synchronous, barred }: Rollout, leader: Member): Member | undefined {
  return members
    .filter((member) => member !== leader && member.healthy && (synchronous === 0 || member.isSync))
    .filter((member) => !member.outdated && !restartHelps(member, leader) && !barred.includes(member.name))
    .sort((a, b) => (a.says?.lagBytes ?? 0) - (b.says?.lagBytes ?? 0) || a.ordinal - b.ordinal)[0];
}
