import { type Condition, type NewCondition, setCondition } from '../../api/conditions.ts';
import { caSecretName } from '../../api/names.ts';
import { instanceCount, type PgClusterSpec, type PgClusterStatus, type Phase } from '../../api/pgcluster.ts';
import type { MemberValue } from '../../dcs/index.ts';
import { operatorAnnotation } from '../annotations.ts';
import { isGrown } from '../instance/desired/claims.ts';
import { podSelector } from '../labels.ts';
import { adoptionDecision } from './adoption.ts';
import { detachedVolumes } from './detached.ts';
import { knownTerm, promotedTerm, volumeReports } from './evidence.ts';
import type { Judgement } from './judgement.ts';
import type { Member } from './members.ts';
import { pauseLeftMs } from './pause.ts';
import type { Replacement } from './replacement.ts';
import type { Step } from './rollout.ts';
import type { Removal } from './scale.ts';
import { isUndecided, overdueMs, type Situation } from './situation.ts';
import type { AcceptedCluster, ClusterSnapshot } from './snapshot.ts';

export interface StatusInput {
  readonly snapshot: ClusterSnapshot;
  readonly accepted: AcceptedCluster;
  readonly judgement: Judgement;
  readonly situation: Situation;
  readonly members?: readonly Member[];
  readonly removal?: Removal;
  readonly step?: Step;
  readonly replacement?: Replacement;
  /** The plan hands a changed spec on to the instances. */
  readonly passing?: boolean;
  /** The Secret of the cluster's authority is gone, and no other one is made. */
  readonly authorityLost?: boolean;
}

/** What is true about a cluster whose spec is accepted. What cannot be known at the moment stays as it was. */
export function statusOf(input: StatusInput): PgClusterStatus {
  const { snapshot, accepted, judgement, situation, members = [] } = input;
  const before = snapshot.cluster.status ?? {};
  const { spec } = accepted;
  const view = snapshot.etcd.known ? snapshot.etcd.value.view : undefined;
  const leader = view?.leader?.value;
  const wanted = instanceCount(spec.replicas);
  const readyInstances = members.filter((member) => member.ready).length;
  const standbys = view === undefined ? undefined : syncStandbys(members);
  const traits = traitsOf(input);
  const { phase, conditions } = judgeState(input, traits);
  const status: PgClusterStatus = {
    ...before,
    observedGeneration: snapshot.cluster.metadata.generation ?? 0,
    clusterId: accepted.clusterId,
    phase,
    instances: members.length,
    readyInstances,
    ready: `${readyInstances}/${wanted}`,
    asynchronousReplicas: Math.max(0, members.length - 1 - spec.replicas.synchronous),
    selector: Object.entries(podSelector(accepted.metadata.name))
      .map(([key, value]) => `${key}=${value}`)
      .join(','),
    acceptedSpec: spec as unknown as Record<string, unknown>,
    conditions: withConditions(snapshot, [judgement.condition, ...conditions]),
  };
  const image = currentImageOf(members);
  if (image === undefined) delete status.currentImage;
  else status.currentImage = image;
  // What a stale state says is not true any more, and the status is what shows that it is stale.
  if (leader !== undefined && situation !== 'stale') {
    status.term = leader.term;
    status.timeline = leader.timeline;
    if (leader.phase === 'leading') {
      status.primary = leader.instance;
      status.primaryDataId = leader.dataId;
    }
  }
  if (standbys !== undefined) {
    status.synchronousStandbys = standbys;
    status.sync = standbys.join(',');
  }
  if (isUndecided(situation)) status.volumes = volumeReports(snapshot);
  else if (situation !== 'unknown') delete status.volumes;
  const detached = detachedVolumes(snapshot);
  if (detached.length > 0) status.detachedVolumes = detached;
  else delete status.detachedVolumes;
  return status;
}

/** The image that most pods have, the primary's among equals; undefined: there are no pods. */
function currentImageOf(members: readonly Member[]): string | undefined {
  const imageOf = ({ pod }: Member) => pod?.spec?.containers.find(({ name }) => name === 'postgres')?.image;
  const images = [...members]
    .sort((a, b) => Number(b.isLeader) - Number(a.isLeader))
    .flatMap((member) => imageOf(member) ?? []);
  const count = (image: string) => images.filter((each) => each === image).length;
  // The sort is stable: among equals the first stays first.
  return images.toSorted((a, b) => count(b) - count(a))[0];
}

const syncStandbys = (members: readonly Member[]): string[] =>
  members.filter((member) => member.isSync && !member.isLeader).map((member) => member.name);

/** The status of a PgCluster about which nothing can be done. */
export function refusedStatus(
  snapshot: ClusterSnapshot,
  judgement: Judgement,
  ids?: readonly string[],
): PgClusterStatus {
  const before = snapshot.cluster.status ?? {};
  const ambiguous: NewCondition[] =
    ids === undefined
      ? []
      : [
          {
            type: 'Ready',
            status: 'False',
            reason: 'WaitingForDecision',
            message: `There are volumes of ${ids.length} earlier clusters of this name (${ids.join(', ')}). Remove the volumes, or the label koschei.dev/cluster on those, that are not to be adopted`,
          },
        ];
  return {
    ...before,
    observedGeneration: snapshot.cluster.metadata.generation ?? 0,
    ...(ids === undefined ? {} : { phase: 'WaitingForDecision', volumes: volumeReports(snapshot) }),
    conditions: withConditions(snapshot, [judgement.condition, ...ambiguous]),
  };
}

export function deletingStatus(snapshot: ClusterSnapshot, condition: NewCondition): PgClusterStatus {
  return {
    ...snapshot.cluster.status,
    phase: 'Deleting',
    conditions: withConditions(snapshot, [condition]),
  };
}

function withConditions(snapshot: ClusterSnapshot, conditions: readonly NewCondition[]): Condition[] {
  const { generation } = snapshot.cluster.metadata;
  return conditions.reduce<readonly Condition[]>(
    (list, condition) =>
      setCondition(
        list,
        {
          ...condition,
          message: condition.message.slice(0, 4096),
          ...(generation === undefined ? {} : { observedGeneration: generation }),
        },
        snapshot.now,
      ),
    snapshot.cluster.status?.conditions ?? [],
  ) as Condition[];
}

interface Traits {
  readonly count: number;
  readonly leader: Member | undefined;
  readonly leaderReady: boolean;
  /** A leader that was silent for so long is not believed to lead, ms. */
  readonly patienceMs: number;
  readonly everReady: boolean;
  readonly unwell: readonly Member[];
  readonly confirming: number;
  readonly paused: boolean;
  readonly wantedConfirming: number;
}

function traitsOf({ snapshot, accepted, members = [] }: StatusInput): Traits {
  const { spec, status } = accepted;
  const known = snapshot.etcd.known;
  // Without etcd the last known primary is the best guess; whether it still works, its readiness probe says.
  const leader = known
    ? members.find((member) => member.isLeader)
    : members.find((member) => member.name === status?.primary);
  const silent = snapshot.etcd.known ? snapshot.etcd.value.leaderSilentMs : 0;
  const patienceMs = spec.failover.ttlSeconds * 1000 + overdueMs;
  return {
    count: instanceCount(spec.replicas),
    leader,
    patienceMs,
    leaderReady: leader?.ready === true && silent < patienceMs,
    everReady: status?.phase !== undefined && status.phase !== 'Creating',
    unwell: members.filter((member) => (known ? !member.healthy : !member.ready)),
    confirming: syncStandbys(members).length,
    paused: pauseLeftMs(spec, snapshot.now) !== undefined,
    wantedConfirming: spec.replicas.synchronous,
  };
}

function judgeState(
  input: StatusInput,
  traits: Traits,
): { readonly phase: Phase; readonly conditions: readonly NewCondition[] } {
  const conditions = [
    readyCondition(input, traits),
    progressCondition(input, traits),
    degradedCondition(input, traits),
    pausedCondition(input, traits),
    syncCondition(input, traits),
    etcdCondition(input),
    volumesCondition(input),
    settingsCondition(input),
    slotsCondition(input),
  ].flatMap((condition) => condition ?? []);
  return { phase: phaseOf(input, traits), conditions };
}

function phaseOf(input: StatusInput, traits: Traits): Phase {
  const { snapshot, situation, members = [], step, removal } = input;
  if (isUndecided(situation)) return 'WaitingForDecision';
  const whole = members.length === traits.count && traits.unwell.length === 0;
  const inSync = traits.confirming >= Math.min(traits.wantedConfirming, members.length - 1);
  if (!traits.everReady && !(traits.leaderReady && whole && inSync)) return 'Creating';
  if (snapshot.etcd.known && snapshot.etcd.value.view.request !== undefined) return 'SwitchingOver';
  const takesOver = members.some((member) => member.ready) && !traits.paused;
  if (!traits.leaderReady) return takesOver ? 'FailingOver' : 'Stopped';
  if (traits.paused) return 'Paused';
  if (step !== undefined && step.do !== 'nothing') return 'Updating';
  if (isPassingOn(input)) return 'Updating';
  if (removal !== undefined && removal.leaving.length + removal.waiting > 0) return 'Updating';
  const well = whole && (inSync || situation === 'unknown') && misledService(traits) === undefined;
  return well ? 'Running' : 'Degraded';
}

function readyCondition({ snapshot, accepted, situation }: StatusInput, traits: Traits): NewCondition {
  const no = (reason: NewCondition['reason'], message: string): NewCondition => ({
    type: 'Ready',
    status: 'False',
    reason,
    message,
  });
  if (isUndecided(situation)) {
    const decision = adoptionDecision(snapshot);
    if (decision !== undefined && 'instance' in decision)
      return no('Creating', `${decision.instance} founds the cluster anew: ${decision.because}`);
    const what =
      situation === 'lost'
        ? 'etcd knows nothing of this cluster, but it has data'
        : 'what etcd knows of this cluster is older than its data, as after the restore of an old copy: nothing is changed';
    const refused = decision === undefined ? '' : `. koschei.dev/adopt-primary: ${decision.refused}`;
    return no(
      'WaitingForDecision',
      `${what}. Annotate the PgCluster with koschei.dev/adopt-primary=auto to go on with the instance that led last, if that can be proved, or with koschei.dev/adopt-primary=<instance> to choose by status.volumes: commits that only other volumes hold are lost then (docs/etcd.md)${refused}`,
    );
  }
  if (traits.leaderReady && traits.leader !== undefined) {
    return {
      type: 'Ready',
      status: 'True',
      reason: 'PrimaryReady',
      message: `${traits.leader.name} is the primary and takes writes`,
    };
  }
  if (!traits.everReady) return no('Creating', 'The first instance is being created');
  if (!snapshot.etcd.known)
    return no('Unknown', 'etcd cannot be asked who leads, and the last known primary is not ready');
  const last = snapshot.etcd.value.view.leader?.value;
  const silent = snapshot.etcd.value.leaderSilentMs >= traits.patienceMs;
  return no(
    traits.leader !== undefined && silent ? 'NoPrimary' : 'FailingOver',
    last === undefined
      ? 'No instance has ever led'
      : traits.leader === undefined
        ? `${last.instance} led last (term ${last.term}) and has given up; a standby that may take over is awaited${hindrance(accepted.spec, traits)}`
        : silent
          ? `${last.instance} leads (term ${last.term}) but has fallen silent${hindrance(accepted.spec, traits)}`
          : `${last.instance} leads (term ${last.term}) and is about to take writes`,
  );
}

/** Why a takeover may not come, as the end of a sentence. */
function hindrance({ instances = [], paused, failover }: PgClusterSpec, traits: Traits): string {
  if (traits.paused)
    return `. Nobody takes over: automatic failover is paused until ${paused?.until} (spec.paused)`;
  const names = instances
    .filter(({ noFailover, applyDelaySeconds }) => noFailover || applyDelaySeconds !== undefined)
    .map(({ name }) => name);
  const barred = names.length === 0 ? '' : `; ${names.join(', ')} may not take over (noFailover)`;
  return failover.maximumLag === undefined
    ? barred
    : `${barred}; nor may a standby that lacks more than ${failover.maximumLag} (failover.maximumLag)`;
}

/** Whether what the spec asks for has not yet reached every instance that could take it in. */
function isPassingOn({ snapshot, members = [], passing = false }: StatusInput): boolean {
  const config = snapshot.etcd.known ? snapshot.etcd.value.view.config?.value : undefined;
  return (
    passing ||
    members.some(
      (member) =>
        !member.settled ||
        // One that has a problem with it will not take it in: the condition `SettingsApplied` says so.
        (config !== undefined &&
          member.healthy &&
          member.says?.problem === undefined &&
          member.says?.configGeneration !== config.generation),
    )
  );
}

/** A request that the present primary, or the candidate of a failover, refused; the revision identifies it. */
export function failedRequest(
  members: readonly Member[],
): NonNullable<MemberValue['refusedRequest']> | undefined {
  return (
    members.find((member) => member.isLeader)?.says?.refusedRequest ??
    members.find((member) => member.says?.refusedRequest?.kind === 'failover')?.says?.refusedRequest
  );
}

function progressCondition(input: StatusInput, traits: Traits): NewCondition {
  const condition = progress(input, traits);
  const failed = failedRequest(input.members ?? []);
  if (failed === undefined) return condition;
  const isFailover = failed.kind === 'failover';
  const why = isFailover ? 'FailoverRefused' : 'SwitchoverFailed';
  const reason = condition.status === 'False' ? why : condition.reason;
  const what = isFailover ? 'The failover asked for was refused' : 'The last switchover asked for failed';
  return {
    ...condition,
    reason,
    message: `${condition.message}. ${what}: ${failed.message}`,
  };
}

function progress(input: StatusInput, traits: Traits): NewCondition {
  const { step, removal, members = [], situation, replacement } = input;
  const { failure } = input.snapshot;
  const yes = (reason: NewCondition['reason'], message: string): NewCondition => ({
    type: 'Progressing',
    status: 'True',
    reason,
    message,
  });
  if (failure !== undefined && failure.reason !== 'name-taken') {
    const reason = /exceeded quota|denied the request/.test(failure.message)
      ? 'QuotaExceeded'
      : failure.reason === 'forbidden'
        ? 'Forbidden'
        : 'KubernetesApiError';
    return yes(reason, `${failure.object}: ${failure.message}. It is being tried again`);
  }
  if (situation !== 'unknown') {
    if (replacement?.replaced !== undefined) return yes('ReplacingInstance', replacing(replacement));
    if (removal !== undefined && removal.leaving.length > 0) {
      return yes('ScalingDown', `${removal.leaving.map(({ name }) => name).join(', ')} is being removed`);
    }
    if (removal !== undefined && removal.waiting > 0) {
      return yes(
        'ScalingDown',
        `${removal.waiting} more instances are to go, but only the primary and synchronous standbys are left to choose from, or nobody leads`,
      );
    }
    if (step?.do === 'wait') return yes('Updating', `Waiting for ${step.for}`);
    if (step?.do === 'switchover') return yes('SwitchingOver', `${step.to.name} takes over: ${step.because}`);
    if (step?.do === 'replace-pod') return yes('Updating', `${step.member.name}: ${step.because}`);
    if (step?.do === 'restart') return yes('Restarting', `${step.member.name}: ${step.because}`);
    if (!traits.everReady && (members.length < traits.count || traits.unwell.length > 0)) {
      return yes(
        'Creating',
        `Waiting for ${traits.unwell.map(({ name }) => name).join(', ') || 'instances'}`,
      );
    }
    const filling = members.filter((member) => {
      const marks = member.claim?.metadata.annotations;
      return marks?.[operatorAnnotation.initialized] === undefined;
    });
    if (filling.length > 0)
      return yes('ScalingUp', `${filling.map(({ name }) => name).join(', ')} is being filled`);
  }
  if (isPassingOn(input)) return yes('Updating', 'The change is on its way to the instances');
  return { type: 'Progressing', status: 'False', reason: 'Stable', message: 'Nothing is being changed' };
}

/** What is done about the instance that is being replaced. */
function replacing({ step, replaced }: Replacement): string {
  const name = replaced?.name ?? '?';
  return step.do === 'wait'
    ? `${name} is being replaced, because its node is lost; waiting for ${step.for}`
    : `${name} is being replaced, because its node is lost`;
}

function degradedCondition(
  { members = [], accepted, authorityLost = false, replacement }: StatusInput,
  traits: Traits,
): NewCondition {
  const missing = traits.count - members.length;
  if (authorityLost) {
    return {
      type: 'Degraded',
      status: 'True',
      reason: 'SecretMissing',
      message: `The Secret ${caSecretName(accepted.metadata.name)} (ca.crt and ca.key of the cluster's certificate authority) is gone, incomplete, or without the label koschei.dev/cluster. No other authority is made: clients and instances go by this one. Certificates are not renewed until it is back: restore it from a backup (docs/operations.md, "Credentials", says what to do without one)`,
    };
  }
  const misled = misledService(traits);
  if (misled !== undefined) {
    return { type: 'Degraded', status: 'True', reason: 'ServiceOfLaterTerm', message: misled };
  }
  if (traits.unwell.length === 0 && missing <= 0) {
    return {
      type: 'Degraded',
      status: 'False',
      reason: 'AllInstancesReady',
      message: 'Every instance works',
    };
  }
  const reports = traits.unwell.map(({ name, instance, says }) => {
    const ready = instance.status?.conditions?.find((each) => each.type === 'Ready');
    const why = ready?.status === 'False' ? `${ready.reason}: ${ready.message}` : says?.problem?.message;
    return why === undefined ? name : `${name} (${why})`;
  });
  const first = traits.unwell[0]?.instance.status?.conditions?.find((each) => each.type === 'Ready');
  const specific = first?.status === 'False' ? toReason(first.reason) : undefined;
  return {
    type: 'Degraded',
    status: 'True',
    reason: specific ?? 'InstancesNotReady',
    message: [
      ...(reports.length === 0 ? [] : [`Not working: ${reports.join('; ')}`]),
      ...(missing > 0 ? [`${missing} instances are still to be made`] : []),
      ...(replacement?.notice === undefined ? [] : [replacement.notice]),
    ].join('. '),
  };
}

function pausedCondition({ accepted }: StatusInput, { paused }: Traits): NewCondition {
  const { until, reason } = accepted.spec.paused ?? {};
  return paused
    ? {
        type: 'Paused',
        status: 'True',
        reason: 'FailoverPaused',
        message: `Automatic failover is paused until ${until}${reason === undefined ? '' : ` (${reason})`}: a primary that is lost is not replaced. Remove spec.paused to end it`,
      }
    : {
        type: 'Paused',
        status: 'False',
        reason: 'NotPaused',
        message: until === undefined ? 'Automatic failover is not paused' : `The pause was over at ${until}`,
      };
}

/** Why clients of `-rw` do not get to the primary, as its agent says. */
function misledService({ leader }: Traits): string | undefined {
  const problem = leader?.says?.problem;
  return problem?.reason === 'ServiceOfLaterTerm' ? `${leader?.name}: ${problem.message}` : undefined;
}

/** Reasons that say more about a cluster than that an instance does not work. */
const telling: readonly NewCondition['reason'][] = [
  'ImagePullFailed',
  'NoPostgresInImage',
  'InitFailed',
  'WaitingForNode',
  'WaitingForScheduling',
  'CrashLooping',
  'DiskFull',
  'DiskStalled',
  'SecretMissing',
  'QuotaExceeded',
  'VolumeNotBound',
  'VolumeLost',
];
const toReason = (reason: string): NewCondition['reason'] | undefined =>
  telling.find((each) => each === reason);

function syncCondition({ snapshot, accepted, members = [] }: StatusInput, traits: Traits): NewCondition {
  const { spec } = accepted;
  const say = (
    status: NewCondition['status'],
    reason: NewCondition['reason'],
    message: string,
  ): NewCondition => ({ type: 'SynchronousReplication', status, reason, message });
  if (spec.replicas.synchronous === 0) {
    return say(
      'True',
      'NotRequested',
      'The spec asks for no synchronous standby: a failover may lose the last commits',
    );
  }
  if (!snapshot.etcd.known) return say('Unknown', 'Unknown', 'etcd cannot be asked who confirms commits');
  if (traits.everReady && !traits.leaderReady) {
    return say(
      'Unknown',
      'NoPrimary',
      'No primary takes writes at the moment, so nothing is to be confirmed',
    );
  }
  const problem = traits.leader?.says?.syncProblem;
  if (traits.confirming < traits.wantedConfirming) {
    const missing = `${traits.confirming} of ${traits.wantedConfirming} synchronous standbys`;
    return spec.durability === 'required'
      ? say('False', 'WaitingForStandby', problem?.message ?? `${missing}: commits wait until there are more`)
      : say('False', 'DegradedToAsync', problem?.message ?? `${missing}: commits do not wait for more`);
  }
  // Its name alone confirms nothing.
  const absent = members.filter((member) => member.isSync && !member.isLeader && !member.healthy);
  if (absent.length > 0) {
    return say(
      'False',
      'WaitingForStandby',
      `${absent.map(({ name }) => name).join(', ')} must confirm commits and does not stream: they wait until it does, or until another standby has taken its place`,
    );
  }
  const leaderNode = traits.leader?.pod?.spec?.nodeName;
  const beside = members.filter(
    (member) =>
      member.isSync &&
      !member.isLeader &&
      leaderNode !== undefined &&
      member.pod?.spec?.nodeName === leaderNode,
  );
  if (beside.length > 0 && beside.length === traits.confirming) {
    return say(
      'True',
      'SyncOnSameNode',
      `${beside.map(({ name }) => name).join(', ')} confirm commits from the primary's own node ${leaderNode}: if that node is lost, acknowledged commits may be lost with it`,
    );
  }
  const zones = snapshot.etcd.value.view.config?.value.zones ?? {};
  const zoneOf = (member: Member | undefined) => zones[member?.pod?.spec?.nodeName ?? ''];
  const home = zoneOf(traits.leader);
  const others = new Set(Object.values(zones).filter((zone) => zone !== home));
  const near = members.filter(
    (member) => member.isSync && !member.isLeader && home !== undefined && zoneOf(member) === home,
  );
  if (near.length > 0 && near.length === traits.confirming && others.size > 0) {
    return say(
      'True',
      'SyncInSameZone',
      `${near.map(({ name }) => name).join(', ')} confirm commits from the primary's own zone ${home}: if that zone is lost, acknowledged commits may be lost with it. There are instances in ${[...others].join(', ')}, none of which streams and may be chosen`,
    );
  }
  if (spec.durability === 'required' && spec.replicas.asynchronous === 0) {
    return say(
      'True',
      'NoSpareForSync',
      'Every standby is synchronous: when one fails, commits wait until it is back. Add an asynchronous one (spec.replicas.asynchronous)',
    );
  }
  return say('True', 'InSync', `${traits.confirming} synchronous standbys confirm every commit`);
}

function etcdCondition({ snapshot, accepted, situation }: StatusInput): NewCondition {
  const type = 'EtcdReachable';
  if (!snapshot.etcd.known) {
    const { reason, message } = snapshot.etcd;
    return {
      type,
      status: 'False',
      reason,
      message: `${message}. Nothing is changed until etcd answers. A primary that cannot reach it either serves on while all who could take its place promise not to, else it stops within ${accepted.spec.failover.ttlSeconds} s; nobody can take over until etcd is back`,
    };
  }
  if (situation === 'lost') {
    return {
      type,
      status: 'False',
      reason: 'EtcdStateLost',
      message: 'etcd answers, but holds no state of this cluster',
    };
  }
  if (situation === 'stale') {
    const { leader, members } = snapshot.etcd.value.view;
    const term = Math.max(knownTerm(snapshot), promotedTerm(snapshot));
    const said =
      leader === undefined
        ? 'does not know who led'
        : `says that ${leader.value.instance} leads term ${leader.value.term}`;
    const why =
      term > (leader?.value.term ?? 0)
        ? `while there has been a term ${term}: it was restored from an old copy, or changed by hand`
        : `which its agent denies: ${members.get(leader?.value.instance ?? '')?.value.problem?.message}`;
    return { type, status: 'False', reason: 'EtcdStateStale', message: `etcd answers, but ${said}, ${why}` };
  }
  if (snapshot.etcd.value.noSpace === true) {
    return {
      type,
      status: 'False',
      reason: 'EtcdNoSpace',
      message: `etcd answers, but takes no writes: its database has been full (alarm NOSPACE). Primaries that cannot renew their heartbeat stop within ${accepted.spec.failover.ttlSeconds} s. docs/etcd.md, "NOSPACE", says how to make room and lift the alarm`,
    };
  }
  return { type, status: 'True', reason: 'EtcdHealthy', message: 'etcd answers' };
}

function volumesCondition({ members = [] }: StatusInput): NewCondition | undefined {
  const claims = members.flatMap(({ claim }) => claim ?? []);
  if (claims.length === 0) return undefined;
  const type = 'VolumesBound';
  const reported = members
    .flatMap(({ instance }) => instance.status?.conditions ?? [])
    .find((each) => each.type === type && each.status === 'False' && each.reason !== 'VolumeNotBound');
  if (reported !== undefined) {
    return {
      type,
      status: 'False',
      reason: reported.reason as NewCondition['reason'],
      message: reported.message,
    };
  }
  const unbound = claims
    .filter((claim) => claim.status?.phase !== 'Bound')
    .map((claim) => claim.metadata.name);
  if (unbound.length > 0) {
    return { type, status: 'False', reason: 'VolumeNotBound', message: `Not bound: ${unbound.join(', ')}` };
  }
  const growing = claims.filter((claim) => !isGrown(claim)).map((claim) => claim.metadata.name);
  if (growing.length > 0) {
    return { type, status: 'False', reason: 'Resizing', message: `Growing: ${growing.join(', ')}` };
  }
  return { type, status: 'True', reason: 'AllBound', message: 'Every volume is bound' };
}

function slotsCondition({ snapshot, members = [] }: StatusInput): NewCondition | undefined {
  if (!snapshot.etcd.known) return undefined;
  const type = 'SlotsHealthy';
  const problems = members.flatMap(({ name, says }) =>
    says?.slotProblem === undefined ? [] : [{ name, ...says.slotProblem }],
  );
  if (problems.length === 0)
    return {
      type,
      status: 'True',
      reason: 'SlotsInOrder',
      message: 'No slot holds much WAL or has lost any',
    };
  const lost = problems.some(({ reason }) => reason === 'SlotLost');
  const message = problems.map((each) => `${each.name}: ${each.message}`).join('; ');
  return { type, status: 'False', reason: lost ? 'SlotLost' : 'SlotHoldsWal', message };
}

function settingsCondition({
  snapshot,
  members = [],
  passing = false,
}: StatusInput): NewCondition | undefined {
  if (!snapshot.etcd.known) return undefined;
  const config = snapshot.etcd.value.view.config?.value;
  if (config === undefined) return undefined;
  const type = 'SettingsApplied';
  for (const { name, says } of members) {
    const { reason } = says?.problem ?? {};
    if (reason === 'UnknownParameter' || reason === 'SettingOverridden') {
      return { type, status: 'False', reason, message: `${name}: ${says?.problem?.message ?? ''}` };
    }
  }
  const pending = members.filter(({ says }) => (says?.pendingRestart?.settings.length ?? 0) > 0);
  if (pending.length > 0) {
    return {
      type,
      status: 'False',
      reason: 'RestartPending',
      message: pending
        .map(({ name, says }) => `${name}: ${says?.pendingRestart?.settings.join(', ')}`)
        .join('; '),
    };
  }
  if (passing) {
    return {
      type,
      status: 'Unknown',
      reason: 'Unknown',
      message: 'The change is on its way to the instances',
    };
  }
  const behind = members.filter(({ says }) => says?.configGeneration !== config.generation);
  if (behind.length > 0) {
    return {
      type,
      status: 'Unknown',
      reason: 'Unknown',
      message: `Not yet known of ${behind.map(({ name }) => name).join(', ')}`,
    };
  }
  return { type, status: 'True', reason: 'AllApplied', message: 'Every setting is in force' };
}
