import { label } from '../api/names.ts';
import {
  apiVersionOf,
  atVersion,
  isAlreadyExists,
  type KubeClient,
  type KubeObject,
  type Resource,
  resources,
  withAppliedHash,
} from '../kube/index.ts';
import type { Action } from './action.ts';

/** An object of a name that is needed exists, and is somebody else's. */
export class NameTakenError extends Error {
  override readonly name = 'NameTakenError';
}

/** An action that the API refused, with what it was about. */
export class ActionError extends Error {
  override readonly name = 'ActionError';
  /** `Kind/name`. */
  readonly object: string;
  constructor(object: string, cause: unknown) {
    super(cause instanceof Error ? cause.message : String(cause), { cause });
    this.object = object;
  }
}

/** Says that what was read is out of date: the pass ends, and the next one looks again. */
export type Outcome = 'done' | 'conflict';

/** The actions that concern nothing but objects in the Kubernetes API. */
export type KubeAction = Extract<Action, { do: 'apply' | 'create' | 'annotate' | 'delete' }>;

const kinds: ReadonlyMap<string, Resource> = new Map(
  Object.values(resources).map((resource: Resource) => [resource.kind, resource]),
);

/** The resource of an object that is about to be written. */
export function resourceOf(object: KubeObject): Resource {
  const resource = kinds.get(object.kind);
  if (resource === undefined) throw new TypeError(`${object.kind} is not a kind that Koschei writes`);
  return apiVersionOf(resource) === object.apiVersion ? resource : atVersion(resource, object.apiVersion);
}

/**
 * Executes one action on the Kubernetes API. Nothing that belongs to others is ever taken over.
 * Throws `NameTakenError` and the client's errors.
 * @param found the object as the cache has it
 */
export async function executeOnKube(
  client: KubeClient,
  action: KubeAction,
  found: KubeObject | undefined,
  signal: AbortSignal,
): Promise<Outcome> {
  switch (action.do) {
    case 'apply': {
      const resource = resourceOf(action.object);
      if (found === undefined) await refuseForeign(client, resource, action.object, signal);
      await client.apply(resource, withAppliedHash(action.object), { force: true, signal });
      return 'done';
    }
    case 'create': {
      const resource = resourceOf(action.object);
      try {
        await client.create(resource, withAppliedHash(action.object), { signal });
        return 'done';
      } catch (error) {
        if (!isAlreadyExists(error)) throw error;
        await refuseForeign(client, resource, action.object, signal);
        return 'conflict';
      }
    }
    case 'annotate':
      await client.mergePatch(
        action.resource,
        action.ref,
        { metadata: { annotations: action.annotations } },
        { signal },
      );
      return 'done';
    case 'delete':
      await client.remove(action.resource, action.ref, { uid: action.uid, signal });
      return 'done';
  }
}

/** Caches hold only what carries our labels: what is not in them may still exist. */
async function refuseForeign(
  client: KubeClient,
  resource: Resource,
  object: KubeObject,
  signal: AbortSignal,
): Promise<void> {
  const { name } = object.metadata;
  const live = await client.find(resource, object.metadata, { signal });
  const ours = (each: KubeObject) => each.metadata.labels?.[label.cluster];
  if (live === undefined || (ours(live) !== undefined && ours(live) === ours(object))) return;
  throw new NameTakenError(
    `expected no ${resource.kind} ${name} but Koschei's own, found one that carries no label ${label.cluster}=${ours(object)}; rename or remove it`,
  );
}

/** What an action is about, as `Kind/name`. */
export function subjectOf(action: Action): string {
  switch (action.do) {
    case 'apply':
    case 'create':
      return `${action.object.kind}/${action.object.metadata.name}`;
    case 'create-authority':
    case 'issue':
      return `Secret/${action.secret.metadata.name}`;
    case 'annotate':
    case 'delete':
      return `${action.resource.kind}/${action.ref.name}`;
    case 'clear-slice':
      return `EndpointSlice/${action.ref.name}`;
    default:
      return 'etcd';
  }
}
