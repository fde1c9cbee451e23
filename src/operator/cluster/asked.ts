import { annotation } from '../../api/names.ts';
import { resources } from '../../kube/index.ts';
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
  what: 'switchover' | 'reclone' | 'upgradeAgents',
  because: string,
  refused?: 'Switchover' | 'Reclone',
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
