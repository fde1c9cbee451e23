import { Agent, type Dispatcher, ProxyAgent, request } from 'undici';
import { z } from 'zod';
import { type Clock, deadline, systemClock } from './clock.ts';
import {
  type Connection,
  type Credentials,
  inClusterCredentials,
  type KubeconfigOptions,
  kubeconfigCredentials,
} from './credentials.ts';
import { ApiError, apiError, isGone, isNotFound, NoAnswerError, ProtocolError } from './errors.ts';
import { apiVersionOf, type Resource, resourcePath } from './resources.ts';
import type { KubeObject, ObjectList, ObjectRef, WatchEvent } from './types.ts';

export interface KubeClientOptions {
  readonly credentials: Credentials;
  /** Manager of server-side apply, and `fieldManager` of every other write. */
  readonly fieldManager: string;
  /** Deadline of every call but watches, from credentials to the last byte, milliseconds. Default 10 000. */
  readonly timeoutMs?: number;
  readonly userAgent?: string;
  readonly clock?: Clock;
  /** Called after every request; `code` is the HTTP status, `timeout` or `error`. */
  readonly onRequest?: (request: RequestInfo) => void;
}

export interface RequestInfo {
  readonly verb: Verb;
  readonly resource: string;
  readonly code: string;
  /** Until the whole answer, for watches until its headers. */
  readonly durationMs: number;
}
export type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'apply' | 'patch' | 'delete';

export interface CallOptions {
  readonly signal?: AbortSignal | undefined;
  /** Deadline of this call, milliseconds. */
  readonly timeoutMs?: number | undefined;
}

export interface Selection {
  /** Left out: all namespaces. */
  readonly namespace?: string | undefined;
  /** All of these labels, or a selector in the API's own syntax. */
  readonly labelSelector?: Readonly<Record<string, string>> | string | undefined;
  readonly fieldSelector?: string | undefined;
}

export interface ListOptions extends CallOptions, Selection {
  /** Objects per page; `timeoutMs` counts for each page. Default 500. */
  readonly pageSize?: number;
}

export interface WatchOptions extends Selection {
  /** Events after this version. */
  readonly resourceVersion: string;
  /** The server ends the watch after this many seconds. */
  readonly timeoutSeconds: number;
  /** A stream with nothing to say for this long ends, milliseconds. The server sends a bookmark about once a minute. */
  readonly inactivityMs: number;
  readonly signal: AbortSignal;
}

export interface WriteOptions extends CallOptions {
  /** Only check what the server would say. */
  readonly dryRun?: boolean;
}

export interface ApplyOptions extends WriteOptions {
  /** Take over fields that other managers own instead of failing with a conflict. Default false. */
  readonly force?: boolean;
  readonly fieldManager?: string;
}

export interface PatchOptions extends WriteOptions {
  readonly subresource?: 'status' | 'scale';
}

export interface RemoveOptions extends CallOptions {
  /** Precondition: only this incarnation of the name. */
  readonly uid?: string;
  /** Precondition: only while unchanged since it was read. */
  readonly resourceVersion?: string;
  /** Default `Background`. */
  readonly propagationPolicy?: 'Background' | 'Foreground' | 'Orphan';
  readonly gracePeriodSeconds?: number;
}

export interface LogOptions extends CallOptions {
  readonly container?: string;
  /** Of the container's last incarnation. */
  readonly previous?: boolean;
  readonly tailLines?: number;
  readonly sinceSeconds?: number;
  readonly timestamps?: boolean;
  /** Default 1 MiB. */
  readonly limitBytes?: number;
}

export interface JsonPatchOperation {
  readonly op: 'add' | 'remove' | 'replace' | 'test';
  readonly path: string;
  readonly value?: unknown;
}

type Query = Record<string, string | number | boolean | undefined>;
interface Call {
  readonly verb: Verb;
  readonly resource: string;
  readonly method: Dispatcher.HttpMethod;
  readonly path: string;
  readonly query?: Query;
  readonly body?: unknown;
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

/**
 * The Kubernetes REST API with plain JSON objects. Every call has a deadline. Errors: `ApiError` when the server said
 * no, `NoAnswerError` when it is unknown what it did; nothing is retried but a refused token.
 */
export class KubeClient {
  /** The namespace of the service account or kubeconfig context. */
  readonly namespace: string;
  readonly fieldManager: string;
  readonly #options: KubeClientOptions;
  readonly #clock: Clock;
  #dispatcher: { of: string; agent: Dispatcher } | undefined;

  constructor(options: KubeClientOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.namespace = options.credentials.namespace;
    this.fieldManager = options.fieldManager;
  }

  /** Throws `ApiError` 404 when there is no such object. */
  async get<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    options: CallOptions = {},
  ): Promise<T> {
    const call = { ...one('get', 'GET', resource, ref), ...options };
    return toObject(resource, await this.#json(call), call.path);
  }

  /** Like `get`, but undefined when there is no such object. */
  async find<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    options: CallOptions = {},
  ): Promise<T | undefined> {
    try {
      return await this.get(resource, ref, options);
    } catch (error) {
      if (isNotFound(error)) return undefined;
      throw error;
    }
  }

  /** Reads the latest state, page by page. Starts over once when the server forgets the list between two pages. */
  async list<T extends KubeObject>(resource: Resource<T>, options: ListOptions = {}): Promise<ObjectList<T>> {
    try {
      return await this.#list(resource, options);
    } catch (error) {
      if (isGone(error)) return await this.#list(resource, options);
      throw error;
    }
  }

  async #list<T extends KubeObject>(resource: Resource<T>, options: ListOptions): Promise<ObjectList<T>> {
    const items: T[] = [];
    const path = resourcePath(resource, { namespace: options.namespace });
    let token = '';
    for (;;) {
      const page = listSchema.safeParse(
        await this.#json({
          ...{ verb: 'list', resource: resource.plural, method: 'GET', path },
          query: {
            ...selectors(options),
            limit: options.pageSize ?? 500,
            continue: token === '' ? undefined : token,
          },
          signal: options.signal,
          timeoutMs: options.timeoutMs,
        }),
      );
      if (!page.success) throw new ProtocolError(`GET ${path}: expected a list: ${page.error.message}`);
      for (const item of page.data.items ?? []) items.push(toObject(resource, item, path));
      token = page.data.metadata.continue ?? '';
      if (token === '') return { items, resourceVersion: page.data.metadata.resourceVersion };
    }
  }

  /** Throws `ApiError` 409 AlreadyExists (`isAlreadyExists`) when the name is taken. */
  async create<T extends KubeObject>(
    resource: Resource<T>,
    object: KubeObject,
    options: WriteOptions = {},
  ): Promise<T> {
    const path = resourcePath(resource, { namespace: object.metadata.namespace });
    const call: Call = {
      ...{ verb: 'create', resource: resource.plural, method: 'POST', path, body: object },
      ...this.#write(options),
    };
    return toObject(resource, await this.#json(call), path);
  }

  /** Replaces the object. Throws a conflict when its `resourceVersion` is no longer current. */
  async update<T extends KubeObject>(
    resource: Resource<T>,
    object: KubeObject,
    options: PatchOptions = {},
  ): Promise<T> {
    const call: Call = {
      ...one('update', 'PUT', resource, object.metadata, options.subresource),
      ...{ body: object, ...this.#write(options) },
    };
    return toObject(resource, await this.#json(call), call.path);
  }

  /**
   * Server-side apply: creates the object, or makes the fields it names as it says and gives up those that this
   * manager applied before and left out now. An object with a `uid` is never created anew. Old servers (1.20) answer
   * 500 to ports without `protocol`, to quantities that are numbers and to fields that they do not know.
   */
  async apply<T extends KubeObject>(
    resource: Resource<T>,
    object: KubeObject,
    options: ApplyOptions = {},
  ): Promise<T> {
    return await this.#apply(resource, object, options);
  }

  /** Server-side apply of the status alone. Throws `ApiError` 404 when the object does not exist. */
  async applyStatus<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    status: object,
    options: ApplyOptions = {},
  ): Promise<T> {
    const metadata = {
      name: ref.name,
      ...(ref.namespace === undefined ? {} : { namespace: ref.namespace }),
    };
    const object = { apiVersion: apiVersionOf(resource), kind: resource.kind, metadata, status };
    return await this.#apply(resource, object, options, 'status');
  }

  async #apply<T extends KubeObject>(
    resource: Resource<T>,
    object: KubeObject,
    options: ApplyOptions,
    subresource?: string,
  ): Promise<T> {
    const write = this.#write(options);
    const call: Call = {
      ...one('apply', 'PATCH', resource, object.metadata, subresource),
      ...write,
      query: {
        ...write.query,
        force: options.force ?? false,
        fieldManager: options.fieldManager ?? this.fieldManager,
      },
      contentType: 'application/apply-patch+yaml',
      body: object,
    };
    return toObject(resource, await this.#json(call), call.path);
  }

  /** JSON merge patch (RFC 7386): `null` removes a field, lists are replaced. */
  async mergePatch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: object,
    options: PatchOptions = {},
  ): Promise<T> {
    return await this.#patch(resource, ref, 'application/merge-patch+json', patch, options);
  }

  /** Merge patch of the status. With `resourceVersion` it is refused when the object changed since it was read. */
  async patchStatus<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    status: object,
    options: WriteOptions & { readonly resourceVersion?: string } = {},
  ): Promise<T> {
    const { resourceVersion, ...rest } = options;
    const patch = resourceVersion === undefined ? { status } : { metadata: { resourceVersion }, status };
    return await this.mergePatch(resource, ref, patch, { ...rest, subresource: 'status' });
  }

  /** JSON patch (RFC 6902). A failed `test` is `ApiError` 422 (`isInvalid`). */
  async jsonPatch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    patch: readonly JsonPatchOperation[],
    options: PatchOptions = {},
  ): Promise<T> {
    return await this.#patch(resource, ref, 'application/json-patch+json', patch, options);
  }

  async #patch<T extends KubeObject>(
    resource: Resource<T>,
    ref: ObjectRef,
    contentType: string,
    body: unknown,
    options: PatchOptions,
  ): Promise<T> {
    const call: Call = {
      ...one('patch', 'PATCH', resource, ref, options.subresource),
      ...{ contentType, body, ...this.#write(options) },
    };
    return toObject(resource, await this.#json(call), call.path);
  }

  /**
   * Deletes the object, or marks it for deletion when it has finalizers or a grace period. False when it did not
   * exist. Throws a conflict when a precondition does not hold.
   */
  async remove(resource: Resource, ref: ObjectRef, options: RemoveOptions = {}): Promise<boolean> {
    const { uid, resourceVersion, propagationPolicy = 'Background', gracePeriodSeconds } = options;
    try {
      await this.#json({
        ...one('delete', 'DELETE', resource, ref),
        body: {
          apiVersion: 'v1',
          kind: 'DeleteOptions',
          propagationPolicy,
          gracePeriodSeconds,
          preconditions: { uid, resourceVersion },
        },
        signal: options.signal,
        timeoutMs: options.timeoutMs,
      });
      return true;
    } catch (error) {
      if (isNotFound(error)) return false;
      throw error;
    }
  }

  /** A part of a container's log. */
  async podLogs(pod: ObjectRef, options: LogOptions = {}): Promise<string> {
    const { signal, timeoutMs, limitBytes = 1 << 20, ...query } = options;
    const path = resourcePath(
      { group: '', version: 'v1', kind: 'Pod', plural: 'pods', namespaced: true },
      { ...pod, subresource: 'log' },
    );
    const call: Call = { verb: 'get', resource: 'pods/log', method: 'GET', path, signal, timeoutMs };
    return await this.#text({ ...call, query: { ...query, limitBytes } });
  }

  /** GET of any path, e.g. `/version` or `/apis`. */
  async raw(path: string, options: CallOptions = {}): Promise<unknown> {
    return await this.#json({ verb: 'get', resource: 'raw', method: 'GET', path, ...options });
  }

  /**
   * Opens a watch; resolves when the server has accepted it. The stream ends when the server ends it and when it is
   * silent for `inactivityMs`. It throws `ApiError` for an ERROR event (`isGone`: list again), `NoAnswerError` when
   * the connection breaks, `ProtocolError` for what is no event.
   */
  async watch<T extends KubeObject>(
    resource: Resource<T>,
    options: WatchOptions,
  ): Promise<AsyncIterable<WatchEvent<T>>> {
    const path = resourcePath(resource, { namespace: options.namespace });
    const call: Call = {
      ...{ verb: 'watch', resource: resource.plural, method: 'GET', path, signal: options.signal },
      query: {
        ...selectors(options),
        watch: true,
        allowWatchBookmarks: true,
        resourceVersion: options.resourceVersion,
        timeoutSeconds: options.timeoutSeconds,
      },
    };
    // The deadline counts until the headers are there; then only the caller's signal ends the stream.
    const stream = new AbortController();
    const stop = () => stream.abort(options.signal.reason);
    if (options.signal.aborted) stop();
    options.signal.addEventListener('abort', stop);
    const dispose = () => options.signal.removeEventListener('abort', stop);
    try {
      const response = await this.#timed(call, async (signal) => {
        const give = () => stream.abort(signal.reason);
        signal.addEventListener('abort', give);
        try {
          const response = await this.#send(call, stream.signal, options.inactivityMs);
          if (response.statusCode !== 200) {
            throw await refused(call, response);
          }
          return response;
        } finally {
          signal.removeEventListener('abort', give);
        }
      });
      return events(resource, path, response.body, dispose);
    } catch (error) {
      dispose();
      throw error;
    }
  }

  /** Closes the connections. Calls in flight fail. */
  async close(): Promise<void> {
    await this.#dispatcher?.agent.destroy();
    this.#dispatcher = undefined;
  }

  #write(options: WriteOptions): { query: Query } & CallOptions {
    return {
      query: { fieldManager: this.fieldManager, dryRun: options.dryRun === true ? 'All' : undefined },
      signal: options.signal,
      timeoutMs: options.timeoutMs,
    };
  }

  async #json(call: Call): Promise<unknown> {
    const text = await this.#text(call);
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw new ProtocolError(`${call.method} ${call.path}: expected JSON, found: ${text.slice(0, 200)}`, {
        cause,
      });
    }
  }

  async #text(call: Call): Promise<string> {
    return await this.#timed(call, async (signal) => {
      const response = await this.#send(call, signal, 0);
      if (response.statusCode >= 300) throw await refused(call, response);
      return await response.body.text();
    });
  }

  /** Bounds the work by the call's deadline, names its errors and reports it to `onRequest`. */
  async #timed<R>(call: Call, work: (signal: AbortSignal) => Promise<R>): Promise<R> {
    const startedAt = this.#clock.monotonic();
    const limitMs = call.timeoutMs ?? this.#options.timeoutMs ?? 10_000;
    const limit = deadline(this.#clock, limitMs, call.signal);
    let code = '200';
    try {
      return await work(limit.signal);
    } catch (error) {
      if (call.signal?.aborted) throw call.signal.reason;
      if (error instanceof ApiError) {
        code = String(error.status);
        throw error;
      }
      code = limit.timedOut() ? 'timeout' : 'error';
      if (error instanceof Error && ownErrors.has(error.name)) throw error;
      const why = limit.timedOut() ? `no answer within ${limitMs} ms` : reasonOf(error);
      throw new NoAnswerError(`${call.method} ${call.path}: ${why}`, limit.timedOut(), error);
    } finally {
      limit.dispose();
      const durationMs = this.#clock.monotonic() - startedAt;
      this.#options.onRequest?.({ verb: call.verb, resource: call.resource, code, durationMs });
    }
  }

  async #send(call: Call, signal: AbortSignal, bodyTimeout: number): Promise<Dispatcher.ResponseData> {
    let response = await this.#attempt(call, false, signal, bodyTimeout);
    if (response.statusCode === 401) {
      // The token may have been replaced since it was read. A request without an identity has no effect.
      await response.body.dump();
      response = await this.#attempt(call, true, signal, bodyTimeout);
    }
    return response;
  }

  async #attempt(
    call: Call,
    fresh: boolean,
    signal: AbortSignal,
    bodyTimeout: number,
  ): Promise<Dispatcher.ResponseData> {
    // An exec plugin of a kubeconfig can hang.
    const connection = await orAborted(this.#options.credentials.connection(fresh), signal);
    return await request(connection.server.replace(/\/$/, '') + call.path + queryText(call.query), {
      dispatcher: this.#agent(connection),
      method: call.method,
      headers: {
        ...connection.headers,
        accept: 'application/json',
        'user-agent': this.#options.userAgent ?? 'koschei',
        ...(call.body === undefined ? {} : { 'content-type': call.contentType ?? 'application/json' }),
      },
      body: call.body === undefined ? null : JSON.stringify(call.body),
      signal,
      headersTimeout: 0,
      bodyTimeout,
    });
  }

  /** One pool of connections for as long as the certificates stay the same. */
  #agent(connection: Connection): Dispatcher {
    const { tls, proxy } = connection;
    const of = JSON.stringify([connection.server, tls, proxy]);
    if (this.#dispatcher?.of === of) return this.#dispatcher.agent;
    void this.#dispatcher?.agent.close();
    // Below the 90 s after which the API server closes idle connections.
    const pool = { keepAliveTimeout: 30_000 };
    const connect = { ...tls, timeout: 5_000, keepAlive: true, keepAliveInitialDelay: 30_000 };
    const agent =
      proxy === undefined
        ? new Agent({ ...pool, connect })
        : new ProxyAgent({ ...pool, uri: proxy, requestTls: tls });
    this.#dispatcher = { of, agent };
    return agent;
  }
}

export type ClientChoice = Omit<KubeClientOptions, 'credentials'>;

/** A client for a kubeconfig (by default KUBECONFIG or `~/.kube/config`), for people's tools and tests. */
export async function createKubeconfigClient(options: ClientChoice & KubeconfigOptions): Promise<KubeClient> {
  return new KubeClient({ ...options, credentials: await kubeconfigCredentials(options) });
}

/**
 * A client with the service account of the pod it runs in; for the agent and for the operator.
 * Throws `CredentialsError` outside a pod and in a pod without a token.
 */
export async function createAgentKubeClient(
  options: ClientChoice & {
    readonly environment?: Readonly<Record<string, string | undefined>>;
    readonly serviceAccountDir?: string;
  },
): Promise<KubeClient> {
  const credentials = await inClusterCredentials(
    options.environment ?? process.env,
    options.serviceAccountDir,
  );
  return new KubeClient({ ...options, credentials });
}

/** In a pod its service account, elsewhere the kubeconfig; a given file or context always means the kubeconfig. */
export async function createKubeClient(options: ClientChoice & KubeconfigOptions): Promise<KubeClient> {
  const explicit = options.file !== undefined || options.context !== undefined;
  const inPod = process.env.KUBERNETES_SERVICE_HOST !== undefined && process.env.KUBECONFIG === undefined;
  return explicit || !inPod ? await createKubeconfigClient(options) : await createAgentKubeClient(options);
}

const ownErrors = new Set(['CredentialsError', 'ProtocolError', 'TypeError']);

const metadataSchema = z.looseObject({ name: z.string() });
const objectSchema = z.looseObject({ metadata: metadataSchema });
const listSchema = z.object({
  items: z.array(z.unknown()).nullish(),
  metadata: z.object({ resourceVersion: z.string(), continue: z.string().optional() }),
});
const eventSchema = z.object({
  type: z.enum(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK', 'ERROR']),
  object: z.looseObject({}),
});
const bookmarkSchema = z.looseObject({ metadata: z.looseObject({ resourceVersion: z.string() }) });

/** Items of lists of built-in types come without apiVersion and kind; they are filled in. */
function toObject<T extends KubeObject>(resource: Resource<T>, json: unknown, path: string): T {
  const parsed = objectSchema.safeParse(json);
  if (!parsed.success) {
    throw new ProtocolError(`${path}: expected a ${resource.kind}: ${parsed.error.message}`);
  }
  // Only what every object has was checked: the rest is the schema's business, which the server enforces.
  return { apiVersion: apiVersionOf(resource), kind: resource.kind, ...parsed.data } as unknown as T;
}

const one = (
  verb: Verb,
  method: Dispatcher.HttpMethod,
  resource: Resource,
  ref: ObjectRef,
  subresource?: string,
): Call => ({
  verb,
  method,
  resource: subresource === undefined ? resource.plural : `${resource.plural}/${subresource}`,
  path: resourcePath(resource, {
    namespace: ref.namespace,
    name: ref.name,
    ...(subresource === undefined ? {} : { subresource }),
  }),
});

/** `a=1,b=2`, as the API writes equality selectors. */
const selectorText = (labels: Readonly<Record<string, string>>): string =>
  Object.entries(labels)
    .map(([name, value]) => `${name}=${value}`)
    .join(',');

const selectors = ({ labelSelector, fieldSelector }: Selection): Query => ({
  labelSelector: typeof labelSelector === 'object' ? selectorText(labelSelector) : labelSelector,
  fieldSelector,
});

function queryText(query: Query = {}): string {
  const params = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined) params.set(name, String(value));
  }
  return params.size === 0 ? '' : `?${params.toString()}`;
}

async function refused(call: Call, response: Dispatcher.ResponseData): Promise<ApiError> {
  const text = await response.body.text();
  let body: unknown = text;
  try {
    body = JSON.parse(text);
  } catch {
    // A proxy's answer, or a plain-text one of the API server's filters: it goes into the message as it is.
  }
  const retryAfter = response.headers['retry-after'];
  return apiError(
    `${call.method} ${call.path}`,
    response.statusCode,
    body,
    typeof retryAfter === 'string' ? retryAfter : undefined,
  );
}

/** The promise's result, unless the signal aborts first. */
async function orAborted<R>(promise: Promise<R>, signal: AbortSignal): Promise<R> {
  const aborted = Promise.withResolvers<never>();
  const give = () => aborted.reject(signal.reason);
  if (signal.aborted) give();
  signal.addEventListener('abort', give);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', give);
  }
}

const reasonOf = (error: unknown): string => {
  if (!(error instanceof Error)) return String(error);
  const code = 'code' in error && typeof error.code === 'string' ? error.code : error.name;
  return error.message === '' ? code : `${error.message} (${code})`;
};

async function* events<T extends KubeObject>(
  resource: Resource<T>,
  path: string,
  body: Dispatcher.ResponseData['body'],
  dispose: () => void,
): AsyncGenerator<WatchEvent<T>> {
  try {
    for await (const line of lines(body)) yield toEvent(resource, line, path);
  } catch (error) {
    if (error instanceof ApiError || error instanceof ProtocolError) throw error;
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'UND_ERR_BODY_TIMEOUT') return;
    throw new NoAnswerError(`GET ${path}: the watch broke: ${reasonOf(error)}`, false, error);
  } finally {
    dispose();
    body.destroy();
  }
}

async function* lines(body: AsyncIterable<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const chunk of body) {
    const parts = (rest + decoder.decode(chunk, { stream: true })).split('\n');
    rest = parts.pop() ?? '';
    for (const line of parts) {
      if (line !== '') yield line;
    }
  }
  // A watch that ends within a line was cut off.
  if (rest.trim() !== '') throw new Error('the stream ended in the middle of an event');
}

function toEvent<T extends KubeObject>(resource: Resource<T>, line: string, path: string): WatchEvent<T> {
  let json: unknown;
  try {
    json = JSON.parse(line);
  } catch (cause) {
    throw new ProtocolError(`GET ${path}: expected a watch event, found: ${line.slice(0, 200)}`, { cause });
  }
  const parsed = eventSchema.safeParse(json);
  if (!parsed.success) {
    throw new ProtocolError(`GET ${path}: expected a watch event: ${parsed.error.message}`);
  }
  const { type, object } = parsed.data;
  if (type === 'ERROR') throw apiError(`watch of ${path}`, 500, object);
  if (type !== 'BOOKMARK') return { type, object: toObject(resource, object, path) };
  const bookmark = bookmarkSchema.safeParse(object);
  if (!bookmark.success) throw new ProtocolError(`GET ${path}: a bookmark without a resourceVersion`);
  return { type, resourceVersion: bookmark.data.metadata.resourceVersion };
}
