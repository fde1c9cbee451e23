import {
  appSecretName,
  caKey,
  caSecretName,
  finalizer,
  instanceName,
  leaderEndpointSliceName,
  readWriteServiceName,
  replicationTlsSecretName,
  serverTlsSecretName,
  tlsKey,
} from '../../api/names.ts';
import { instanceCount, type PgClusterStatus } from '../../api/pgcluster.ts';
import type { PgInstance } from '../../api/pginstance.ts';
import { type KubeObject, resources, type Service } from '../../kube/index.ts';
import { type Action, applied } from '../action.ts';
import { operatorAnnotation } from '../annotations.ts';
import { adopt, adoptionDecision, forgetDecision, forgetNotes } from './adoption.ts';
import { agentsPassedOn, askedFailover, askedReclone, askedSwitchover, asksForAgents } from './asked.ts';
import { planDeletion } from './deletion.ts';
import { agentAccess } from './desired/access.ts';
import { haConfig, sameConfig } from './desired/config.ts';
import { disruptionBudget } from './desired/disruption-budget.ts';
import { pgInstance } from './desired/instances.ts';
import { verifierOf } from './desired/password.ts';
import { appSecret, authoritySecret, read, tlsNeeds, whyIssue } from './desired/secrets.ts';
import { leaderSlice, services } from './desired/services.ts';
import { attach, detach } from './detached.ts';
import { judge } from './judgement.ts';
import { type Member, membersOf, volumesOf } from './members.ts';
import { pauseFor, pauseLeftMs } from './pause.ts';
import { isReplaced, planReplacement, type Replacement, type ReplacementStep } from './replacement.ts';
import { nextStep, type Step, settingsOf } from './rollout.ts';
import { chooseRemoval, mayDelete, ordinalsToAdd, type Removal } from './scale.ts';
import { isUndecided, overdueMs, type Situation, situationOf } from './situation.ts';
import { type AcceptedCluster, type ClusterSnapshot, secretOf, sliceOf } from './snapshot.ts';
import { refusedStatus, statusOf } from './status.ts';
import { staleEndpoints } from './traffic.ts';
import { zonesFor } from './zones.ts';

export interface Plan {
  readonly actions: readonly Action[];
  /** Undefined: leave the status as it is. */
  readonly status: PgClusterStatus | undefined;
  /** Look again after this long, ms, though nothing may have changed. */
  readonly requeueAfterMs?: number | undefined;
}

/** A switchover that was asked for is given this long before another one is. */
const switchoverPatienceMs = 60_000;
/** A new leader has this long to write itself into the slice before the operator takes the old one off: no race. */
const stalePatienceMs = 5_000;
/** How often an instance is restarted for the same settings. */
const maxRestarts = 2;

/** Compares what is wanted with what is there. Pure: the same snapshot always gives the same plan. */
export function planCluster(snapshot: ClusterSnapshot): Plan {
  const { cluster } = snapshot;
  if (cluster.metadata.deletionTimestamp !== undefined) return planDeletion(snapshot);
  const judgement = judge(snapshot);
  const { spec } = judgement;
  if (spec === undefined) return { actions: [], status: refusedStatus(snapshot, judgement) };

  const identity = clusterIdOf(snapshot);
  if (identity.kind === 'ambiguous') {
    return { actions: [], status: refusedStatus(snapshot, judgement, identity.ids) };
  }
  const accepted: AcceptedCluster = {
    metadata: cluster.metadata,
    apiVersion: cluster.apiVersion,
    kind: cluster.kind,
    spec,
    status: cluster.status,
    clusterId: identity.id,
  };
  // Everything else carries the id: it is recorded before anything is made.
  if (identity.kind !== 'recorded') {
    return { actions: [], status: statusOf({ snapshot, accepted, judgement, situation: 'unknown' }) };
  }
  if (cluster.metadata.finalizers?.includes(finalizer) !== true) {
    return {
      actions: [{ do: 'add-finalizer', because: 'the volumes are dealt with before the PgCluster vanishes' }],
      status: undefined,
      requeueAfterMs: 0,
    };
  }

  const situation = situationOf(snapshot);
  const members = membersOf(snapshot);
  const asked = instanceCount(spec.replicas);
  const replacement = replacementOf(snapshot, accepted, situation, members, asked);
  // The lost one does not count while another is made in its place.
  const count = asked + (replacement.replaced === undefined ? 0 : 1);
  const view = snapshot.etcd.known ? snapshot.etcd.value.view : undefined;
  const leaderKnown = members.some((member) => member.isLeader);
  const { step: replacing } = replacement;
  const removal: Removal =
    situation !== 'running'
      ? { kept: members, leaving: [], waiting: 0 }
      : replacing.do === 'remove'
        ? {
            kept: members.filter((each) => each !== replacing.member),
            leaving: [replacing.member],
            waiting: 0,
          }
        : chooseRemoval(members, count, leaderKnown, view?.config?.value, spec.instances);
  const names = members.map((member) => member.name);
  const step = stepOf(snapshot, accepted, removal);
  const wishes = [...askedFailover(snapshot), ...askedReclone(snapshot), ...askedSwitchover(snapshot)];
  const decision = isUndecided(situation) ? adoptionDecision(snapshot) : undefined;

  const foundation = [
    ...secrets(snapshot, accepted, names),
    ...network(snapshot, accepted),
    ...agentAccess(accepted, names).flatMap((object) =>
      applied(object, found(snapshot, object), 'the agents need it'),
    ),
    ...budget(snapshot, accepted),
  ];
  const ready = tlsReady(snapshot, accepted);
  const actions: Action[] = [
    ...foundation,
    ...(situation === 'fresh' || situation === 'running'
      ? [
          ...etcd(snapshot, accepted, removal, count),
          ...(ready ? instances(snapshot, accepted, removal, situation, count) : []),
          ...removals(snapshot, accepted, removal),
          ...markReplaced(snapshot, replacing),
          ...(wishes.length > 0 ? wishes : carryOut(snapshot, step)),
        ]
      : []),
    ...(isUndecided(situation) ? hear(snapshot) : []),
    ...(decision === undefined || !('instance' in decision)
      ? []
      : situation === 'stale'
        ? [{ do: 'clear-state', because: decision.because } as const]
        : adopt(snapshot, accepted, decision)),
    ...(situation === 'running'
      ? [...agentsPassedOn(snapshot), ...forgetDecision(snapshot), ...forgetNotes(members)]
      : []),
    ...clearSlice(snapshot, accepted),
  ];
  return {
    actions,
    status: statusOf({
      snapshot,
      accepted,
      judgement,
      situation,
      members,
      removal,
      step,
      replacement,
      passing: actions.some(passesOn),
      authorityLost: isAuthorityLost(snapshot),
    }),
    requeueAfterMs: earliest(
      lookAgain(snapshot, step, removal),
      pauseLeftMs(spec, snapshot.now),
      replacement.againInMs,
    ),
  };
}

function replacementOf(
  snapshot: ClusterSnapshot,
  { spec }: AcceptedCluster,
  situation: Situation,
  members: readonly Member[],
  count: number,
): Replacement {
  const { ttlSeconds, replaceLostInstanceAfter: after } = spec.failover;
  const leaderPatienceMs = ttlSeconds * 1000 + overdueMs;
  const paused = pauseLeftMs(spec, snapshot.now) !== undefined;
  const replacement = planReplacement({ snapshot, members, count, after, leaderPatienceMs, paused });
  return situation === 'running' ? replacement : { ...replacement, step: { do: 'nothing' } };
}

/** An etcd that was made anew does not let the agents in: without their words nobody can choose. */
function hear({ etcd }: ClusterSnapshot): Action[] {
  return !etcd.known || etcd.value.granted
    ? []
    : [{ do: 'grant-etcd', because: 'the agents are to say how far their data go' }];
}

/** Whether an action carries a changed spec to the instances, which then takes a while to take effect. */
const passesOn = (action: Action): boolean =>
  action.do === 'write-config' || (action.do === 'apply' && action.object.kind === 'PgInstance');

/** The id of the cluster: the recorded one, that of volumes which an earlier PgCluster left, or a new one. */
export function clusterIdOf(
  snapshot: ClusterSnapshot,
):
  | { readonly kind: 'recorded' | 'adopted' | 'new'; readonly id: string }
  | { readonly kind: 'ambiguous'; readonly ids: readonly string[] } {
  const recorded = snapshot.cluster.status?.clusterId;
  if (recorded !== undefined) return { kind: 'recorded', id: recorded };
  const ids = [...new Set(volumesOf(snapshot).flatMap(({ clusterId }) => clusterId ?? []))].sort();
  const [id, ...others] = ids;
  // A label is anybody's words: an id that Koschei cannot have made, such as a name of etcd's own users, is not taken up.
  if (others.length > 0 || (id !== undefined && !/^[a-z0-9]{16}$/.test(id)))
    return { kind: 'ambiguous', ids };
  return id === undefined ? { kind: 'new', id: snapshot.random.clusterId } : { kind: 'adopted', id };
}

const found = (snapshot: ClusterSnapshot, { kind, metadata }: KubeObject): KubeObject | undefined =>
  snapshot.objects.get(`${kind}/${metadata.name}`);

function secrets(snapshot: ClusterSnapshot, cluster: AcceptedCluster, names: readonly string[]): Action[] {
  const { name } = cluster.metadata;
  const authority = secretOf(snapshot, caSecretName(name));
  const lost = isAuthorityLost(snapshot);
  // What the pods go by is the authority still, although nothing can be issued by it.
  const certificate = lost
    ? read(secretOf(snapshot, serverTlsSecretName(name)), tlsKey.ca)
    : read(authority, caKey.cert);
  if (!lost && certificate === undefined) {
    return [
      {
        do: 'create-authority',
        secret: authoritySecret(cluster),
        commonName: `Koschei ${cluster.metadata.namespace}/${name}`.slice(0, 64),
        because: 'the cluster has no certificate authority yet',
      },
    ];
  }
  const credentials = secretOf(snapshot, appSecretName(name));
  const password = read(credentials, 'password');
  const app = appSecret(cluster, password ?? snapshot.random.password, names, certificate);
  return [
    ...(credentials === undefined
      ? [{ do: 'create', object: app, because: 'there are no credentials of the application' } as const]
      : applied(app, credentials, 'the addresses of the cluster, or its credentials, have changed')),
    ...tlsNeeds(cluster).flatMap(({ secret, order }): Action[] => {
      const issuer = order.authority === 'etcd' ? snapshot.etcdAuthority : lost ? undefined : certificate;
      if (issuer === undefined) return [];
      const why = whyIssue(secretOf(snapshot, secret.metadata.name), order, issuer, snapshot.now);
      return why === undefined
        ? []
        : [{ do: 'issue', secret, order, because: `a certificate in ${secret.metadata.name}: ${why}` }];
    }),
  ];
}

/**
 * Whether the Secret of the cluster's authority is gone or incomplete although instances work with its certificates, or
 * have done. A new authority would lock out everybody who goes by the old one, so that is waited for. A PgCluster that
 * adopts volumes whose Secrets are all gone has nobody to lock out.
 */
function isAuthorityLost(snapshot: ClusterSnapshot): boolean {
  const { name } = snapshot.cluster.metadata;
  const authority = secretOf(snapshot, caSecretName(name));
  if (read(authority, caKey.cert) !== undefined && read(authority, caKey.key) !== undefined) return false;
  return (
    authority !== undefined ||
    snapshot.cluster.status?.term !== undefined ||
    [serverTlsSecretName, replicationTlsSecretName].some(
      (nameOf) => secretOf(snapshot, nameOf(name)) !== undefined,
    )
  );
}

/** Whether every Secret that pods mount is there; a pod that waits for one would start late. */
function tlsReady(snapshot: ClusterSnapshot, cluster: AcceptedCluster): boolean {
  return (
    secretOf(snapshot, appSecretName(cluster.metadata.name)) !== undefined &&
    tlsNeeds(cluster).every(({ secret }) => secretOf(snapshot, secret.metadata.name) !== undefined)
  );
}

function network(snapshot: ClusterSnapshot, cluster: AcceptedCluster): Action[] {
  const { name } = cluster.metadata;
  const slice = sliceOf(snapshot);
  const readWrite = snapshot.objects.get(`Service/${readWriteServiceName(name)}`);
  return [
    ...services(cluster).flatMap((object) =>
      applied(object, found(snapshot, object), 'clients and instances find each other by it'),
    ),
    ...(slice !== undefined || readWrite === undefined
      ? []
      : [
          {
            do: 'create',
            object: leaderSlice(cluster, readWrite as Service, snapshot.apis),
            because: 'the leader writes itself into it',
          } as const,
        ]),
  ];
}

function budget(snapshot: ClusterSnapshot, cluster: AcceptedCluster): Action[] {
  const object = disruptionBudget(cluster, snapshot.apis);
  return object === undefined
    ? []
    : applied(object, found(snapshot, object), 'drains take one instance at a time');
}

/** The cluster's own user in etcd, and the configuration that its agents go by. */
function etcd(
  snapshot: ClusterSnapshot,
  cluster: AcceptedCluster,
  removal: Removal,
  count: number,
): Action[] {
  if (!snapshot.etcd.known) return [];
  const { view, granted } = snapshot.etcd.value;
  const grant: Action[] = granted
    ? []
    : [{ do: 'grant-etcd', because: 'the agents have no right to the state of the cluster yet' }];
  // A value that cannot be read was written by a newer version: it is left alone.
  if (view.invalid.some(({ key }) => key.endsWith('/config'))) return grant;
  const name = cluster.metadata.name;
  const coming = ordinalsToAdd(name, count, removal.kept, taken(snapshot), ownVolumes(snapshot, cluster));
  const members = [
    ...removal.kept.map((member) => member.name),
    ...(removal.leaving.length > 0 ? [] : coming.map((ordinal) => instanceName(name, ordinal))),
  ];
  const present = view.config;
  const verifier = verifierOf(snapshot);
  // It comes within a moment, and the first configuration is complete then.
  if (present === undefined && verifier === undefined) return grant;
  const wanted = haConfig(cluster.spec, members, {
    appPasswordVerifier: verifier,
    zones: zonesFor(snapshot, present?.value),
    paused: pauseFor(cluster.spec, snapshot.now, present?.value),
  });
  if (present !== undefined && sameConfig(present.value, wanted)) return grant;
  return [
    ...grant,
    {
      do: 'write-config',
      value: { generation: (present?.value.generation ?? 0) + 1, ...wanted },
      expect: present?.revision ?? '0',
      because:
        present === undefined ? 'the agents have no configuration yet' : 'the configuration has changed',
    },
  ];
}

const taken = (snapshot: ClusterSnapshot): Set<string> =>
  new Set(snapshot.instances.map((instance) => instance.metadata.name));

const ownVolumes = (snapshot: ClusterSnapshot, cluster: AcceptedCluster) =>
  volumesOf(snapshot).filter((volume) => volume.clusterId === cluster.clusterId);

function instances(
  snapshot: ClusterSnapshot,
  cluster: AcceptedCluster,
  removal: Removal,
  situation: 'fresh' | 'running',
  count: number,
): Action[] {
  const { name } = cluster.metadata;
  const { installation } = snapshot;
  const members = [...removal.kept, ...removal.leaving];
  const volumes = ownVolumes(snapshot, cluster);
  const added = ordinalsToAdd(name, count, members, taken(snapshot), volumes);
  const upgrade = situation === 'running' && asksForAgents(snapshot);
  let founder = situation === 'fresh' && !snapshot.instances.some((each) => each.spec.initMode === 'initdb');
  return [
    ...members.flatMap(({ instance }) =>
      applied(
        pgInstance(
          cluster,
          installation,
          instance.spec.ordinal,
          upgrade ? withAgent(instance, installation.agentImage) : instance,
          instance.spec.initMode,
        ),
        instance as KubeObject,
        upgrade ? 'a person asks for the agents to be upgraded' : 'the spec of the cluster has changed',
      ),
    ),
    ...added.flatMap((ordinal): Action[] => {
      const mode = founder ? 'initdb' : 'clone';
      founder = false;
      const object = pgInstance(cluster, installation, ordinal, undefined, mode);
      const kept = volumes.find((volume) => volume.ordinal === ordinal);
      return [
        ...(kept?.released === true ? [release(kept.claim, null, 'its volume is used again')] : []),
        {
          do: 'apply',
          object,
          because:
            mode === 'initdb'
              ? 'the cluster begins with it'
              : kept?.initialized === true
                ? 'its volume is there'
                : 'the spec asks for another standby',
        },
      ];
    }),
  ];
}

const withAgent = (instance: PgInstance, agentImage: string): PgInstance => ({
  ...instance,
  spec: { ...instance.spec, agentImage },
});

const release = (claim: KubeObject, at: string | null, because: string): Action => ({
  do: 'annotate',
  resource: resources.persistentVolumeClaims,
  ref: claim.metadata,
  annotations: { [operatorAnnotation.released]: at },
  because,
});

function removals(snapshot: ClusterSnapshot, cluster: AcceptedCluster, removal: Removal): Action[] {
  if (!snapshot.etcd.known) return [];
  const config = snapshot.etcd.value.view.config?.value;
  if (!mayDelete(removal, [...removal.kept, ...removal.leaving], config)) return [];
  return removal.leaving.flatMap((member): Action[] => {
    const { name, instance, claim } = member;
    const lost = isReplaced(member);
    const mark = lost ? operatorAnnotation.detached : operatorAnnotation.released;
    return [
      ...(claim === undefined || claim.metadata.annotations?.[mark] !== undefined
        ? []
        : lost
          ? detach(snapshot, member)
          : [release(claim, snapshot.now.toISOString(), 'its instance is removed; the data stay')]),
      {
        do: 'delete',
        resource: resources.pgInstances,
        ref: { namespace: cluster.metadata.namespace, name },
        uid: instance.metadata.uid,
        because: lost
          ? 'its node is lost, and another instance has taken its place'
          : 'the spec asks for fewer standbys, and this one is missed least',
      },
    ];
  });
}

/** Notes on the instance that its replacement begins, or that it need not be replaced after all. */
function markReplaced(snapshot: ClusterSnapshot, step: ReplacementStep): Action[] {
  if (step.do !== 'begin' && step.do !== 'cancel') return [];
  const { name, instance } = step.member;
  const begins = step.do === 'begin';
  return [
    // Its removal may have been begun.
    ...(begins ? [] : attach(snapshot, name, 'its instance goes on')),
    {
      do: 'annotate',
      resource: resources.pgInstances,
      ref: { namespace: instance.metadata.namespace, name },
      annotations: { [operatorAnnotation.replacedSince]: begins ? snapshot.now.toISOString() : null },
      because: step.because,
      event: {
        type: begins ? 'Warning' : 'Normal',
        reason: begins ? 'InstanceReplaced' : 'ReplacementCancelled',
        message: begins
          ? `${name} is replaced by another instance: ${step.because}. Its volume is kept`
          : `${name} is not replaced: ${step.because}`,
      },
    },
  ];
}

const restartKey = (name: string, settings: readonly string[], generation: number | undefined): string =>
  `${name} ${[...settings].sort().join(',')} ${generation ?? 0}`;

function stepOf(snapshot: ClusterSnapshot, cluster: AcceptedCluster, removal: Removal): Step {
  if (!snapshot.etcd.known) return { do: 'nothing' };
  const { view } = snapshot.etcd.value;
  const { requested, restarts } = snapshot.memory;
  return nextStep({
    members: removal.kept,
    synchronous: cluster.spec.replicas.synchronous,
    shrinking: removal.leaving.length + removal.waiting > 0,
    switchingOver:
      view.request !== undefined ||
      (requested !== undefined &&
        requested.msAgo < switchoverPatienceMs &&
        requested.term === view.leader?.value.term),
    generation: view.config?.value.generation,
    ordered: [...view.commands.keys()].filter((name) => removal.kept.some((member) => member.name === name)),
    paused: pauseLeftMs(cluster.spec, snapshot.now) !== undefined,
    barred: (cluster.spec.instances ?? []).flatMap(({ name, noFailover, applyDelaySeconds }) =>
      noFailover || applyDelaySeconds !== undefined ? [name] : [],
    ),
    exhausted: removal.kept
      .filter((member) => {
        const key = restartKey(member.name, settingsOf(member), view.config?.value.generation);
        return (restarts.get(key) ?? 0) >= maxRestarts;
      })
      .map((member) => member.name),
  });
}

/** The key under which an executed restart is remembered. */
export function restartMemory(snapshot: ClusterSnapshot, instance: string): string {
  const view = snapshot.etcd.known ? snapshot.etcd.value.view : undefined;
  const settings = view?.members.get(instance)?.value.pendingRestart?.settings ?? [];
  return restartKey(instance, settings, view?.config?.value.generation);
}

function carryOut(snapshot: ClusterSnapshot, step: Step): Action[] {
  const { cluster, random } = snapshot;
  switch (step.do) {
    case 'nothing':
    case 'wait':
      return [];
    case 'replace-pod': {
      const { pod } = step.member;
      if (pod?.metadata.uid === undefined) return [];
      const { namespace } = cluster.metadata;
      return [
        {
          do: 'delete',
          resource: resources.pods,
          ref: { namespace, name: pod.metadata.name },
          uid: pod.metadata.uid,
          because: step.because,
        },
      ];
    }
    case 'restart':
      return [
        {
          do: 'command',
          instance: step.member.name,
          value: { id: random.requestId, do: 'restart' },
          because: step.because,
        },
      ];
    case 'switchover':
      return [
        {
          do: 'request',
          value: { id: random.requestId, kind: 'switchover', to: step.to.name, by: 'koschei-operator' },
          because: step.because,
        },
      ];
  }
}

function clearSlice(snapshot: ClusterSnapshot, cluster: AcceptedCluster): Action[] {
  const { name, namespace } = cluster.metadata;
  const slice = sliceOf(snapshot);
  const leader = snapshot.etcd.known ? snapshot.etcd.value.view.leader?.value : undefined;
  const overdue = (snapshot.memory.staleForMs ?? 0) >= stalePatienceMs;
  const stale = slice === undefined || !overdue ? [] : staleEndpoints(slice, snapshot.pods, leader);
  const [first] = stale;
  if (first === undefined) return [];
  return [
    {
      do: 'clear-slice',
      ref: { namespace, name: leaderEndpointSliceName(name) },
      because: `traffic went nowhere: ${first.why}`,
    },
  ];
}

const earliest = (...times: (number | undefined)[]): number | undefined => {
  const known = times.flatMap((time) => time ?? []);
  return known.length === 0 ? undefined : Math.min(...known);
};

/** When to look again without an event: while something is under way whose end nothing tells. */
function lookAgain(snapshot: ClusterSnapshot, step: Step, removal: Removal): number | undefined {
  if (!snapshot.etcd.known) return 5_000;
  if (step.do === 'wait' || removal.leaving.length > 0 || removal.waiting > 0) return 5_000;
  return snapshot.memory.staleForMs === undefined ? undefined : stalePatienceMs;
}
