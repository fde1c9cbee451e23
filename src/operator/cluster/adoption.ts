import { z } from 'zod';
import { annotation, ordinalOf } from '../../api/names.ts';
import { type KubeObject, resources } from '../../kube/index.ts';
import { type Action, applied } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { haConfig, sameConfig } from './desired/config.ts';
import { pgInstance } from './desired/instances.ts';
import { verifierOf } from './desired/password.ts';
import { volumesOf } from './members.ts';
import { type AcceptedCluster, type ClusterSnapshot, sliceOf } from './snapshot.ts';

/** What was noted on a volume when its cluster was stopped. */
const lastSeen = z.object({
  dataId: z.string().optional(),
  timeline: z.int().optional(),
  lsn: z.string().optional(),
  role: z.string().optional(),
});
export type LastSeen = z.infer<typeof lastSeen>;

/** Reads the note; undefined when there is none, or none that can be read. */
export function readLastSeen(text: string | undefined): LastSeen | undefined {
  if (text === undefined) return undefined;
  try {
    return lastSeen.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}

/** Timelines that were never noted may have been used: the new one keeps this distance from the highest that was. */
const unseenTimelines = 10;

/** The instance that a person named to go on with, if it is one with a volume that holds data. */
export function adoptionDecision(snapshot: ClusterSnapshot): string | undefined {
  const { annotations, name } = snapshot.cluster.metadata;
  const named = annotations?.[annotation.adoptPrimary];
  return volumesOf(snapshot).some((volume) => volume.initialized && volume.instance === named) &&
    named !== undefined &&
    ordinalOf(name, named) !== undefined
    ? named
    : undefined;
}

/**
 * Carries out a person's decision after the state was lost: the named instance alone is started, and told to found the
 * cluster anew. The others get their turn when it leads.
 */
export function adopt(snapshot: ClusterSnapshot, cluster: AcceptedCluster, instance: string): Action[] {
  const { etcd, installation, instances } = snapshot;
  const ordinal = ordinalOf(cluster.metadata.name, instance);
  if (!etcd.known || ordinal === undefined) return [];
  const { view, granted } = etcd.value;
  const notes = snapshot.claims.map((claim) =>
    readLastSeen(claim.metadata.annotations?.[operatorAnnotation.lastSeen]),
  );
  const published = [...view.members.values()].map(({ value }) => value.timeline);
  const seen = [cluster.status?.timeline, ...notes.map((note) => note?.timeline), ...published];
  const timeline = Math.max(1, ...seen.map((each) => each ?? 1)) + unseenTimelines;
  const wanted = haConfig(cluster.spec, [instance], {
    appPasswordVerifier: verifierOf(snapshot),
    adopt: { instance, timeline, ...lastTerm(snapshot) },
  });
  const because = `a person has decided to go on with ${instance}`;
  const found = instances.find((each) => each.metadata.name === instance);
  const present = view.config;
  return [
    ...(granted ? [] : [{ do: 'grant-etcd', because } as const]),
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

/** The term of the leader that wrote the `-rw` Service's slice last: it belongs to later terms only. */
function lastTerm(snapshot: ClusterSnapshot): { term?: number } {
  const term = Number(sliceOf(snapshot)?.metadata.annotations?.[annotation.term]);
  return Number.isSafeInteger(term) && term > 0 ? { term } : {};
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
