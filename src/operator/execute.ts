import { label } from '../api/names.ts';
import {
  apiVersionOf,
  atVersion,
  isAlreadyExists,
  isConflict,
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
      if (found === undefined && (await exists(client, resource, action.object, signal))) return 'conflict';
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
        await exists(client, resource, action.object, signal);
        return 'conflict';
      }
    }
    case 'annotate':
      await client.mergePatch(
        action.resource,
        action.ref,
        {
          metadata: {
            annotations: action.annotations,
            ...(action.labels === undefined ? {} : { labels: action.labels }),
          },
        },
        { signal },
      );
      return 'done';
    case 'delete':
      await client.remove(action.resource, action.ref, { uid: action.uid, signal });
      return 'done';
  }
}

/**
 * Whether there is an object of ours that the cache is about to bring; caches hold only what carries our labels.
 * Throws `NameTakenError` when there is one that belongs to somebody else.
 */
async function exists(
  client: KubeClient,
  resource: Resource,
  object: KubeObject,
  signal: AbortSignal,
): Promise<boolean> {
  const live = await client.find(resource, object.metadata, { signal });
  if (live === undefined) return false;
  const ours = object.metadata.labels?.[label.cluster];
  if (live.metadata.labels?.[label.cluster] === ours) return true;
  throw new NameTakenError(
    `expected no ${resource.kind} ${object.metadata.name} but Koschei's own, found one that carries no label ${label.cluster}=${ours}; rename or remove it, or give it that label if it is this cluster's`,
  );
}

/** So many passes in a row may meet something newer than what they had read, because the caches are a little behind. */
const tolerableConflicts = 5;

/**
 * What an error that ended a pass means: a failure, which the status shows, or a conflict, after which the next pass just
 * looks again. Conflicts that go on are a failure, too.
 * @param conflicts passes in a row that ended in a conflict before this one
 */
export function judgeError(
  error: unknown,
  conflicts: number,
): { readonly conflicts: number; readonly failure: ActionError | undefined } {
  if (!(error instanceof ActionError)) return { conflicts: 0, failure: undefined };
  if (!isConflict(error.cause)) return { conflicts: 0, failure: error };
  if (conflicts < tolerableConflicts) return { conflicts: conflicts + 1, failure: undefined };
  const why = `${error.message} (${conflicts + 1} times in a row: another operator, or a person, may be changing it)`;
  return { conflicts: conflicts + 1, failure: new ActionError(error.object, new Error(why)) };
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
