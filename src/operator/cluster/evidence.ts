import { z } from 'zod';
import { annotation, label } from '../../api/names.ts';
import type { VolumeReport } from '../../api/pgcluster.ts';
import type { MemberValue } from '../../dcs/index.ts';
import { operatorAnnotation } from '../annotations.ts';
import { readDetached } from './detached.ts';
import { volumesOf } from './members.ts';
import { type ClusterSnapshot, sliceOf } from './snapshot.ts';

/* What is known of the volumes when etcd has lost, or forgotten, who led: what a decision can be based on. */

/** What was noted on a volume when its cluster was stopped. */
const lastSeen = z.object({
  dataId: z.string().optional(),
  timeline: z.int().optional(),
  lsn: z.string().optional(),
  role: z.string().optional(),
  term: z.int().optional(),
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

/** How far the data of an instance go, as its agent says now. */
export function positionOf(says: MemberValue): string | undefined {
  const { receivedLsn, replayedLsn, heldLsn } = says;
  return receivedLsn ?? replayedLsn ?? heldLsn;
}

/** The highest term that is known of from elsewhere than etcd and the agents: the status, and the slice of `-rw`; 0: none. */
export function knownTerm(snapshot: ClusterSnapshot): number {
  const { clusterId, term: ofStatus = 0 } = snapshot.cluster.status ?? {};
  const { annotations, labels } = sliceOf(snapshot)?.metadata ?? {};
  // One that an earlier cluster of this name has left says nothing of this one.
  const ofSlice = labels?.[label.clusterId] === clusterId ? Number(annotations?.[annotation.term]) : 0;
  return Math.max(ofStatus, Number.isSafeInteger(ofSlice) ? ofSlice : 0);
}

/** The agents' own words, of those that have data. */
const heard = (snapshot: ClusterSnapshot): readonly MemberValue[] =>
  snapshot.etcd.known
    ? [...snapshot.etcd.value.view.members.values()]
        .map(({ value }) => value)
        .filter((says) => says.systemIdentifier !== undefined)
    : [];

/** The highest term in which data of an agent that can be heard were begun to be promoted; 0: none. */
export const promotedTerm = (snapshot: ClusterSnapshot): number =>
  Math.max(0, ...heard(snapshot).map((says) => says.promotedTerm ?? 0));

export type Newest =
  | { readonly instance: string; readonly term: number }
  /** Why it cannot be said. */
  | { readonly unknown: string };

/**
 * The instance that is proved to hold every acknowledged commit: the one that was promoted last. Whoever wins a term
 * holds all that was acknowledged before it, and notes the term on its volume before it acknowledges anything itself
 * (rules R4 and R5); so does the bearer of the highest term. For that the agents of all volumes must have told theirs, and
 * nothing may be known of a later one. Positions prove nothing: an asynchronous standby may be ahead of a synchronous one.
 */
export function newest(snapshot: ClusterSnapshot): Newest {
  const volumes = volumesOf(snapshot).filter((volume) => volume.initialized && !volume.released);
  const says = new Map(heard(snapshot).map((each) => [each.instance, each]));
  const silent = volumes.filter(({ instance }) => says.get(instance)?.promotedTerm === undefined);
  if (volumes.length === 0) return { unknown: 'there is no volume with data' };
  if (silent.length > 0) {
    return {
      unknown: `nothing is heard of ${silent.map(({ instance }) => instance).join(', ')}, which may have led last`,
    };
  }
  const terms = volumes
    .map(({ instance }) => ({ instance, term: says.get(instance)?.promotedTerm ?? 0 }))
    .sort((a, b) => b.term - a.term);
  const [first, second] = terms;
  if (first === undefined || first.term === 0) return { unknown: 'none of them has ever led' };
  if (second?.term === first.term)
    return { unknown: `${first.instance} and ${second.instance} both led term ${first.term} last` };
  const known = knownTerm(snapshot);
  if (first.term < known) {
    return {
      unknown: `${first.instance} led term ${first.term} last, but there has been a term ${known}: whoever led it is not among them, or had not begun`,
    };
  }
  const systems = new Set(volumes.map(({ instance }) => says.get(instance)?.systemIdentifier));
  if (systems.size > 1) return { unknown: 'their data are of different databases (system identifiers)' };
  return first;
}

/** What a person needs to choose a volume by. */
export function volumeReports(snapshot: ClusterSnapshot): VolumeReport[] {
  const says = new Map(heard(snapshot).map((each) => [each.instance, each]));
  return volumesOf(snapshot)
    .filter((volume) => volume.initialized)
    .map(({ instance, claim }): VolumeReport => {
      const detached = readDetached(claim.metadata.annotations?.[operatorAnnotation.detached]);
      const given =
        detached === undefined ? '' : `; given up at ${detached.at} with the node ${detached.node ?? '?'}`;
      const now = says.get(instance);
      if (now !== undefined) return heardReport(now, given);
      const seen = readLastSeen(claim.metadata.annotations?.[operatorAnnotation.lastSeen]);
      return {
        instance,
        ...(seen?.dataId === undefined ? {} : { dataId: seen.dataId }),
        ...(seen?.timeline === undefined ? {} : { timeline: seen.timeline }),
        ...(seen?.lsn === undefined ? {} : { lsn: seen.lsn }),
        ...(seen?.term === undefined ? {} : { term: seen.term }),
        note:
          seen === undefined
            ? `how far its data go is not known${given}`
            : `was ${seen.role === 'primary' ? 'the primary' : 'a standby'} when the cluster was stopped; how far its data go was noted then${given}`,
      };
    })
    .sort((a, b) => (a.instance < b.instance ? -1 : 1));
}

function heardReport(says: MemberValue, given: string): VolumeReport {
  const lsn = positionOf(says);
  const { instance, dataId, timeline, promotedTerm: term } = says;
  const led =
    term === undefined ? '' : term === 0 ? '; it has never led' : `; the last term that it led is ${term}`;
  const runs =
    says.role === 'none' ? 'its Postgres is stopped, and may hold more than that' : 'its Postgres runs';
  return {
    instance,
    dataId,
    ...(timeline === undefined ? {} : { timeline }),
    ...(lsn === undefined ? {} : { lsn }),
    ...(term === undefined ? {} : { term }),
    note: `its agent says so now: ${runs}${led}${given}`,
  };
}
