import { createHash } from 'node:crypto';
import { tlsKey } from '../../api/names.ts';
import type { PgClusterSpec } from '../../api/pgcluster.ts';
import { lagClass } from '../../api/pginstance.ts';
import {
  type ClusterKeys,
  ClusterStore,
  type ClusterView,
  clusterKeys,
  Etcd,
  type EtcdOptions,
  type Operation,
  type TransactionResult,
} from '../../dcs/index.ts';
import { type Clock, type KubeClient, resources, sleep, type Worker } from '../../kube/index.ts';
import type { Logger } from '../../log/logger.ts';
import type { KeyPair } from '../../tls/certificates.ts';
import type { Observed, UnknownReason } from '../action.ts';
import { authorityNotice, read } from '../cluster/desired/secrets.ts';
import type { EtcdFacts } from '../cluster/snapshot.ts';
import {
  enableAuthentication,
  forgetPrefix,
  forgetUser,
  grantedUsers,
  grantPrefix,
  hasNoSpace,
  versionOf,
} from './administration.ts';
import { AuthorityMissingError, ensureEtcdCredentials, managedEtcd } from './managed.ts';
import { troubleOf } from './trouble.ts';
import { isolatesUsers } from './versions.ts';

export interface EtcdAccessOptions {
  readonly client: KubeClient;
  /** The operator's own namespace. */
  readonly namespace: string;
  /** Client URLs of the managed etcd. */
  readonly endpoints: readonly string[];
  readonly clock: Clock;
  readonly log: Logger;
  /** Whether the last look at the managed etcd and its credentials found all well. */
  readonly onManaged?: (usable: boolean) => void;
  /** How often the managed etcd, its users and its credentials are looked at, ms. */
  readonly checkMs?: number;
  /** Something that a plan may depend on has changed about the cluster `namespace/name`. */
  readonly onChange: (key: string) => void;
}

/** A cluster as far as its state in etcd is concerned. */
export interface Tenant {
  readonly namespace: string;
  readonly name: string;
  readonly clusterId: string;
  /** An etcd of the user's own. */
  readonly etcd: PgClusterSpec['etcd'];
  readonly ttlMs: number;
}

interface Connection {
  readonly etcd: Etcd;
  readonly identity: string;
}

interface Tracked {
  readonly tenant: Tenant;
  readonly store: ClusterStore;
  readonly connection: Connection;
  readonly keys: ClusterKeys;
  readonly since: number;
  digest: string;
  leaderRevision: string | undefined;
  leaderChangedAt: number;
  wasSilent: boolean;
  wasReachable: boolean;
  problem: string | undefined;
  granted: boolean;
}

const timeoutMs = 2_000;
/** A cluster whose leader beats every second is heard of at least this often; others are asked, ms. */
const silenceMs = 5_000;
/** Nothing heard for this long: etcd counts as unreachable, ms. */
const unreachableMs = 12_000;
const checkMs = 60_000;
/** How long the first answer about a cluster, and the first connection, is waited for, ms. */
const patienceMs = 3_000;
const notAsked = { reason: 'Unknown', message: 'etcd has not been asked about this cluster yet' } as const;

/**
 * The operator's view of every cluster's state in etcd, kept up to date by watches. It runs only while this replica
 * leads: it makes the credentials of the managed etcd, turns authentication on there, and connects as root; to an etcd
 * of a user's own it connects with the certificate that the user gave.
 */
export class EtcdAccess implements Worker {
  readonly name = 'etcd';
  readonly #o: EtcdAccessOptions;
  readonly #stop = new AbortController();
  readonly #tracked = new Map<string, Tracked>();
  readonly #foreign = new Map<string, Connection>();
  #managed: Connection | undefined;
  #authority: KeyPair | undefined;
  #problem: { reason: UnknownReason; message: string } = {
    reason: 'EtcdUnreachable',
    message: 'The connection to the managed etcd is being set up',
  };
  /** Resolves after the first attempt to connect to the managed etcd. */
  readonly #tried = Promise.withResolvers<void>();
  #settled = false;
  /** The version of etcd that was last looked at. */
  #version: string | undefined;
  /** The alarm NOSPACE was raised in the managed etcd when it was last looked at. */
  #noSpace = false;
  /** When the end of its authority was looked at. */
  #authorityAt: number | undefined;
  #loops: Promise<unknown> | undefined;

  constructor(options: EtcdAccessOptions) {
    this.#o = options;
  }

  /** The authority of the managed etcd's certificates; undefined before it is known. */
  get authority(): KeyPair | undefined {
    return this.#authority;
  }

  start(): void {
    this.#loops ??= Promise.all([this.#keepManaged(), this.#watchClocks()]);
  }

  async stop(): Promise<boolean> {
    this.#stop.abort();
    for (const key of [...this.#tracked.keys()]) this.untrack(key);
    await this.#loops;
    this.#managed?.etcd.close();
    for (const { etcd } of this.#foreign.values()) etcd.close();
    return true;
  }

  /**
   * What etcd says about a cluster. The first time it waits a little for an answer, so that a start of the operator
   * does not look like a failure of etcd.
   */
  async observe(tenant: Tenant): Promise<Observed<EtcdFacts>> {
    await Promise.race([this.#tried.promise, sleep(this.#o.clock, patienceMs, this.#stop.signal)]);
    const connection = await this.#connect(tenant);
    if ('reason' in connection) return { known: false, ...connection };
    const tracked = this.#track(tenant, connection);
    const deadline = tracked.since + patienceMs;
    while (tracked.store.contactAt === undefined && this.#o.clock.monotonic() < deadline) {
      await sleep(this.#o.clock, 20, this.#stop.signal);
      if (this.#stop.signal.aborted) break;
    }
    return this.#facts(tracked);
  }

  /** Like `observe`, but from a linearizable read sent now. */
  async look(tenant: Tenant): Promise<Observed<EtcdFacts>> {
    const connection = await this.#connect(tenant);
    if ('reason' in connection) return { known: false, ...connection };
    const tracked = this.#track(tenant, connection);
    try {
      await tracked.store.refresh();
    } catch (error) {
      tracked.problem = messageOf(error);
      this.#o.log.warn({ cluster: keyOf(tenant), err: error }, 'etcd could not be read');
      return { known: false, ...this.#trouble(tracked) };
    }
    return this.#facts(tracked);
  }

  /** What was last heard of a cluster that is tracked, without asking. */
  peek(key: string): Observed<ClusterView> {
    const tracked = this.#tracked.get(key);
    if (tracked === undefined) return { known: false, ...(this.#settled ? this.#problem : notAsked) };
    const facts = this.#facts(tracked);
    return facts.known ? { known: true, value: facts.value.view } : facts;
  }

  /** Stops watching a cluster that is gone, and leaves an etcd of its own. */
  untrack(key: string): void {
    this.#tracked.get(key)?.store.stop();
    this.#tracked.delete(key);
    this.#foreign.get(key)?.etcd.close();
    this.#foreign.delete(key);
  }

  /** One transaction on the state of a cluster. Throws EtcdError. */
  async write(
    tenant: Tenant,
    make: (keys: ClusterKeys) => { key: string; value: string; expect: string },
  ): Promise<TransactionResult> {
    const tracked = this.#mustTrack(tenant);
    const { key, value, expect } = make(tracked.keys);
    const put: Operation = { op: 'put', key, value };
    const result = await tracked.connection.etcd.transact([{ key, modRevision: expect }], [put]);
    if (result.succeeded) {
      tracked.store.learn([{ key, value }], result.revision);
      this.#changed(tracked);
    }
    return result;
  }

  /** Gives the agents of a cluster the right to its state. */
  async grant(tenant: Tenant): Promise<void> {
    const tracked = this.#mustTrack(tenant);
    await grantPrefix(tracked.connection.etcd, tracked.keys);
    tracked.granted = true;
    this.#o.onChange(keyOf(tenant));
  }

  /** Removes who leads a cluster, and all that goes with it; what its agents say stays. Throws EtcdError. */
  async clear(tenant: Tenant): Promise<void> {
    const tracked = this.#mustTrack(tenant);
    const { keys, connection, store } = tracked;
    const { initialize, config, leader, sync, request, prefix } = keys;
    await connection.etcd.transact(
      [],
      [
        ...[initialize, config, leader, sync, request].map((key) => ({ op: 'delete' as const, key })),
        ...['command/', 'history/'].map((name) => ({ op: 'deletePrefix' as const, key: prefix + name })),
      ],
    );
    await store.refresh();
    this.#changed(tracked);
  }

  /** Removes the state of a cluster, and its user in the managed etcd. */
  async forget(tenant: Tenant): Promise<void> {
    const tracked = this.#mustTrack(tenant);
    await forgetPrefix(tracked.connection.etcd, tracked.keys.prefix);
    if (tenant.etcd === undefined && this.#secure)
      await forgetUser(tracked.connection.etcd, tracked.keys.user);
  }

  get #secure(): boolean {
    return this.#o.endpoints.every((endpoint) => endpoint.startsWith('https:'));
  }

  #mustTrack(tenant: Tenant): Tracked {
    const tracked = this.#tracked.get(keyOf(tenant));
    if (tracked === undefined) throw new Error(`etcd was never asked about ${keyOf(tenant)}`);
    return tracked;
  }

  async #connect(tenant: Tenant): Promise<Connection | { reason: UnknownReason; message: string }> {
    if (tenant.etcd === undefined) return this.#managed ?? this.#problem;
    const { endpoints, tlsSecret } = tenant.etcd;
    const secret = await this.#o.client.find(resources.secrets, {
      namespace: tenant.namespace,
      name: tlsSecret,
    });
    const [cert, key, ca] = [tlsKey.cert, tlsKey.key, tlsKey.ca].map((name) => read(secret, name));
    if (cert === undefined || key === undefined || ca === undefined) {
      return {
        reason: 'SecretMissing',
        message: `The Secret ${tlsSecret} (spec.etcd.tlsSecret) ${secret === undefined ? 'does not exist' : 'lacks tls.crt, tls.key or ca.crt'}: create it in the namespace ${tenant.namespace}`,
      };
    }
    const identity = createHash('sha256')
      .update([...endpoints, cert, key, ca].join('\n'))
      .digest('hex');
    const known = this.#foreign.get(keyOf(tenant));
    if (known?.identity === identity) return known;
    known?.etcd.close();
    const connection = {
      identity,
      etcd: connect({
        endpoints,
        timeoutMs,
        tls: { ca: Buffer.from(ca), cert: Buffer.from(cert), key: Buffer.from(key) },
      }),
    };
    this.#foreign.set(keyOf(tenant), connection);
    return connection;
  }

  #track(tenant: Tenant, connection: Connection): Tracked {
    const key = keyOf(tenant);
    const known = this.#tracked.get(key);
    if (known?.connection === connection && known.tenant.clusterId === tenant.clusterId) return known;
    known?.store.stop();
    const { clock, log } = this.#o;
    const keys = clusterKeys(tenant.namespace, tenant.name, tenant.clusterId);
    const store = new ClusterStore({
      etcd: connection.etcd,
      keys,
      now: () => clock.monotonic(),
      silenceMs,
      onChange: () => this.#changed(tracked),
      onProblem: (message) => {
        tracked.problem = message;
        log.warn({ cluster: key }, message);
      },
    });
    const tracked: Tracked = {
      tenant,
      store,
      connection,
      keys,
      since: clock.monotonic(),
      digest: '',
      leaderRevision: undefined,
      leaderChangedAt: clock.monotonic(),
      wasSilent: false,
      wasReachable: true,
      problem: undefined,
      granted: tenant.etcd !== undefined || !this.#secure,
    };
    this.#tracked.set(key, tracked);
    store.start();
    return tracked;
  }

  #facts(tracked: Tracked): Observed<EtcdFacts> {
    if (!this.#isReachable(tracked)) {
      const asking =
        tracked.store.contactAt === undefined && this.#o.clock.monotonic() - tracked.since < patienceMs;
      return { known: false, ...(asking ? notAsked : this.#trouble(tracked)) };
    }
    const { view } = tracked.store;
    this.#noteLeader(tracked, view);
    return {
      known: true,
      value: {
        view,
        leaderSilentMs: this.#o.clock.monotonic() - tracked.leaderChangedAt,
        granted: tracked.granted,
        noSpace: tracked.tenant.etcd === undefined && this.#noSpace,
      },
    };
  }

  #trouble({ problem, tenant }: Tracked): { reason: UnknownReason; message: string } {
    if (problem === undefined) return { reason: 'EtcdUnreachable', message: 'etcd does not answer' };
    const { refused, what } = troubleOf(problem);
    const message =
      tenant.etcd === undefined ? problem : `etcd (${tenant.etcd.endpoints.join(', ')}): ${what}`;
    return { reason: refused ? 'EtcdRefused' : 'EtcdUnreachable', message };
  }

  #isReachable({ store }: Tracked): boolean {
    return store.contactAt !== undefined && this.#o.clock.monotonic() - store.contactAt < unreachableMs;
  }

  #noteLeader(tracked: Tracked, view: ClusterView): void {
    const revision = view.leader?.revision;
    if (revision === tracked.leaderRevision) return;
    tracked.leaderRevision = revision;
    tracked.leaderChangedAt = this.#o.clock.monotonic();
  }

  #changed(tracked: Tracked): void {
    tracked.problem = undefined;
    const { view } = tracked.store;
    this.#noteLeader(tracked, view);
    const digest = digestOf(view);
    if (digest === tracked.digest) return;
    tracked.digest = digest;
    this.#o.onChange(keyOf(tracked.tenant));
  }

  /** Tells what no event tells: that etcd, or a leader, has fallen silent. */
  async #watchClocks(): Promise<void> {
    const { clock, onChange } = this.#o;
    for (;;) {
      await sleep(clock, 1_000, this.#stop.signal);
      if (this.#stop.signal.aborted) return;
      for (const tracked of this.#tracked.values()) {
        const reachable = this.#isReachable(tracked);
        const silent = clock.monotonic() - tracked.leaderChangedAt > tracked.tenant.ttlMs + 2_000;
        if (reachable !== tracked.wasReachable || silent !== tracked.wasSilent)
          onChange(keyOf(tracked.tenant));
        tracked.wasReachable = reachable;
        tracked.wasSilent = silent;
      }
    }
  }

  async #keepManaged(): Promise<void> {
    const { client, namespace, endpoints, clock, log, onChange } = this.#o;
    const { signal } = this.#stop;
    for (let failures = 0; !signal.aborted; ) {
      try {
        if (this.#secure) {
          const now = new Date(clock.now());
          const { authority, root } = await ensureEtcdCredentials(client, namespace, now, log);
          this.#authority = authority;
          this.#noteAuthority(authority, now);
          await this.#keepAuthentication(this.#connectManaged(authority, root));
        } else {
          this.#managed ??= { identity: 'plain', etcd: connect({ endpoints, timeoutMs }) };
        }
        if (failures > 0) log.info('the managed etcd answers');
        // Whoever was told that etcd is not usable looks again.
        if (failures > 0 || !this.#settled)
          for (const tracked of this.#tracked.values()) onChange(keyOf(tracked.tenant));
        failures = 0;
        this.#settle(true);
        await sleep(clock, this.#o.checkMs ?? checkMs, signal);
      } catch (error) {
        failures += 1;
        const message = messageOf(error);
        const missing = error instanceof AuthorityMissingError;
        this.#problem = {
          reason: missing
            ? 'SecretMissing'
            : /certificate|denied|auth/i.test(message)
              ? 'EtcdRefused'
              : 'EtcdUnreachable',
          message: missing ? message : `The managed etcd (${endpoints.join(', ')}) is not usable: ${message}`,
        };
        this.#settle(false);
        if (failures === 1 || failures % 60 === 0)
          log[missing ? 'error' : 'warn']({ err: error, failures }, this.#problem.message);
        await sleep(clock, Math.min(500 * 2 ** Math.min(failures - 1, 4), 5_000), signal);
      }
    }
  }

  #settle(usable: boolean): void {
    this.#settled = true;
    this.#tried.resolve();
    this.#o.onManaged?.(usable);
  }

  /** The connection as root; the one there is, unless the certificate is another one by now. */
  #connectManaged(authority: KeyPair, root: KeyPair): Connection {
    const identity = createHash('sha256').update(root.cert).digest('hex');
    if (this.#managed?.identity === identity) return this.#managed;
    const tls = { ca: Buffer.from(authority.cert), cert: Buffer.from(root.cert), key: Buffer.from(root.key) };
    return { identity, etcd: connect({ endpoints: this.#o.endpoints, timeoutMs, tls }) };
  }

  /**
   * Sees to it that authentication is on and that every cluster has its user; only then is the connection used. Both
   * are looked at again and again: an etcd that was made anew, restored from an older copy, or tampered with, has not
   * what was once put there.
   */
  async #keepAuthentication(connection: Connection): Promise<void> {
    const { log, onChange } = this.#o;
    const { etcd } = connection;
    const former = this.#managed;
    try {
      await this.#noteAlarm(etcd);
      const { wasOff } = await enableAuthentication(etcd);
      if (wasOff) log.warn('authentication was off in the managed etcd; it is on now');
      const users = await grantedUsers(etcd);
      for (const tracked of this.#tracked.values()) {
        if (!tracked.granted || tracked.tenant.etcd !== undefined || users.has(tracked.keys.user)) continue;
        tracked.granted = false;
        log.warn({ cluster: keyOf(tracked.tenant) }, 'the managed etcd has lost the user of a cluster');
        onChange(keyOf(tracked.tenant));
      }
      await this.#checkVersion(etcd);
    } catch (error) {
      if (connection !== former) etcd.close();
      throw error;
    }
    this.#managed = connection;
    // Stores move over at their next use; only then is the former connection closed.
    if (former !== undefined && former !== connection) setTimeout(() => former.etcd.close(), 60_000).unref();
  }

  /** Before anything else is looked at: with the alarm every write fails. */
  async #noteAlarm(etcd: Etcd): Promise<void> {
    const raised = await hasNoSpace(etcd);
    if (raised === this.#noSpace) return;
    this.#noSpace = raised;
    this.#o.log[raised ? 'error' : 'info'](
      raised
        ? 'the managed etcd has run out of space (alarm NOSPACE): it takes no writes, and primaries stop (docs/etcd.md, "NOSPACE")'
        : 'the alarm NOSPACE of the managed etcd is lifted',
    );
    for (const tracked of this.#tracked.values()) this.#o.onChange(keyOf(tracked.tenant));
  }

  /** Says once a day that the authority is about to end. */
  #noteAuthority({ cert }: KeyPair, now: Date): void {
    const at = this.#o.clock.monotonic();
    if (this.#authorityAt !== undefined && at - this.#authorityAt < 86_400_000) return;
    this.#authorityAt = at;
    const notice = authorityNotice(cert, managedEtcd.authoritySecret, now);
    if (notice !== undefined) this.#o.log.warn(notice);
  }

  /** Says once per version that it does not keep clusters apart. */
  async #checkVersion(etcd: Etcd): Promise<void> {
    const version = await versionOf(etcd);
    if (version === this.#version) return;
    this.#version = version;
    if (!isolatesUsers(version))
      this.#o.log.warn(
        { version },
        'this version of etcd does not keep the clusters that share it apart: whoever holds the certificate of one can get at the state of all; expected 3.6.14, 3.7.1 or newer (docs/operations.md, "etcd")',
      );
  }
}

const keyOf = ({ namespace, name }: Tenant): string => `${namespace}/${name}`;
const connect = (options: EtcdOptions): Etcd => new Etcd(options);
const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** What plans depend on: everything but heartbeats and positions. */
function digestOf(view: ClusterView): string {
  const { leader, members, commands, request, sync, config, initialize, invalid } = view;
  return JSON.stringify([
    initialize?.value,
    config?.revision,
    leader === undefined ? null : { ...leader.value, beat: 0, lsn: '' },
    sync?.value,
    request?.value,
    [...members.values()].map(({ value: { lagBytes, receivedLsn: _r, replayedLsn: _p, ...rest } }) => [
      rest,
      lagClass(lagBytes),
    ]),
    [...commands.entries()].map(([name, { value }]) => [name, value]),
    invalid,
  ]);
}
