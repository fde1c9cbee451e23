import { chmod, mkdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { buildZone, type EndpointSlice, type Service, type Zone } from './dns.ts';
import { serveDns } from './dns-server.ts';
import { Api, ApiError, type KubeObject, Mirror } from './mirror.ts';
import { type Action, type Claim, plan, type Volume, volumeFor } from './volumes.ts';

/*
 * What every node of the local cluster runs beside Kubernetes: the cluster's DNS for the pods on this node, and
 * local volumes on this node. Both stop and come back with the node.
 */

function required(name: string): string {
  const value = process.env[name];
  if (value === undefined || value === '') throw new Error(`The environment variable ${name} is missing.`);
  return value;
}

const node = required('NODE_NAME');
const volumeRoot = required('VOLUME_ROOT');
const api = new Api(required('API_SERVER'), required('CERTIFICATES'));

let zone: Zone | undefined;
const named = () => {
  if (services.synced && slices.synced) zone = buildZone(services.items(), slices.items());
};
const services = new Mirror<Service>(api, '/api/v1/services', named);
const slices = new Mirror<EndpointSlice>(api, '/apis/discovery.k8s.io/v1beta1/endpointslices', named);
serveDns(required('NODE_IP'), () => zone);

/** Actions whose result the mirrors do not show yet: each is done once per version of its object. */
const done = new Map<string, string>();
let planning: NodeJS.Timeout | undefined;
let busy = false;

function replan(delay = 0): void {
  clearTimeout(planning);
  planning = setTimeout(async () => {
    if (busy) return replan(50);
    if (!claims.synced || !volumes.synced) return;
    busy = true;
    let failed = false;
    for (const action of plan(node, claims.items(), volumes.items())) {
      const { metadata } = 'claim' in action ? action.claim : action.volume;
      const key = `${action.kind} ${metadata.uid}`;
      if (done.get(key) === metadata.resourceVersion) continue;
      try {
        await perform(action);
        done.set(key, metadata.resourceVersion);
        console.log(`${action.kind}: ${metadata.namespace ?? ''}/${metadata.name}`);
      } catch (error) {
        failed = true;
        console.log(`${action.kind} of ${metadata.name} failed, again in 1 s: ${String(error)}`);
      }
    }
    busy = false;
    if (failed) replan(1_000);
  }, delay);
}
const claims = new Mirror<Claim>(api, '/api/v1/persistentvolumeclaims', () => replan());
const volumes = new Mirror<Volume>(api, '/api/v1/persistentvolumes', () => replan());

async function perform(action: Action): Promise<void> {
  switch (action.kind) {
    case 'provision': {
      const { reclaimPolicy } = await api.call<KubeObject & { reclaimPolicy?: string }>(
        'GET',
        `/apis/storage.k8s.io/v1/storageclasses/${action.claim.spec.storageClassName}`,
      );
      const path = join(volumeRoot, action.volume);
      await mkdir(path, { recursive: true });
      // Like the root of a fresh file system: who is not root needs an fsGroup.
      await chmod(path, 0o755);
      const volume = volumeFor(node, action, path, reclaimPolicy ?? 'Delete');
      await api.call('POST', '/api/v1/persistentvolumes', volume).catch(unlessStatus(409));
      return;
    }
    case 'grow volume': {
      const capacity = { storage: action.size };
      await api.call('PATCH', `/api/v1/persistentvolumes/${action.volume.metadata.name}`, {
        spec: { capacity },
      });
      return;
    }
    case 'grow claim': {
      const { name, namespace } = action.claim.metadata;
      await api.call('PATCH', `/api/v1/namespaces/${namespace}/persistentvolumeclaims/${name}/status`, {
        status: { capacity: { storage: action.size } },
      });
      return;
    }
    case 'remove': {
      const { name } = action.volume.metadata;
      await rm(join(volumeRoot, name), { recursive: true, force: true });
      await api.call('DELETE', `/api/v1/persistentvolumes/${name}`).catch(unlessStatus(404));
      return;
    }
  }
}

function unlessStatus(expected: number): (error: unknown) => void {
  return (error) => {
    if (!(error instanceof ApiError && error.status === expected)) throw error;
  };
}
