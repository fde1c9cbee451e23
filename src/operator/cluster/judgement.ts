import type { NewCondition } from '../../api/conditions.ts';
import type { PgClusterSpec } from '../../api/pgcluster.ts';
import {
  acceptedSpec,
  describeRefusals,
  type Refusal,
  RefusedError,
  readSpec,
  refuseChange,
  validateInstanceNames,
  validateName,
} from '../../api/refusals.ts';
import { checkTiming, longestPauseMs } from '../../dcs/index.ts';
import { operatorAnnotation } from '../annotations.ts';
import { haConfig } from './desired/config.ts';
import { volumesOf } from './members.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/** Which spec is in force, and what to say about the one that was asked for. */
export interface Judgement {
  /** Undefined: none was ever accepted, or the accepted one cannot be read: nothing may be touched. */
  readonly spec: PgClusterSpec | undefined;
  readonly condition: NewCondition;
}

/** Judges the spec of a PgCluster. A refused change leaves the last accepted spec in force. */
export function judge(snapshot: ClusterSnapshot): Judgement {
  const { metadata, status } = snapshot.cluster;
  const refused = (refusals: readonly Refusal[], spec: PgClusterSpec | undefined): Judgement => ({
    spec,
    condition: {
      type: 'Accepted',
      status: 'False',
      reason: refusals[0]?.reason ?? 'InvalidSpec',
      message:
        describeRefusals(refusals) +
        (spec === undefined ? '. Nothing is created' : '. The last accepted spec stays in force'),
    },
  });
  let inForce: PgClusterSpec | undefined;
  try {
    inForce = acceptedSpec(status);
  } catch (error) {
    if (error instanceof RefusedError) return refused(error.refusals, undefined);
    throw error;
  }
  const reading = readSpec(snapshot.cluster.spec);
  const refusals = [
    ...validateName(metadata.name),
    ...(reading.ok ? [] : reading.refusals),
    ...(reading.ok ? refuseTiming(reading.spec) : []),
    ...(reading.ok ? refusePause(reading.spec, snapshot.now) : []),
    ...(reading.ok ? validateInstanceNames(metadata.name, reading.spec) : []),
    ...(reading.ok && inForce !== undefined ? refuseChange(inForce, reading.spec) : []),
    ...(reading.ok && inForce === undefined ? refuseAdoption(snapshot, reading.spec) : []),
  ];
  if (!reading.ok || refusals.length > 0) return refused(refusals, inForce);
  const { failure } = snapshot;
  if (failure?.reason === 'name-taken') {
    return {
      spec: reading.spec,
      condition: { type: 'Accepted', status: 'False', reason: 'NameTaken', message: failure.message },
    };
  }
  return {
    spec: reading.spec,
    condition: {
      type: 'Accepted',
      status: 'True',
      reason: 'SpecAccepted',
      message: 'The spec is valid and in force',
    },
  };
}

/** A pause that is over is no fault: it was not when it was asked for. */
function refusePause({ paused }: PgClusterSpec, now: Date): Refusal[] {
  if (paused === undefined || Date.parse(paused.until) - now.getTime() <= longestPauseMs) return [];
  return [
    {
      field: 'spec.paused.until',
      reason: 'InvalidSpec',
      expected: `at most 24 hours from now, ${now.toISOString()}`,
      found: paused.until,
      advice: 'take an earlier time; it can be set again later',
    },
  ];
}

function refuseTiming(spec: PgClusterSpec): Refusal[] {
  const problem = checkTiming(haConfig(spec, []).timing);
  if (problem === undefined) return [];
  return [
    {
      field: 'spec.failover.ttlSeconds',
      reason: 'InvalidSpec',
      expected: 'enough time for a heartbeat and a request to etcd',
      found: String(spec.failover.ttlSeconds),
      advice: problem,
    },
  ];
}

/** Volumes of an earlier PgCluster of this name are adopted only by one of the same major version. */
function refuseAdoption(snapshot: ClusterSnapshot, spec: PgClusterSpec): Refusal[] {
  const other = volumesOf(snapshot).find(({ claim, initialized }) => {
    const version = claim.metadata.annotations?.[operatorAnnotation.postgresVersion];
    return initialized && version !== undefined && version !== String(spec.postgres.version);
  });
  if (other === undefined) return [];
  const version = other.claim.metadata.annotations?.[operatorAnnotation.postgresVersion];
  return [
    {
      field: 'spec.postgres.version',
      reason: 'MajorUpgradeRefused',
      expected: `${version}, as on the kept volume ${other.claim.metadata.name}`,
      found: String(spec.postgres.version),
      advice: 'take that version, another name, or remove the kept volumes',
    },
  ];
}
