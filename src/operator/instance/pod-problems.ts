import { z } from 'zod';
import type { ConditionReason } from '../../api/conditions.ts';
import type { Pod } from '../../kube/index.ts';
import type { NodeFacts } from './snapshot.ts';

/** Why a pod does not run, in words of ours. */
export interface Problem {
  readonly reason: ConditionReason;
  readonly message: string;
}

const imageReasons = new Set(['ErrImagePull', 'ImagePullBackOff', 'InvalidImageName', 'ErrImageNeverPull']);

/** What the agent writes as the reason of its end, for reasons that people can act on. */
const terminationMessage = z.object({ reason: z.string(), message: z.string() });
const agentReasons: Readonly<Record<string, ConditionReason>> = {
  NoPostgresInImage: 'NoPostgresInImage',
  NoPostgres: 'NoPostgresInImage',
  WrongPostgresVersion: 'NoPostgresInImage',
  MuslImage: 'NoPostgresInImage',
  DiskFull: 'DiskFull',
  SecretMissing: 'SecretMissing',
};

/** Why the pod waits instead of running; undefined when it does not. */
export function waitingProblem(pod: Pod, node: NodeFacts | undefined): Problem | undefined {
  return scheduling(pod, node) ?? startingContainers(pod);
}

function scheduling(pod: Pod, node: NodeFacts | undefined): Problem | undefined {
  if (node !== undefined && node.state !== 'ready') {
    return { reason: 'WaitingForNode', message: waitingForNode(pod, node) };
  }
  const scheduled = pod.status?.conditions?.find((each) => each.type === 'PodScheduled');
  if (scheduled?.status !== 'False') return undefined;
  const text = scheduled.message ?? scheduled.reason ?? 'the scheduler gives no reason';
  if (/persistentvolumeclaim|PersistentVolumeClaims/.test(text)) {
    return {
      reason: 'VolumeNotBound',
      message: `${text}. Check the StorageClass (spec.storage.storageClassName) and that it can provide volumes of this size`,
    };
  }
  return {
    reason: 'WaitingForScheduling',
    message: `No node takes the pod: ${text}. Check spec.resources, spec.placement and the free space on the nodes`,
  };
}

/** What to do about a node that is away: "A node lost for good" of docs/operations.md in short. */
function waitingForNode(pod: Pod, node: NodeFacts): string {
  const gone = node.state === 'gone';
  const claims = (pod.spec?.volumes ?? []).flatMap((each) => each.persistentVolumeClaim?.claimName ?? []);
  const renew = `delete the claim${claims.length === 1 ? '' : 's'} ${claims.join(' and ')}`;
  return (
    `The volume is tied to the node ${node.name}, which ${gone ? 'does not exist any more' : 'is not ready'}. ` +
    'Bring the node back. If it is lost for good, and its machine certainly off, ' +
    `${gone ? renew : `delete the Node; then, if the volume is local to it, ${renew}`}: ` +
    'the instance is cloned on another node'
  );
}

function startingContainers(pod: Pod): Problem | undefined {
  const statuses = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])];
  for (const status of statuses) {
    const { waiting } = status.state ?? {};
    const reason = waiting?.reason ?? '';
    const detail = waiting?.message === undefined ? '' : `: ${waiting.message}`;
    if (imageReasons.has(reason)) {
      return {
        reason: 'ImagePullFailed',
        message: `The image ${status.image} cannot be pulled (${reason}${detail}). Correct the image or spec.imagePullSecrets`,
      };
    }
    if (reason === 'CreateContainerConfigError') {
      return {
        reason: 'SecretMissing',
        message: `The container ${status.name} cannot be set up${detail}`,
      };
    }
    if (reason === 'CreateContainerError' || reason === 'RunContainerError') {
      return {
        reason: 'NoPostgresInImage',
        message: `The container ${status.name} does not start${detail}. Is ${status.image} an image with Postgres, based on Debian?`,
      };
    }
    if (reason === 'CrashLoopBackOff') {
      return ended(status.lastState?.terminated, `the container ${status.name}`, 'CrashLooping');
    }
  }
  return undefined;
}

/** Why the last container of a failed init Job ended. */
export function initProblem(pods: readonly Pod[]): Problem | undefined {
  const newest = [...pods].sort((a, b) =>
    (a.metadata.creationTimestamp ?? '') < (b.metadata.creationTimestamp ?? '') ? 1 : -1,
  );
  for (const pod of newest) {
    for (const status of [
      ...(pod.status?.containerStatuses ?? []),
      ...(pod.status?.initContainerStatuses ?? []),
    ]) {
      const { terminated } = status.state ?? {};
      if (terminated !== undefined && terminated.exitCode !== 0) {
        return ended(terminated, `the ${status.name} container of ${pod.metadata.name}`, 'InitFailed');
      }
    }
  }
  return undefined;
}

type Terminated = NonNullable<
  NonNullable<NonNullable<NonNullable<Pod['status']>['containerStatuses']>[number]['state']>['terminated']
>;

function ended(terminated: Terminated | undefined, what: string, otherwise: ConditionReason): Problem {
  const text = terminated?.message?.trim() ?? '';
  const told = parseTermination(text);
  if (told !== undefined) {
    return { reason: agentReasons[told.reason] ?? otherwise, message: told.message };
  }
  const how = terminated === undefined ? '' : ` with code ${terminated.exitCode}`;
  if (
    terminated?.exitCode === 127 ||
    terminated?.reason === 'StartError' ||
    terminated?.reason === 'ContainerCannotRun'
  ) {
    return {
      reason: 'NoPostgresInImage',
      message: `${what} cannot run in this image (${text.slice(-500)}). Take an image with Postgres that is based on Debian (glibc)`,
    };
  }
  return { reason: otherwise, message: `${what} ended${how}: ${text.slice(-1_000) || 'see its log'}` };
}

function parseTermination(text: string): z.infer<typeof terminationMessage> | undefined {
  try {
    return terminationMessage.safeParse(JSON.parse(text)).data;
  } catch {
    return undefined;
  }
}
