import type { LeaderWrite, PromiseRequest } from '../src/agent/ha/index.ts';
import { noDataId } from '../src/agent/ha/index.ts';
import { type ClusterView, clockRateError } from '../src/dcs/index.ts';
import { parseLsn } from '../src/postgres/lsn.ts';
import { placeholderName, replicationName } from '../src/postgres/replication-names.ts';
import type { Machine } from './machine.ts';
import type { Commit } from './postgres.ts';
import { contains, history, type WalRecord } from './wal.ts';
import type { World } from './world.ts';

/** What must hold; where a name has a number R1 to R10, it is that of a rule in docs/high-availability.md. */
export const invariants = {
  'no-acknowledged-commit-lost': 'invariant 2: a commit acknowledged synchronously is in every later primary',
  'late-acknowledgement': 'invariant 1: a primary of an older term acknowledges only what the newer one has',
  'one-writable':
    'invariant 1: with strict fencing or without synchronous standbys one instance accepts writes',
  'fence-in-time':
    'invariant 1: without a heartbeat, and without the promise of everybody who may stand, no Postgres is writable when the ttl is over',
  failsafe:
    'invariant 10: while etcd is away and everything else is healthy, writes go on and nobody is promoted',
  'read-value-lost': 'invariant 3: what clients of a primary could read is in every later primary',
  'unique-term': 'invariant 4: nobody is promoted twice in a term, and terms only grow',
  'unique-timeline': 'invariant 4: no timeline id is used twice',
  'one-history-per-timeline': 'invariant 4: WAL of one history is never added to another',
  'won-term': 'invariant 4: who is promoted has won that term',
  'all-replayed': 'R5: everything received is replayed before a promotion',
  'names-in-force':
    'R3, R8: Postgres requires every name that is in sync, in every process that releases commits',
  'fresh-heartbeat':
    'R10: Postgres becomes writable only after a heartbeat of this boot whose deadline is open',
  'history-first': 'the history names the term before clients are led to its primary',
  'usable-data': 'S12: a tainted or empty data directory is never started',
  'newest-copy-kept': 'S13: data is thrown away only while all that was acknowledged is elsewhere',
  'level-hand-over': 'a leader that hands over has stopped and left nothing behind',
  'forced-failover':
    'a loss is accepted only for a request of a person, while no primary serves, and it is recorded',
  paused: 'while automatic failover is paused nobody takes over but whom the leader handed over to',
  'maximum-lag': 'S4: an asynchronous takeover loses at most the bound of what the leader was known to have',
  'may-lead': 'who may not lead (noFailover) neither takes over nor is chosen to be synchronous',
  liveness: 'invariant 11: when the faults are over there is a primary, and everybody streams from it',
} as const;
export type InvariantName = keyof typeof invariants;

/** An invariant does not hold. */
export class Violation extends Error {
  override readonly name = 'Violation';
  readonly invariant: InvariantName;
  constructor(invariant: InvariantName, message: string) {
    super(message);
    this.invariant = invariant;
  }
}

/** An acknowledged commit and who may be counted on to have it. */
interface Promise_ {
  readonly commit: Commit;
  readonly record: WalRecord;
  readonly term: number;
  readonly what: 'commit' | 'read';
  /** Data ids: the primary's and those of the synchronous set of that moment. */
  readonly holders: readonly string[];
}

interface Promotion {
  readonly term: number;
  readonly timeline: number;
  readonly machine: Machine;
  readonly begin: WalRecord;
}

/** Watches a simulation; throws a Violation as soon as something does not hold. */
export class Invariants {
  readonly #world: World;
  #promises: Promise_[] = [];
  readonly #promotions: Promotion[] = [{ term: 1, timeline: 1 } as Promotion];
  /** Which boots have written the leader key in which term. */
  readonly #wins = new Map<number, Set<string>>();
  /** The data that took over with an accepted loss, until the history says so. */
  #forced: string | undefined;
  #pause = { from: 0, until: 0 };
  /** Since when the configuration says that an instance may not lead; 0: from the beginning. */
  readonly #barredSince = new Map<string, number>();
  /** By boot: when the newest write of the leader key that was carried out was sent. */
  readonly #heartbeats = new Map<string, number>();
  /** By boot that asked: who promised it last when, by data id (R11). */
  readonly #promised = new Map<string, Map<string, number>>();
  /** By boot: when everybody who might stand had promised it not to. */
  readonly #covered = new Map<string, number>();
  /** etcd alone is away until then, and this one is to serve on. */
  #servesOn: { readonly machine: Machine; readonly since: number; readonly until: number } | undefined;
  #checkedSync: string | undefined;
  #checkedSettings = -1;
  #checkedLeader: Machine | undefined;
  /** Taken when its Postgres became writable: what clients could read from the start. */
  readonly #firstReads = new Map<Machine, WalRecord>();
  acknowledgedCount = 0;
  /** Of those, by a primary when a newer one had been promoted: allowed, because the newer one has them (CE1). */
  lateCount = 0;
  /** When the newest of those was begun that waited for whom it had to wait for. */
  lastAcknowledgedBegan = 0;

  constructor(world: World) {
    this.#world = world;
  }

  violated(invariant: InvariantName, message: string): never {
    throw new Violation(invariant, message);
  }

  /** After every event. */
  check(): void {
    const { machines, now } = this.#world;
    let writable: Machine | undefined;
    for (const machine of machines) {
      const { postgres } = machine;
      if (!postgres.writable || !machine.serves) continue;
      this.#fenceInTime(machine, now);
      if (!postgres.settings.clientsAllowed) continue;
      if (writable !== undefined) this.#twoWritable(writable, machine);
      writable = machine;
      this.#opened(machine);
    }
    this.#namesInForce();
    this.#failsafe(now);
  }

  // ------------------------------------------------------------------------------------------- leadership

  /** The configuration says from now on whether this one may lead. */
  barred(machine: Machine, noFailover: boolean): void {
    if (noFailover) this.#barredSince.set(machine.name, this.#world.now);
    else this.#barredSince.delete(machine.name);
  }

  /** Automatic failover is paused from now on. */
  paused(until: number): void {
    // Clocks differ in their rates, and a read that a takeover rests on may be older than the pause.
    this.#pause = {
      from: this.#world.now + 4_000,
      until: until - (until - this.#world.now) * clockRateError,
    };
  }

  #keepsPause(machine: Machine, write: LeaderWrite, sentAt: number, before: ClusterView): void {
    if (write.kind !== 'take' || sentAt <= this.#pause.from || sentAt >= this.#pause.until) return;
    // A person may ask for it all the same.
    if (write.expectRequest !== undefined) return;
    const leader = before.leader?.value;
    if (leader?.phase === 'vacated' && leader.successor === machine.name) return;
    this.violated('paused', `${machine.name} takes over while automatic failover is paused`);
  }

  /** A takeover by the decision of a person: what others hold beyond it is given up, and that is to be recorded. */
  #lossAccepted(machine: Machine, write: LeaderWrite, before: ClusterView): void {
    if (write.kind === 'history' && this.#forced === machine.disk.dataId) {
      if (write.history?.lossAccepted !== true)
        this.violated(
          'forced-failover',
          `the history of ${machine.name} does not say that a loss was accepted`,
        );
      this.#forced = undefined;
    }
    if (write.kind !== 'take') return;
    this.#forced = undefined;
    if (write.leader.accepted === undefined) return;
    const asked = before.request?.value;
    if (asked?.kind !== 'failover' || asked.to !== machine.name || asked.dataId !== machine.disk.dataId)
      this.violated('forced-failover', `${machine.name} takes over with loss, and nobody asked for it`);
    const serving = this.#world.machines.find(
      (m) => m !== machine && m.serves && m.postgres.writable && !this.#thawing(m),
    );
    if (serving !== undefined)
      this.violated('forced-failover', `${machine.name} takes over with loss while ${serving.name} serves`);
    this.#forced = machine.disk.dataId;
    const there = history(machine.disk.tip);
    this.#promises = this.#promises.filter((promise) => there.has(promise.record));
  }

  #keepsBound(machine: Machine, write: LeaderWrite, { leader, sync, config }: ClusterView): void {
    const bound = config?.value.maximumLagBytes;
    const isFree =
      write.kind !== 'take' || write.leader.accepted !== undefined || sync?.value.mode !== 'async';
    if (isFree || bound === undefined || leader?.value.lsn === undefined) return;
    if (leader.value.phase === 'vacated' && leader.value.successor === machine.name) return;
    const lacks = parseLsn(leader.value.lsn) - BigInt(machine.disk.tip.lsn);
    if (lacks > BigInt(bound))
      this.violated('maximum-lag', `${machine.name} takes over and lacks ${lacks}, and may lack ${bound}`);
  }

  #mayLead(machine: Machine, write: LeaderWrite, sentAt: number, before: ClusterView): void {
    const since = this.#barredSince.get(machine.name);
    // The read that a takeover rests on is half a second old at its beginning, and it lasts 3 s at the most.
    if (write.kind === 'take' && since !== undefined && sentAt - since > 4_000)
      this.violated('may-lead', `${machine.name} takes over, and may not`);
    if (write.kind !== 'sync' || write.sync?.mode !== 'sync') return;
    const known = before.sync?.value.names.map((m) => m.instance) ?? [];
    const added = write.sync.names.find((m) => !known.includes(m.instance));
    // Whoever leads has known from its first configuration what was so from the beginning.
    if (added !== undefined && this.#barredSince.get(added.instance) === 0)
      this.violated('may-lead', `${added.instance} is made synchronous, and may not lead`);
  }

  /** A transaction of a leader or candidate was carried out; `before`: what etcd held until then. */
  written(machine: Machine, write: LeaderWrite, sentAt: number, before: ClusterView): void {
    this.#mayLead(machine, write, sentAt, before);
    this.#keepsPause(machine, write, sentAt, before);
    this.#lossAccepted(machine, write, before);
    this.#keepsBound(machine, write, before);
    const { term, bootId, phase } = write.leader;
    const { lastTerm } = this.#world;
    if (term < lastTerm)
      this.violated('unique-term', `${machine.name} writes term ${term} after term ${lastTerm}`);
    const holders = this.#wins.get(term);
    if ((write.kind === 'take' || write.kind === 'new-term') && holders !== undefined)
      this.violated(
        'unique-term',
        `${machine.name} takes term ${term}, which ${[...holders].join(', ')} had`,
      );
    if (holders === undefined) this.#wins.set(term, new Set([bootId]));
    else holders.add(bootId);
    this.#world.lastTerm = term;
    this.#heartbeats.set(bootId, Math.max(this.#heartbeats.get(bootId) ?? 0, sentAt));
    if (phase === 'vacated' && machine.agent?.bootId === bootId && machine.postgres.writable)
      this.violated('level-hand-over', `${machine.name} hands over while its Postgres takes writes`);
    if (phase === 'vacated') this.#levelSuccessor(machine, write);
  }

  /** Whom a stopped leader names has all that it had acknowledged. */
  #levelSuccessor(machine: Machine, write: LeaderWrite): void {
    const successor = this.#world.machine(write.leader.successor);
    const { target, unreachable } = machine.agent?.state.handover ?? {};
    // Rule "Leave": it holds what was acknowledged, being in `sync` (invariant 2); of the rest nobody knows.
    if (unreachable === true) return;
    if (successor === undefined || target?.dataId !== successor.disk.dataId) return;
    const { tip } = successor.disk;
    if (!contains(tip, machine.disk.tip) && tip.branch.timeline <= machine.disk.tip.branch.timeline)
      this.violated(
        'level-hand-over',
        `${successor.name} does not hold all that ${machine.name} had when it stopped`,
      );
  }

  /** An operation begins that will make a Postgres run. */
  starting(machine: Machine, as: 'primary' | 'standby'): void {
    if (machine.disk.state !== 'ready')
      this.violated(
        'usable-data',
        `${machine.name} starts Postgres on a data directory that is ${machine.disk.state}`,
      );
    if (as === 'primary') this.#needsHeartbeat(machine, 'starts Postgres as primary');
  }

  startedAsPrimary(machine: Machine): void {
    this.#world.tell(machine, `Postgres runs as primary on timeline ${machine.disk.tip.branch.timeline}`);
    this.#keeps(machine, 'starts as primary', machine.agent?.state.reign?.term ?? 0);
    // Without the checkpoint that the start itself has written.
    this.#firstReads.set(machine, machine.disk.tip.before ?? machine.disk.tip);
  }

  promoted(machine: Machine, parent: WalRecord, unreplayed: boolean): void {
    const { tip } = machine.disk;
    const { timeline } = tip.branch;
    const term = machine.agent?.state.reign?.term ?? 0;
    this.#world.tell(
      machine,
      `is promoted in term ${term}: timeline ${parent.branch.timeline} -> ${timeline} at ${parent.lsn}`,
    );
    if (unreplayed)
      this.violated('all-replayed', `${machine.name} is promoted before all that it received is replayed`);
    this.#needsHeartbeat(machine, 'is promoted');
    const bootId = machine.agent?.bootId ?? '';
    if (this.#wins.get(term)?.has(bootId) !== true)
      this.violated('won-term', `${machine.name} is promoted in term ${term}, which it has not won`);
    for (const other of this.#promotions) {
      if (other.term === term)
        this.violated(
          'unique-term',
          `${machine.name} is promoted in term ${term}, as ${other.machine?.name ?? 'the first'} was`,
        );
      if (other.timeline === timeline)
        this.violated(
          'unique-timeline',
          `${machine.name} begins timeline ${timeline}, as ${other.machine?.name ?? 'the first'} did`,
        );
    }
    if (this.#servesOn !== undefined)
      this.violated('failsafe', `${machine.name} is promoted although only etcd was away`);
    this.#promotions.push({ term, timeline, machine, begin: tip });
    this.#keeps(machine, 'is promoted', term);
    this.#firstReads.set(machine, parent);
  }

  /** Clients are led to this primary. */
  routed(machine: Machine, term: number): void {
    if (!this.#world.etcd.view.history.has(term))
      this.violated(
        'history-first',
        `clients are led to ${machine.name}, and the history does not know term ${term}`,
      );
  }

  #needsHeartbeat(machine: Machine, what: string): void {
    const { agent } = machine;
    const sent = agent === undefined ? undefined : this.#heartbeats.get(agent.bootId);
    if (sent === undefined)
      this.violated('fresh-heartbeat', `${machine.name} ${what} and this boot has written no heartbeat`);
    if (this.#world.now - sent > this.#ttl && !this.#thawing(machine))
      this.violated(
        'fresh-heartbeat',
        `${machine.name} ${what} ${this.#world.now - sent} ms after its last heartbeat`,
      );
  }

  get #ttl(): number {
    return this.#world.ttlMs;
  }

  /** Nothing can run while the machine is suspended; koschei-init's own budget then begins. */
  #thawing(machine: Machine): boolean {
    return this.#world.now - machine.thawedAt <= 1_300;
  }

  /** R11: this agent has promised not to stand. */
  promised(machine: Machine, { bootId }: PromiseRequest): void {
    const { leader, sync } = this.#world.etcd.view;
    const given = this.#promised.get(bootId) ?? new Map<string, number>();
    this.#promised.set(bootId, given.set(machine.disk.dataId, this.#world.now));
    if (leader?.value.bootId !== bootId || sync === undefined) return;
    // Everybody who may stand, by what etcd holds now.
    const standing = sync.value.mode === 'sync' ? sync.value.names : leader.value.members;
    const oldest = standing
      .filter(({ dataId }) => dataId !== leader.value.dataId && dataId !== noDataId)
      .reduce(
        (at, { dataId }) => Math.min(at, given.get(dataId) ?? Number.NEGATIVE_INFINITY),
        this.#world.now,
      );
    this.#covered.set(bootId, Math.max(this.#covered.get(bootId) ?? oldest, oldest));
  }

  /** etcd goes away, and nothing else happens until it comes back. */
  etcdGoesAway(until: number): void {
    const { machines, now } = this.#world;
    const machine = machines.find((m) => m.serves && m.postgres.writable);
    if (machine !== undefined && this.unhealthy(0) === undefined)
      this.#servesOn = { machine, since: now, until };
  }

  #failsafe(now: number): void {
    const expected = this.#servesOn;
    if (expected === undefined) return;
    const { machine, since, until } = expected;
    if (now > until) this.#servesOn = undefined;
    const { postgres } = machine;
    if (!machine.serves || !postgres.writable || !postgres.settings.clientsAllowed)
      this.violated('failsafe', `${machine.name} serves no more, ${now - since} ms after etcd went away`);
    if (now - Math.max(since, this.lastAcknowledgedBegan) > 3_000)
      this.violated('failsafe', `no commit was acknowledged for 3 s, ${now - since} ms after etcd went away`);
  }

  #fenceInTime(machine: Machine, now: number): void {
    const boot = machine.lastBootId;
    const sent = this.#heartbeats.get(boot) ?? Number.NEGATIVE_INFINITY;
    const { leader, sync } = this.#world.etcd.view;
    const alone =
      leader?.value.bootId === boot &&
      (sync?.value.mode === 'sync' ? sync.value.names.length === 0 : leader.value.members.length === 1);
    const covered = Math.max(sent, this.#covered.get(boot) ?? sent);
    if (now - covered <= this.#ttl || alone || this.#thawing(machine)) return;
    this.violated(
      'fence-in-time',
      `${machine.name} is writable ${now - sent} ms after it sent its last good heartbeat; the ttl is ${this.#ttl} ms`,
    );
  }

  #twoWritable(a: Machine, b: Machine): void {
    const { config, sync } = this.#world.etcd.view;
    const exclusive = config?.value.fencing === 'strict' || sync?.value.mode === 'async';
    if (!exclusive || this.#world.reconfigured || this.#thawing(a) || this.#thawing(b)) return;
    this.violated('one-writable', `${a.name} and ${b.name} both take writes`);
  }

  /** R3 and R8, looked at whenever a side of it has changed. */
  #namesInForce(): void {
    const { leader, sync } = this.#world.etcd.view;
    if (leader === undefined || sync === undefined) return;
    const machine = this.#world.machine(leader.value.instance);
    if (machine === undefined) return;
    const { postgres } = machine;
    if (
      this.#checkedSync === sync.revision &&
      this.#checkedSettings === postgres.settingsVersion &&
      this.#checkedLeader === machine
    )
      return;
    this.#checkedSync = sync.revision;
    this.#checkedSettings = postgres.settingsVersion;
    this.#checkedLeader = machine;
    if (!postgres.writable || machine.agent?.bootId !== leader.value.bootId || sync.value.mode !== 'sync')
      return;
    const stored = sync.value.names.map((m) => replicationName(m.dataId));
    const missing = (names: readonly string[]) => stored.filter((n) => !names.includes(n));
    const tell = (names: readonly string[]) => names.map((n) => this.#world.nameOf(n)).join(', ');
    const lacking = missing(postgres.settings.synchronousNames);
    if (lacking.length > 0)
      this.violated(
        'names-in-force',
        `sync names ${tell(lacking)}, and the Postgres of ${machine.name} does not require it`,
      );
    if (
      !postgres.waits &&
      (stored.length > 0 || postgres.settings.synchronousNames.includes(placeholderName))
    )
      if (stored.length > 0)
        this.violated(
          'names-in-force',
          `sync names ${tell(stored)}, and commits on ${machine.name} do not wait`,
        );
    for (const w of postgres.walsenders) {
      if (!w.names.includes(w.name)) continue;
      const unknown = missing(w.names);
      if (unknown.length > 0)
        this.violated(
          'names-in-force',
          `sync names ${tell(unknown)}, and the walsender of ${w.standby.name} on ${machine.name} still goes by [${tell(w.names)}]`,
        );
    }
  }

  // ------------------------------------------------------------------------------------------- data

  /** A client was told that its commit is done. */
  acknowledged(machine: Machine, commit: Commit, synchronously: boolean): void {
    const { record } = commit;
    if (record === undefined) return;
    this.acknowledgedCount += 1;
    if (!commit.local) this.lastAcknowledgedBegan = Math.max(this.lastAcknowledgedBegan, commit.begunAt);
    const mine = this.#promotions.findLast((p) => p.machine === machine)?.term ?? 1;
    const { sync, config } = this.#world.etcd.view;
    const exclusive = config?.value.fencing === 'strict' || sync?.value.mode === 'async';
    for (const later of this.#promotions) {
      if (later.term <= mine || commit.local) continue;
      this.lateCount += 1;
      if (exclusive && !this.#world.reconfigured && !this.#thawing(machine))
        this.violated(
          'one-writable',
          `${machine.name} of term ${mine} acknowledges after ${later.machine.name} began term ${later.term}`,
        );
      if (
        synchronously &&
        !contains(later.begin, record) &&
        this.#world.etcd.view.sync?.value.mode === 'sync'
      )
        this.violated(
          'late-acknowledgement',
          `${machine.name} of term ${mine} acknowledges commit ${commit.number}, which ${later.machine.name} of term ${later.term} does not have`,
        );
    }
    if (commit.local || sync?.value.mode !== 'sync') return;
    const old = this.#promotions.some((p) => p.term > mine);
    if (old && !synchronously) return;
    this.#promises.push({ commit, record, term: mine, what: 'commit', holders: this.#holders(machine) });
  }

  #holders(machine: Machine): string[] {
    const { sync } = this.#world.etcd.view;
    return [machine.disk.dataId, ...(sync?.value.names.map((m) => m.dataId) ?? [])];
  }

  /** From now on clients can read what this primary began with. */
  #opened(machine: Machine): void {
    const record = this.#firstReads.get(machine);
    if (record === undefined) return;
    this.#firstReads.delete(machine);
    const { sync, leader } = this.#world.etcd.view;
    if (sync?.value.mode !== 'sync' || leader?.value.instance !== machine.name) return;
    const term = machine.agent?.state.reign?.term ?? 0;
    const commit = { number: 0, local: false, begunAt: this.#world.now };
    this.#promises.push({ commit, record, term, what: 'read', holders: this.#holders(machine) });
  }

  /** The async mode keeps no promise. */
  forgetPromises(): void {
    this.#promises = [];
  }

  /** This machine's Postgres takes the lead: it must have all that was promised, unless nobody has it any more. */
  #keeps(machine: Machine, what: string, term: number): void {
    if (this.#promises.length === 0) return;
    const there = history(machine.disk.tip);
    for (const promise of this.#promises) {
      if (there.has(promise.record) || promise.term > term || !this.#survives(promise)) continue;
      this.violated(
        promise.what === 'read' ? 'read-value-lost' : 'no-acknowledged-commit-lost',
        promise.what === 'read'
          ? `${machine.name} ${what} in term ${term} without what clients could read in term ${promise.term}`
          : `${machine.name} ${what} in term ${term} without commit ${promise.commit.number}, acknowledged in term ${promise.term}`,
      );
    }
  }

  #survives(promise: Promise_): boolean {
    return this.#world.machines.some(
      ({ disk }) => disk.state === 'ready' && promise.holders.includes(disk.dataId),
    );
  }

  /** A data directory is about to become another one, or unusable (`becomes` undefined) until it is made anew. */
  discarding(machine: Machine, source: Machine, becomes: WalRecord | undefined): void {
    if (this.#promises.length === 0 || machine.disk.state !== 'ready') return;
    const mine = history(machine.disk.tip);
    const copies = this.#world.machines
      .filter((m) => m !== machine && m.disk.state === 'ready')
      .map((m) => history(m.disk.tip));
    if (becomes !== undefined) copies.push(history(becomes));
    for (const promise of this.#promises) {
      if (!mine.has(promise.record) || copies.some((records) => records.has(promise.record))) continue;
      this.violated(
        'newest-copy-kept',
        `${machine.name} gives up its data for those of ${source.name}, and nobody else has commit ${promise.commit.number} of term ${promise.term}`,
      );
    }
  }

  // ------------------------------------------------------------------------------------------- when faults are over

  /** Why the cluster is not yet as it should be; undefined: it is. */
  unhealthy(calmSince = this.#world.calmSince): string | undefined {
    const { machines, etcd } = this.#world;
    const primaries = machines.filter(
      (m) => m.serves && m.postgres.writable && m.postgres.settings.clientsAllowed,
    );
    const [primary] = primaries;
    if (primary === undefined || primaries.length > 1)
      return primaries.length === 0 ? 'nobody takes writes' : 'more than one takes writes';
    if (etcd.view.leader?.value.instance !== primary.name)
      return `${primary.name} takes writes and is not the leader`;
    if (primary.agent?.state.reign?.stage !== 'leading') return `${primary.name} does not lead yet`;
    if (this.lastAcknowledgedBegan <= calmSince) return 'no commit was acknowledged';
    for (const m of machines) {
      if (m === primary) continue;
      const from: Machine | undefined = m.postgres.receiver?.primary;
      const cascades = m.postgres.settings.upstream?.cascades === true;
      if (from !== primary && !(cascades && from?.postgres.receiver?.primary === primary))
        return `${m.name} does not stream`;
      if (!contains(primary.disk.tip, m.disk.tip)) return `${m.name} has another history`;
    }
    const there = history(primary.disk.tip);
    for (const promise of this.#promises)
      if (!there.has(promise.record) && this.#survives(promise))
        this.violated(
          'no-acknowledged-commit-lost',
          `in the end ${primary.name} leads without commit ${promise.commit.number} of term ${promise.term}`,
        );
    return undefined;
  }

  /** Nobody may lead: those who could are gone for good, and a person has to decide (invariant 2). */
  hopeless(view: ClusterView): boolean {
    const { leader, sync } = view;
    const ids = this.#world.machines.filter((m) => m.disk.state === 'ready').map((m) => m.disk.dataId);
    if (leader === undefined || sync === undefined)
      return !this.#world.machines.some((m) => m.disk.state === 'ready' && m.disk.bootstrap);
    const { maximumLagBytes } = view.config?.value ?? {};
    // Others may be too far behind for ever.
    const listed = maximumLagBytes === undefined ? leader.value.members : [];
    const others = sync.value.mode === 'sync' ? sync.value.names : listed;
    const may = [leader.value, ...others.filter((m) => !this.#barredSince.has(m.instance))];
    return !may.some((m) => ids.includes(m.dataId));
  }
}

/** The shortest time that counts as a ttl on another machine's clock, simulated ms. */
export function shortestTtl(ttlMs: number): number {
  return Math.floor(ttlMs * (1 - clockRateError / 2));
}
