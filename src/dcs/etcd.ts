import { setTimeout as sleep } from 'node:timers/promises';
import { Etcd3, type IOptions } from 'etcd3';

/** One stored key. Revisions are etcd's global, ever growing revision numbers. */
export interface KeyValue {
  readonly key: string;
  readonly value: string;
  readonly modRevision: string;
}

/** A comparison of a transaction: the key's last modification revision, `'0'` for "does not exist". */
export interface Compare {
  readonly key: string;
  readonly modRevision: string;
}

export type Operation =
  | { readonly op: 'put'; readonly key: string; readonly value: string; readonly lease?: string }
  | { readonly op: 'delete'; readonly key: string }
  | { readonly op: 'deletePrefix'; readonly key: string }
  | { readonly op: 'get'; readonly key: string };

export interface TransactionResult {
  readonly succeeded: boolean;
  /** The store's revision after the transaction: the mod revision of every key it put. */
  readonly revision: string;
  /** Answers to the `get` operations of the branch that ran, in order; undefined: no such key. */
  readonly reads: readonly (KeyValue | undefined)[];
}

/** etcd did not give a usable answer; whether the request took effect is unknown unless `definite`. */
export class EtcdError extends Error {
  override readonly name = 'EtcdError';
  readonly definite: boolean;
  constructor(message: string, definite: boolean, cause?: unknown) {
    super(message, { cause });
    this.definite = definite;
  }
}

export interface EtcdOptions {
  /** `https://host:2379` or `http://...`. Addresses are better than names: no lookup on the failover path. */
  readonly endpoints: readonly string[];
  readonly tls?: { readonly ca: Buffer; readonly cert: Buffer; readonly key: Buffer };
  /** Deadline of every call but watches, milliseconds. */
  readonly timeoutMs: number;
}

export interface WatchHandlers {
  /** Called once per (re-)start of the watch, after which events are complete from `revision` on. */
  onStarted(): void;
  onEvents(
    events: readonly ({ type: 'put'; kv: KeyValue } | { type: 'delete'; key: string; modRevision: string })[],
  ): void;
  /** The watch ended (cancelled, compacted, connection lost): read everything again and watch anew. */
  onEnded(reason: string): void;
}

/**
 * A thin transport over the `etcd3` package: unary calls with a deadline, transactions that are sent exactly once,
 * and a plain watch stream. The package's own retries, circuit breakers, leases, elections and watch recovery are not
 * used: a retried transaction cannot be told from its first try, and a lease's end is noticed late (docs/decisions/0002).
 */
export class Etcd {
  #options: EtcdOptions;
  #clients: Etcd3[];
  #current = 0;
  #closed = false;

  constructor(options: EtcdOptions) {
    if (options.endpoints.length === 0) throw new EtcdError('no etcd endpoint was given', true);
    this.#options = options;
    // One client per endpoint: within a client the package picks hosts at random on every call.
    this.#clients = options.endpoints.map((endpoint) => new Etcd3(clientOptions(endpoint, options)));
    this.#current = Math.floor(Math.random() * this.#clients.length);
  }

  /** The endpoint that the next call goes to. */
  get endpoint(): string {
    return this.#options.endpoints[this.#current] ?? '';
  }

  /** A linearizable read of every key below `prefix`. Throws EtcdError. */
  async readPrefix(prefix: string): Promise<{ revision: string; keys: KeyValue[] }> {
    const answer = await this.#call((client, deadline) =>
      client.kv.range({ key: Buffer.from(prefix), range_end: prefixEnd(prefix) }, { deadline }),
    );
    return { revision: answer.header.revision, keys: answer.kvs.map(toKeyValue) };
  }

  /**
   * Runs one transaction, sent at most once. Throws EtcdError; unless `definite` is set on it, the transaction may
   * have taken effect, or may still take effect later.
   */
  async transact(
    compares: readonly Compare[],
    success: readonly Operation[],
    failure: readonly Operation[] = [],
    timeoutMs = this.#options.timeoutMs,
  ): Promise<TransactionResult> {
    const answer = await this.#call(
      (client, deadline) =>
        client.kv.txn(
          {
            compare: compares.map((c) => ({
              result: 'Equal' as const,
              target: 'Mod' as const,
              key: Buffer.from(c.key),
              mod_revision: c.modRevision,
            })),
            success: success.map(toRequest),
            failure: failure.map(toRequest),
          },
          { deadline },
        ),
      timeoutMs,
    );
    const branch = answer.succeeded ? success : failure;
    const reads: (KeyValue | undefined)[] = [];
    branch.forEach((operation, i) => {
      if (operation.op !== 'get') return;
      const kv = answer.responses[i]?.response_range?.kvs[0];
      reads.push(kv === undefined ? undefined : toKeyValue(kv));
    });
    return { succeeded: answer.succeeded, revision: answer.header.revision, reads };
  }

  /** Grants a lease of `ttlSeconds`; returns its id. */
  async grantLease(ttlSeconds: number): Promise<string> {
    return (
      await this.#call((client, deadline) => client.leaseClient.leaseGrant({ TTL: ttlSeconds }, { deadline }))
    ).ID;
  }

  /** Renews a lease once. Returns false when etcd does not know the lease any more. */
  async keepLease(id: string): Promise<boolean> {
    return await this.#call(async (client, deadline) => {
      const stream = await client.leaseClient.leaseKeepAlive({ deadline });
      try {
        return await new Promise<boolean>((resolve, reject) => {
          stream.on('data', (answer: { TTL: string }) => resolve(Number(answer.TTL) > 0));
          stream.on('error', reject);
          stream.on('end', () => reject(new Error('the keep-alive stream ended without an answer')));
          stream.write({ ID: id });
        });
      } finally {
        stream.end();
      }
    });
  }

  /**
   * Watches every key below `prefix` from `revision` on. Returns a function that ends the watch. The caller re-reads
   * and re-watches after `onEnded`; a silent watch is the caller's to suspect.
   */
  watch(prefix: string, revision: string, handlers: WatchHandlers): () => void {
    const client = this.#clients[this.#current];
    let ended = false;
    let cancel: (() => void) | undefined;
    const end = (reason: string, rotate: boolean) => {
      if (ended) return;
      ended = true;
      cancel?.();
      if (rotate) this.#rotate(client);
      if (!this.#closed) handlers.onEnded(reason);
    };
    if (client === undefined) throw new EtcdError('no etcd client', true);
    client.watchClient
      .watch({})
      .then((stream) => {
        cancel = () => (stream as unknown as { cancel(): void }).cancel();
        stream.on('error', (error: Error) => end(error.message, true));
        stream.on('end', () => end('etcd closed the watch', true));
        stream.on('data', (answer: WatchAnswer) => {
          if (ended) return;
          if (answer.canceled || Number(answer.compact_revision) > 0) {
            end(`etcd cancelled the watch: ${answer.cancel_reason || 'compacted'}`, false);
            return;
          }
          if (answer.created) handlers.onStarted();
          if (answer.events.length > 0) handlers.onEvents(answer.events.map(toEvent));
        });
        stream.write({
          create_request: {
            key: Buffer.from(prefix),
            range_end: prefixEnd(prefix),
            start_revision: revision,
          },
        });
        if (ended) cancel();
      })
      .catch((error: Error) => end(error.message, true));
    return () => {
      ended = true;
      cancel?.();
    };
  }

  /** The package's low-level client of the current endpoint, for administration (users, roles). */
  get administration(): Etcd3 {
    const client = this.#clients[this.#current];
    if (client === undefined) throw new EtcdError('no etcd client', true);
    return client;
  }

  /** Uses other certificates from the next call on; running watches end and are begun anew by their owners. */
  useCertificates(tls: EtcdOptions['tls']): void {
    const same = this.#options.tls;
    if (
      tls === undefined ||
      (same?.cert.equals(tls.cert) && same.key.equals(tls.key) && same.ca.equals(tls.ca))
    )
      return;
    this.#options = { ...this.#options, tls };
    const old = this.#clients;
    this.#clients = this.#options.endpoints.map(
      (endpoint) => new Etcd3(clientOptions(endpoint, this.#options)),
    );
    for (const client of old) client.close();
  }

  close(): void {
    this.#closed = true;
    for (const client of this.#clients) client.close();
  }

  async #call<T>(
    call: (client: RawClient, deadline: number) => Promise<T>,
    timeoutMs = this.#options.timeoutMs,
  ): Promise<T> {
    const client = this.#clients[this.#current];
    if (client === undefined || this.#closed) throw new EtcdError('the etcd client is closed', true);
    try {
      // gRPC deadlines are wall-clock instants; a second, relative timer keeps the bound when that clock jumps.
      return await withDeadline(call(raw(client), Date.now() + timeoutMs), timeoutMs + 50);
    } catch (error) {
      this.#rotate(client);
      throw toEtcdError(error, this.#options.endpoints.join(', '));
    }
  }

  /** Moves on to the next endpoint, unless another call already did. */
  #rotate(failed: Etcd3 | undefined): void {
    if (this.#clients[this.#current] === failed) this.#current = (this.#current + 1) % this.#clients.length;
  }
}

type RawClient = Pick<Etcd3, 'kv' | 'leaseClient' | 'watchClient'>;

interface WatchAnswer {
  created: boolean;
  canceled: boolean;
  cancel_reason: string;
  compact_revision: string;
  events: { type: 'Put' | 'Delete' | 'PUT' | 'DELETE'; kv: RawKeyValue }[];
}

interface RawKeyValue {
  key: Buffer;
  value: Buffer;
  mod_revision: string;
}

function raw(client: Etcd3): RawClient {
  return client;
}

function clientOptions(endpoint: string, options: EtcdOptions): IOptions {
  const once = {
    execute: async <T>(fn: (context: never) => PromiseLike<T> | T) => await fn(undefined as never),
  };
  return {
    hosts: endpoint,
    ...(options.tls
      ? {
          credentials: {
            rootCertificate: options.tls.ca,
            privateKey: options.tls.key,
            certChain: options.tls.cert,
          },
        }
      : {}),
    grpcOptions: {
      // Finds a peer that vanished without a word; etcd's default minimum between pings is 5 s.
      'grpc.keepalive_time_ms': 5_000,
      'grpc.keepalive_timeout_ms': 2_000,
      'grpc.initial_reconnect_backoff_ms': 100,
      'grpc.min_reconnect_backoff_ms': 100,
      'grpc.max_reconnect_backoff_ms': 1_000,
    },
    // No retry and no circuit breaker: see the class comment.
    faultHandling: { global: once as never, host: () => once as never },
  };
}

function withDeadline<T>(promise: Promise<T>, timeoutMs: number): Promise<T> {
  const timer = new AbortController();
  promise.catch(() => undefined);
  return Promise.race([
    promise,
    sleep(timeoutMs, undefined, { signal: timer.signal }).then(() => {
      throw new EtcdError(`no answer within ${timeoutMs} ms`, false);
    }),
  ]).finally(() => timer.abort());
}

function toEtcdError(error: unknown, endpoints: string): EtcdError {
  if (error instanceof EtcdError) return error;
  const message = error instanceof Error ? error.message : String(error);
  // Refusals that etcd gives before it applies anything.
  const definite =
    /permission denied|auth: old revision|invalid auth token|user name is empty|mvcc: |etcdserver: key is not provided|too large|duplicate key|requested lease not found/i.test(
      message,
    );
  return new EtcdError(`etcd (${endpoints}): ${message}`, definite, error);
}

function toRequest(operation: Operation) {
  const key = Buffer.from(operation.key);
  switch (operation.op) {
    case 'put':
      return {
        request_put: {
          key,
          value: Buffer.from(operation.value),
          ...(operation.lease === undefined ? {} : { lease: operation.lease }),
        },
      };
    case 'delete':
      return { request_delete_range: { key } };
    case 'deletePrefix':
      return { request_delete_range: { key, range_end: prefixEnd(operation.key) } };
    case 'get':
      return { request_range: { key } };
  }
}

function toKeyValue(kv: RawKeyValue): KeyValue {
  return { key: kv.key.toString(), value: kv.value.toString(), modRevision: String(kv.mod_revision) };
}

function toEvent(event: WatchAnswer['events'][number]) {
  return event.type === 'Delete' || event.type === 'DELETE'
    ? ({ type: 'delete', key: event.kv.key.toString(), modRevision: String(event.kv.mod_revision) } as const)
    : ({ type: 'put', kv: toKeyValue(event.kv) } as const);
}

/** The end of the range that holds every key starting with `prefix` (etcd API: range_end = prefix + 1). */
function prefixEnd(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end[end.length - 1] = (end[end.length - 1] ?? 0) + 1;
  return end;
}
