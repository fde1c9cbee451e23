import { annotation, ordinalOf } from '../../api/names.ts';
import { type KubeObject, resources } from '../../kube/index.ts';
import { type Action, applied } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { haConfig, sameConfig } from './desired/config.ts';
import { pgInstance } from './desired/instances.ts';
import { verifierOf } from './desired/password.ts';
import { attach } from './detached.ts';
import { knownTerm, newest, promotedTerm, readLastSeen } from './evidence.ts';
import { type Member, volumesOf } from './members.ts';
import type { AcceptedCluster, ClusterSnapshot } from './snapshot.ts';

/** Timelines that were never noted may have been used: the new one keeps this distance from the highest that was. */
const unseenTimelines = 10;

/** The value of the annotation that lets Koschei choose, where it can prove which instance holds everything. */
const anyProved = 'auto';

/** What a person has decided about a cluster whose state is lost. */
export type Decision =
  | { readonly instance: string; readonly because: string }
  /** Why it cannot be carried out. */
  | { readonly refused: string };

/**
 * Which instance to go on with: the one that a person named, or, with `auto`, the one that is proved to hold every
 * acknowledged commit. Undefined: nobody has decided.
 */
export function adoptionDecision(snapshot: ClusterSnapshot): Decision | undefined {
  const { annotations } = snapshot.cluster.metadata;
  const named = annotations?.[annotation.adoptPrimary];
  if (named === undefined) return undefined;
  const able = volumesOf(snapshot).filter((volume) => volume.initialized);
  if (named !== anyProved) {
    return able.some(({ instance }) => instance === named)
      ? { instance: named, because: `a person has decided to go on with ${named}` }
      : {
          refused: `expected an instance with data (${able.map(({ instance }) => instance).join(', ')}) or "${anyProved}", found "${named}"`,
        };
  }
  // Once told to, an instance founds the cluster, whatever is heard of the others meanwhile.
  const view = snapshot.etcd.known ? snapshot.etcd.value.view : undefined;
  const told = view?.initialize === undefined ? view?.config?.value.adopt?.instance : undefined;
  const found = newest(snapshot);
  if (told === undefined && 'unknown' in found)
    return { refused: `"${anyProved}" goes on only with the instance that led last, and ${found.unknown}` };
  const instance = told ?? ('instance' in found ? found.instance : '');
  return { instance, because: `${instance} led last, so it holds every acknowledged commit` };
}

/**
 * Carries out a person's decision after the state was lost: the named instance alone is started, and told to found the
 * cluster anew. The others get their turn when it leads.
 */
export function adopt(
  snapshot: ClusterSnapshot,
  cluster: AcceptedCluster,
  { instance, because }: { readonly instance: string; readonly because: string },
): Action[] {
  const { etcd, installation, instances } = snapshot;
  const ordinal = ordinalOf(cluster.metadata.name, instance);
  if (!etcd.known || ordinal === undefined) return [];
  const { view } = etcd.value;
  const notes = snapshot.claims.map((claim) =>
    readLastSeen(claim.metadata.annotations?.[operatorAnnotation.lastSeen]),
  );
  const published = [...view.members.values()].map(({ value }) => value.timeline);
  const seen = [cluster.status?.timeline, ...notes.map((note) => note?.timeline), ...published];
  const timeline = Math.max(1, ...seen.map((each) => each ?? 1)) + unseenTimelines;
  const term = Math.max(knownTerm(snapshot), promotedTerm(snapshot));
  const wanted = haConfig(cluster.spec, [instance], {
    appPasswordVerifier: verifierOf(snapshot),
    adopt: { instance, timeline, ...(term === 0 ? {} : { term }) },
  });
  const found = instances.find((each) => each.metadata.name === instance);
  const present = view.config;
  return [
    // It may have been given up before.
    ...attach(snapshot, instance, because),
    ...(present !== undefined &&
    (present.value.adopt?.instance === instance || sameConfig(present.value, wanted))
      ? []
      : [
          {
            do: 'write-config',
            value: { generation: (present?.value.generation ?? 0) + 1, ...wanted },
            expect: present?.revision ?? '0',
            because,
          } as const,
        ]),
    ...applied(
      pgInstance(cluster, installation, ordinal, found, 'clone'),
      found as KubeObject | undefined,
      because,
    ),
  ];
}

/** The decision is carried out: the annotation goes, so that it is not taken for one about a later loss. */
export function forgetDecision({ cluster }: ClusterSnapshot): Action[] {
  const { name, namespace, annotations } = cluster.metadata;
  if (annotations?.[annotation.adoptPrimary] === undefined) return [];
  return [
    {
      do: 'annotate',
      resource: resources.pgClusters,
      ref: { namespace, name },
      annotations: { [annotation.adoptPrimary]: null },
      because: 'the cluster has its state',
    },
  ];
}

/** Where an instance works, what was noted of its volume when it was stopped is not true any more. */
export function forgetNotes(members: readonly Member[]): Action[] {
  return members.flatMap(({ claim, ready }): Action[] =>
    !ready || claim?.metadata.annotations?.[operatorAnnotation.lastSeen] === undefined
      ? []
      : [
          {
            do: 'annotate',
            resource: resources.persistentVolumeClaims,
            ref: claim.metadata,
            annotations: { [operatorAnnotation.lastSeen]: null },
            because: 'its instance works again',
          },
        ],
  );
}
