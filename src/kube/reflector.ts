import type { Logger } from 'pino';
import { backoffMs } from './backoff.ts';
import type { KubeClient, Selection } from './client.ts';
import { type Clock, sleep, systemClock } from './clock.ts';
import { ApiError, isGone, NoAnswerError } from './errors.ts';
import type { KubeMetrics } from './metrics.ts';
import type { Resource } from './resources.ts';
import { type Indexes, type ReadStore, Store } from './store.ts';
import { type KubeObject, type ObjectList, objectKey, type WatchEvent } from './types.ts';

/** What a reflector needs of the API. */
export interface ListWatch<T> {
  list(signal: AbortSignal): Promise<ObjectList<T>>;
  /** Resolves when the server has accepted the watch; errors as `KubeClient.watch`. */
  watch(resourceVersion: string, signal: AbortSignal): Promise<AsyncIterable<WatchEvent<T>>>;
}

/** A change of the cache. `previous` is what it held before, undefined when the object is new to it. */
export interface Change<T> {
  readonly type: 'set' | 'delete';
  readonly key: string;
  readonly object: T;
  readonly previous: T | undefined;
}

export interface ReflectorOptions<T extends KubeObject> {
  /** For logs and metrics, e.g. `pods`. */
  readonly name: string;
  readonly source: ListWatch<T>;
  readonly log: Logger;
  readonly indexes?: Indexes<T>;
  /** Applied to every object before it is kept, e.g. to drop what nobody reads. */
  readonly transform?: (object: T) => T;
  readonly metrics?: KubeMetrics | undefined;
  readonly clock?: Clock;
  readonly random?: () => number;
}

/** The API server is asked again after 0.8 s, then twice as long each time, up to 10 s: a process has few reflectors. */
const retry = { minMs: 800, maxMs: 10_000 };
/** A watch that lived this long ends a series of failures, milliseconds. */
const healthyMs = 120_000;
/** Watches shorter than this wait before the next one, so that a server that ends them at once is not flooded. */
const briefMs = 1_000;
/** After this many refused watches from the same version the version itself is doubted, and everything is listed. */
const maxRefusals = 3;

/**
 * A cache of one resource that is kept up to date by list and watch. It never gives up. Changes are reported after the
 * cache has them; deletions that happened while nobody watched are reported at the next list.
 */
export class Reflector<T extends KubeObject> {
  readonly name: string;
  readonly #options: ReflectorOptions<T>;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #store: Store<T>;
  readonly #handlers = new Set<(change: Change<T>) => void>();
  readonly #synced = Promise.withResolvers<void>();
  readonly #stop = new AbortController();
  #hasSynced = false;
  #resourceVersion: string | undefined;
  #lastContact: number;
  #lastActivity: number;
  #running: Promise<void> | undefined;

  constructor(options: ReflectorOptions<T>) {
    this.name = options.name;
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#store = new Store(options.indexes);
    this.#lastContact = this.#clock.monotonic();
    this.#lastActivity = this.#lastContact;
    options.metrics?.observeSilence(options.name, () => this.silentMs);
  }

  /** The cached objects. Stale by nature: what must not be wrong is read from the API. */
  get store(): ReadStore<T> {
    return this.#store;
  }

  /** Whether the first list is in the cache. */
  get hasSynced(): boolean {
    return this.#hasSynced;
  }

  /** Resolves when the first list is in the cache and was reported. Stays pending when stopped before. */
  get synced(): Promise<void> {
    return this.#synced.promise;
  }

  /** Milliseconds since the API was last heard of: list, event, bookmark or accepted watch. */
  get silentMs(): number {
    return this.#clock.monotonic() - this.#lastContact;
  }

  /** Milliseconds since anything happened, failures included; minutes mean that the loop itself is stuck. */
  get stuckMs(): number {
    return this.#clock.monotonic() - this.#lastActivity;
  }

  /** Reports every change, and first of all every object already cached. Returns a function that ends it. */
  subscribe(handler: (change: Change<T>) => void): () => void {
    this.#handlers.add(handler);
    for (const object of this.#store.list()) {
      this.#call(handler, { type: 'set', key: objectKey(object), object, previous: undefined });
    }
    return () => this.#handlers.delete(handler);
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends the watch. No change is reported after this has been called. */
  async stop(): Promise<void> {
    this.#stop.abort(new Error('the reflector was stopped'));
    await this.#running;
  }

  async #run(): Promise<void> {
    const stop = this.#stop.signal;
    let failures = 0;
    let refusals = 0;
    while (!stop.aborted) {
      const startedAt = this.#clock.monotonic();
      let askedToWaitMs = 0;
      let failed = false;
      try {
        this.#resourceVersion ??= await this.#relist();
        if (stop.aborted) return;
        await this.#follow(this.#resourceVersion);
        refusals = 0;
      } catch (error) {
        if (stop.aborted) return;
        refusals = error instanceof ApiError ? refusals + 1 : 0;
        if (leavesDoubt(error) || refusals >= maxRefusals) {
          this.#resourceVersion = undefined;
          refusals = 0;
        }
        failed = !isGone(error);
        if (error instanceof ApiError) askedToWaitMs = Math.min(error.retryAfterMs ?? 0, retry.maxMs);
        this.#options.metrics?.cacheWatchErrors.inc({ cache: this.name });
        const level = failures === 0 ? 'info' : 'debug';
        this.#options.log[level]({ err: error, cache: this.name }, 'list or watch failed, trying again');
      }
      this.#lastActivity = this.#clock.monotonic();
      const lastedMs = this.#lastActivity - startedAt;
      if (lastedMs >= healthyMs) failures = 0;
      if (!failed && lastedMs >= briefMs) continue;
      failures += 1;
      await sleep(this.#clock, Math.max(askedToWaitMs, backoffMs(failures, retry, this.#random())), stop);
    }
  }

  async #relist(): Promise<string> {
    const listed = await this.#options.source.list(this.#stop.signal);
    if (this.#stop.signal.aborted) return listed.resourceVersion;
    this.#heard();
    this.#options.metrics?.cacheRelists.inc({ cache: this.name });
    const vanished = new Set(this.#store.keys());
    for (const object of listed.items) {
      vanished.delete(objectKey(object));
      this.#set(object);
    }
    for (const key of vanished) this.#delete(key, undefined);
    if (!this.#hasSynced) {
      this.#hasSynced = true;
      this.#synced.resolve();
    }
    return listed.resourceVersion;
  }

  /** Watches until the server ends it; the version moves on with every event, bookmarks included. */
  async #follow(from: string): Promise<void> {
    const events = await this.#options.source.watch(from, this.#stop.signal);
    if (this.#stop.signal.aborted) return;
    this.#heard();
    for await (const event of events) {
      if (this.#stop.signal.aborted) return;
      this.#heard();
      if (event.type === 'BOOKMARK') {
        this.#resourceVersion = event.resourceVersion;
        continue;
      }
      if (event.type === 'DELETED') this.#delete(objectKey(event.object), event.object);
      else this.#set(event.object);
      this.#resourceVersion = event.object.metadata.resourceVersion ?? this.#resourceVersion;
    }
  }

  #heard(): void {
    this.#lastContact = this.#clock.monotonic();
    this.#lastActivity = this.#lastContact;
  }

  #set(received: T): void {
    const object = this.#options.transform?.(received) ?? received;
    const key = objectKey(object);
    const known = this.#store.get(key)?.metadata;
    // A relist brings mostly what is known already; a reconcile for each of those would be for nothing.
    const { uid, resourceVersion } = object.metadata;
    if (known !== undefined && known.uid === uid && known.resourceVersion === resourceVersion) return;
    const previous = this.#store.set(object);
    this.#report({ type: 'set', key, object, previous });
  }

  #delete(key: string, last: T | undefined): void {
    const previous = this.#store.delete(key);
    const object = last ?? previous;
    if (object !== undefined) this.#report({ type: 'delete', key, object, previous });
  }

  #report(change: Change<T>): void {
    this.#options.metrics?.cacheObjects.set({ cache: this.name }, this.#store.size);
    for (const handler of this.#handlers) this.#call(handler, change);
  }

  /** One handler's error must not cost the others the change, nor end the watch. */
  #call(handler: (change: Change<T>) => void, change: Change<T>): void {
    try {
      handler(change);
    } catch (error) {
      this.#options.log.error({ err: error, cache: this.name, key: change.key }, 'a change handler failed');
    }
  }
}

/**
 * Whether events may have been missed. A broken connection and a plain refusal lose nothing: the next watch goes on
 * where the last one ended.
 */
const leavesDoubt = (error: unknown): boolean =>
  isGone(error) || !(error instanceof NoAnswerError || error instanceof ApiError);

/** The server ends each watch after a random time between these, seconds, so that they do not all end together. */
const watchSeconds = { min: 300, max: 600 };
/** Two bookmarks missing. */
const inactivityMs = 120_000;

/** List and watch of one resource through a client. */
export function listWatch<T extends KubeObject>(
  client: KubeClient,
  resource: Resource<T>,
  selection: Selection & { readonly inactivityMs?: number } = {},
  random: () => number = Math.random,
): ListWatch<T> {
  const { inactivityMs: silence = inactivityMs, ...which } = selection;
  return {
    list: (signal) => client.list(resource, { ...which, signal, timeoutMs: 30_000 }),
    watch: (resourceVersion, signal) =>
      client.watch(resource, {
        ...which,
        resourceVersion,
        signal,
        inactivityMs: silence,
        timeoutSeconds: Math.round(watchSeconds.min + random() * (watchSeconds.max - watchSeconds.min)),
      }),
  };
}

export type ReflectOptions<T extends KubeObject> = Omit<ReflectorOptions<T>, 'source' | 'name'> &
  Selection & { readonly name?: string; readonly inactivityMs?: number };

/**
 * A reflector of one resource. Objects are kept without `managedFields`, which nobody here reads and which make up
 * half of an object; another `transform` replaces that.
 */
export function reflect<T extends KubeObject>(
  client: KubeClient,
  resource: Resource<T>,
  options: ReflectOptions<T>,
): Reflector<T> {
  const { namespace, labelSelector, fieldSelector, inactivityMs: silence, ...rest } = options;
  const selection = {
    namespace,
    labelSelector,
    fieldSelector,
    ...(silence === undefined ? {} : { inactivityMs: silence }),
  };
  return new Reflector<T>({
    transform: withoutManagedFields,
    ...rest,
    name: options.name ?? resource.plural,
    source: listWatch(client, resource, selection, options.random),
  });
}

/** A copy of the object without the record of who set which field. */
export function withoutManagedFields<T extends KubeObject>(object: T): T {
  const { managedFields: _, ...metadata } = object.metadata as T['metadata'] & { managedFields?: unknown };
  return { ...object, metadata };
}
