import { annotation } from '../../api/names.ts';
import type { ClusterView, LeaderValue, MemberValue } from '../../dcs/index.ts';
import { resources } from '../../kube/index.ts';
import { parseLsn } from '../../postgres/lsn.ts';
import type { Action } from '../action.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/**
 * What a person asks for once, by annotating the PgCluster: it is passed on, then the annotation goes. What cannot be
 * done is refused with an Event. Each of these is empty when nobody asks, or has to wait.
 */

/** The value of the annotation that leaves the choice of the new primary to the old one. */
const anyStandby = 'any';

/** A switchover: becomes a request to the primary. An earlier request is awaited. */
export function askedSwitchover(snapshot: ClusterSnapshot): Action[] {
  const { cluster, etcd, random } = snapshot;
  const asked = cluster.metadata.annotations?.[annotation.switchover];
  if (asked === undefined || !etcd.known) return [];
  const { leader, request, config } = etcd.value.view;
  const refuse = (why: string) => [passedOn(snapshot, 'switchover', `no switchover: ${why}`, 'Switchover')];
  if (asked === leader?.value.instance && leader.value.phase === 'leading')
    return refuse(`${asked} is the primary`);
  if (asked !== anyStandby && !instancesOf(snapshot).includes(asked))
    return refuse(`expected ${choices(snapshot)} or "${anyStandby}", found "${asked}"`);
  if (config?.value.instances?.[asked]?.noFailover === true)
    return refuse(`${asked} may not become the primary (spec.instances: noFailover)`);
  if (request !== undefined) return [];
  return [
    {
      do: 'request',
      value: {
        id: random.requestId,
        kind: 'switchover',
        ...(asked === anyStandby ? {} : { to: asked }),
        by: 'annotation',
      },
      because: `a person asks for it (annotation ${annotation.switchover})`,
    },
    passedOn(snapshot, 'switchover', 'the switchover is asked for'),
  ];
}

/** These words in this order: the instance, the term whose leader is lost, and what was made sure of. */
const failoverPattern = /^(\S+)(?:\s+acceptLoss=(\d{1,15}))?(\s+primaryIsOff)?$/;

/**
 * A failover that may lose commits: becomes a request to the candidate, which looks for itself whether it may. The first
 * time it is refused with what may be lost, and with the words that accept it; they name the term, so that they are about
 * this loss and no later one. A member of the synchronous set loses nothing, so nothing need be accepted; it is asked for
 * in a pause. A request that was not carried out gives way to this one.
 */
export function askedFailover(snapshot: ClusterSnapshot): Action[] {
  const { cluster, etcd, random } = snapshot;
  const text = cluster.metadata.annotations?.[annotation.failover];
  if (text === undefined || !etcd.known) return [];
  const { leaderSilentMs, view } = etcd.value;
  const refuse = (why: string) => [passedOn(snapshot, 'failover', `no failover: ${why}`, 'Failover')];
  const [, asked, accepted, isOff] = failoverPattern.exec(text.trim()) ?? [];
  if (asked === undefined || !instancesOf(snapshot).includes(asked))
    return refuse(`expected ${choices(snapshot)}, found "${text.slice(0, 200)}"`);
  const leader = view.leader?.value;
  if (leader === undefined) return refuse('nobody has led yet');
  if (asked === leader.instance)
    return refuse(`${asked} led last, and leads again by itself as soon as its Postgres runs`);
  const config = view.config?.value;
  const ttlMs = Math.max(leader.ttlMs ?? 0, config?.timing.ttlMs ?? 0);
  if (leader.phase === 'leading' && leaderSilentMs < ttlMs)
    return refuse(
      `the last sign of life of ${leader.instance} was ${Math.round(leaderSilentMs / 1000)} s ago: use a switchover (${annotation.switchover}), or ask again when it has been silent for ${ttlMs / 1000} s`,
    );
  if (config?.instances?.[asked]?.noFailover === true)
    return refuse(`${asked} may not become the primary (spec.instances: noFailover)`);
  const candidate = view.members.get(asked)?.value;
  if (candidate === undefined || candidate.role !== 'standby')
    return refuse(`${asked} does not say that its Postgres runs as a standby`);
  const better = ableSyncMember(view, asked);
  if (better !== undefined)
    return refuse(
      `${better} holds every acknowledged commit and takes over by itself, unless that is paused`,
    );
  const names = view.sync?.value.mode === 'sync' ? view.sync.value.names : [];
  const isComplete = names.some((each) => each.instance === asked && each.dataId === candidate.dataId);
  const loss = isComplete ? 'it holds every acknowledged commit' : possibleLoss(leader, candidate);
  const isAccepted = Number(accepted) === leader.term;
  if (!isComplete && !isAccepted) {
    const stale = accepted === undefined ? '' : `acceptLoss=${accepted} is not about term ${leader.term}. `;
    return refuse(
      `${stale}${loss}. ${leader.instance} must be off, or it may go on beside the new primary. If there is no other way: kubectl annotate pgc ${cluster.metadata.name} ${annotation.failover}='${asked} acceptLoss=${leader.term} primaryIsOff'`,
    );
  }
  const because = `a person has decided that ${asked} takes over from ${leader.instance}: ${loss}`;
  return [
    {
      do: 'request',
      value: {
        id: random.requestId,
        kind: 'failover',
        to: asked,
        dataId: candidate.dataId,
        bootId: candidate.bootId,
        term: leader.term,
        ...(isAccepted ? { acceptLoss: true } : {}),
        ...(isOff === undefined ? {} : { primaryIsOff: true }),
        by: 'annotation',
      },
      replaces: view.request?.revision,
      because,
    },
    passedOn(snapshot, 'failover', 'the failover is asked for'),
  ];
}

/** A member of the synchronous set that could take over, unless the one asked for is in it, too. */
function ableSyncMember({ sync, members, config }: ClusterView, asked: string): string | undefined {
  if (sync?.value.mode !== 'sync' || sync.value.names.some(({ instance }) => instance === asked))
    return undefined;
  return sync.value.names.find(({ instance, dataId }) => {
    const says = members.get(instance)?.value;
    const mayLead = config?.value.instances?.[instance]?.noFailover !== true;
    return mayLead && says?.dataId === dataId && says.role === 'standby';
  })?.instance;
}

/** What is known of the difference between a lost leader and who is to take its place. */
function possibleLoss(leader: LeaderValue, candidate: MemberValue): string {
  const { instance, lsn, timeline, term } = leader;
  const mine = candidate.receivedLsn ?? candidate.replayedLsn;
  const [last, has] = [lsn, mine].map((text) => (text === undefined ? undefined : parseLsn(text)));
  const where = `${candidate.instance} holds WAL up to ${mine ?? 'a position that it does not say'} on timeline ${candidate.timeline ?? '?'}`;
  const head = `acknowledged commits may be lost: ${instance} (term ${term}, timeline ${timeline}) had come to ${lsn ?? 'a position that is not known'} at its last heartbeat, ${where}`;
  if (last === undefined || has === undefined || candidate.timeline !== timeline) return head;
  return `${head}: ${last > has ? last - has : 0n} bytes, and whatever was written after that heartbeat`;
}

/** That the data of a standby are copied anew: becomes an order to its agent. An earlier order is awaited. */
export function askedReclone(snapshot: ClusterSnapshot): Action[] {
  const { cluster, etcd, random } = snapshot;
  const asked = cluster.metadata.annotations?.[annotation.reclone];
  if (asked === undefined || !etcd.known) return [];
  const { leader, commands } = etcd.value.view;
  const refuse = (why: string) => [passedOn(snapshot, 'reclone', `not cloned anew: ${why}`, 'Reclone')];
  if (!instancesOf(snapshot).includes(asked))
    return refuse(`expected ${choices(snapshot)}, found "${asked}"`);
  // Who led last may hold what nobody else does, also while nobody leads.
  if (leader === undefined) return refuse('nobody has led yet, so there is nothing to copy');
  if (asked === leader.value.instance) return refuse(`${asked} is the primary, or was the last one`);
  if (commands.has(asked)) return [];
  return [
    {
      do: 'command',
      instance: asked,
      value: { id: random.requestId, do: 'reclone' },
      because: `a person asks for it (annotation ${annotation.reclone})`,
    },
    passedOn(snapshot, 'reclone', 'the order is given'),
  ];
}

/** Whether a person asks for the agents of the operator's version. */
export const asksForAgents = ({ cluster }: ClusterSnapshot): boolean =>
  cluster.metadata.annotations?.[annotation.upgradeAgents] !== undefined;

/** The end of an upgrade of the agents: every instance has the image; the rollout of the pods goes on by itself. */
export function agentsPassedOn(snapshot: ClusterSnapshot): Action[] {
  if (!asksForAgents(snapshot)) return [];
  const { agentImage } = snapshot.installation;
  const isDone = snapshot.instances.every(
    ({ spec, metadata }) => spec.agentImage === agentImage || metadata.deletionTimestamp !== undefined,
  );
  if (!isDone) return [];
  const because = `every instance is to have the agent of ${agentImage}; pods that have another are replaced one by one`;
  const done = passedOn(snapshot, 'upgradeAgents', because);
  return [{ ...done, event: { type: 'Normal', reason: 'AgentsUpgrading', message: because } }];
}

function passedOn(
  { cluster }: ClusterSnapshot,
  what: 'switchover' | 'failover' | 'reclone' | 'upgradeAgents',
  because: string,
  refused?: 'Switchover' | 'Failover' | 'Reclone',
): Extract<Action, { do: 'annotate' }> {
  const { name, namespace } = cluster.metadata;
  return {
    do: 'annotate',
    resource: resources.pgClusters,
    ref: { namespace, name },
    annotations: { [annotation[what]]: null },
    because,
    ...(refused === undefined
      ? {}
      : { event: { type: 'Warning', reason: `${refused}Refused`, message: because } }),
  };
}

const instancesOf = ({ instances }: ClusterSnapshot): string[] =>
  instances
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map(({ metadata }) => metadata.name);

const choices = (snapshot: ClusterSnapshot): string =>
  `an instance (${instancesOf(snapshot).toSorted().join(', ')})`;
