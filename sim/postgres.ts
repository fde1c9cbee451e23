import type { AppliedSettings, Observation, Settings } from '../src/agent/ha/index.ts';
import { replicationName } from '../src/postgres/replication-names.ts';
import type { Machine } from './machine.ts';
import { append, contains, fork, type WalRecord } from './wal.ts';
import type { World } from './world.ts';

/** A commit of a client. */
export interface Commit {
  readonly number: number;
  /** The session has set `synchronous_commit = local`. */
  readonly local: boolean;
  readonly begunAt: number;
  record?: WalRecord;
}

/** One connection between a standby's WAL receiver and a walsender: both ends of it. */
export interface Connection {
  readonly primary: Machine;
  readonly standby: Machine;
  /** `application_name` of the standby. */
  readonly name: string;
  /** The primary's process that the walsender belongs to. */
  readonly incarnation: number;
  /** `synchronous_standby_names` as this walsender has loaded them. */
  names: readonly string[];
  state: 'catchup' | 'streaming';
  /** The standby's newest report that the walsender has read. */
  flush: number;
  sent: WalRecord | undefined;
  /** Something sent has not been reported on yet, since then. */
  busySince: number | undefined;
  /** Reports arrive in order. */
  lastArrival: number;
  /** When the standby last knew that the primary is there. */
  aliveAt: number;
}

/** `wal_sender_timeout` and `wal_receiver_timeout`, ms. */
const replicationTimeoutMs = 5_000;

/**
 * A model of Postgres: WAL with LSNs and timelines, streaming replication, and waiting for synchronous standbys as in
 * syncrep.c: every walsender uses the setting that it has loaded itself, and the checkpointer alone decides whether
 * commits wait at all.
 */
export class SimPostgres {
  readonly #world: World;
  readonly #machine: Machine;
  process: 'none' | 'starting' | 'running' | 'ended' = 'none';
  startedAs: 'primary' | 'standby' | undefined;
  /** On the machine's clock. */
  since = 0;
  inRecovery = true;
  /** Grows with every start and end: what was meant for an earlier process does not reach a later one. */
  incarnation = 0;
  /** A shutdown is under way: no client is served any more. */
  stopping = false;
  replayed: WalRecord;
  /** `pg_last_wal_receive_lsn`: not known before the receiver has begun, and back a bit when it begins anew. */
  receivedLsn: number | undefined;
  replaysLocalWal = false;
  settings: Settings = { synchronousNames: [], clientsAllowed: false };
  /** Counts changes of the settings and of what processes have loaded. */
  settingsVersion = 0;
  applied: AppliedSettings | undefined;
  observation: Observation | undefined;
  /** The checkpointer's flag: commits wait. */
  waits = false;
  /** The control file is on the current timeline. */
  checkpointed = true;
  walsenders: Connection[] = [];
  receiver: Connection | undefined;
  waiting: Commit[] = [];
  #unflushed: Commit[] = [];
  /** An attempt to connect is due, in this process. */
  #connecting = -1;
  /** What the receiver and the startup process have loaded. */
  #upstream: string | undefined;

  constructor(world: World, machine: Machine) {
    this.#world = world;
    this.#machine = machine;
    this.replayed = machine.disk.tip;
  }

  /** Could acknowledge a write now, if somebody asked for one. */
  get writable(): boolean {
    return this.process === 'running' && !this.inRecovery && !this.stopping;
  }

  // ------------------------------------------------------------------------------------------- the process

  beginStart(as: 'primary' | 'standby', settings: Settings): void {
    this.incarnation += 1;
    this.process = 'starting';
    this.startedAs = as;
    this.inRecovery = as === 'standby';
    this.since = this.#machine.clock();
    this.stopping = false;
    this.settings = settings;
    this.settingsVersion += 1;
    this.observation = undefined;
    this.applied = undefined;
    this.receivedLsn = undefined;
    this.replaysLocalWal = false;
    this.#upstream = settings.upstream?.instance;
  }

  /** Recovery of what is on the disk is over. */
  ready(): void {
    const { disk } = this.#machine;
    this.process = 'running';
    this.since = this.#machine.clock();
    this.waits = this.settings.synchronousNames.length > 0;
    this.replayed = disk.tip;
    if (this.inRecovery) this.#replayLocal();
    else {
      disk.tip = append(disk.tip); // Crash recovery, or the start, writes a checkpoint.
      this.replayed = disk.tip;
      this.checkpointed = true;
      this.#world.invariants.startedAsPrimary(this.#machine);
    }
  }

  /** A standby first replays what is on its disk; only then it asks for more. */
  #replayLocal(): void {
    const { disk } = this.#machine;
    const delay = this.#machine.replayDelay();
    if (delay === 0) return this.#connectSoon(this.#world.noise.between(2, 20));
    for (let back = this.#world.noise.between(0, 8); back > 0 && this.replayed.before !== undefined; back--)
      this.replayed = this.replayed.before;
    this.replaysLocalWal = true;
    this.#later(delay, () => {
      this.replaysLocalWal = false;
      this.replayed = disk.tip;
      this.#connectSoon(1);
    });
  }

  /** No process is left. */
  end(): void {
    const wasRunning = this.process === 'starting' || this.process === 'running';
    this.process = 'none';
    this.startedAs = undefined;
    this.incarnation += 1;
    this.since = this.#machine.clock();
    this.stopping = false;
    this.inRecovery = true;
    this.observation = undefined;
    this.applied = undefined;
    this.waiting = [];
    this.#unflushed = [];
    this.settingsVersion += 1;
    if (!wasRunning) return;
    for (const connection of this.walsenders) this.#tellStandby(connection);
    this.walsenders = [];
    this.#closeReceiver();
  }

  // ------------------------------------------------------------------------------------------- configuration

  /** The file is written and the processes are told: each takes it up in its own time. */
  configure(settings: Settings): void {
    this.settings = settings;
    this.settingsVersion += 1;
    if (this.process !== 'running') return;
    const { incarnation } = this;
    const soon = () => this.#machine.reloadDelay();
    // A walsender of a standby counts nobody.
    if (!this.inRecovery)
      for (const connection of this.walsenders)
        this.#later(soon(), () => {
          connection.names = this.settings.synchronousNames;
          this.settingsVersion += 1;
        });
    this.#later(soon(), () => {
      this.waits = this.settings.synchronousNames.length > 0;
      this.settingsVersion += 1;
      if (!this.waits) this.#release(Number.MAX_SAFE_INTEGER);
    });
    const upstream = settings.upstream?.instance;
    if (upstream === this.#upstream && (upstream !== undefined || this.receiver === undefined)) return;
    this.#later(this.#world.flaws.receiverStays ? 1_000_000 : soon(), () => {
      if (this.incarnation !== incarnation) return;
      this.#upstream = this.settings.upstream?.instance;
      if (this.receiver !== undefined && this.receiver.primary.name !== this.#upstream) this.#closeReceiver();
      this.#connectSoon(this.#world.noise.between(1, 10));
    });
  }

  /** pg_terminate_backend of the WAL receiver. */
  terminateReceiver(): void {
    if (!this.#world.flaws.receiverStays) this.#closeReceiver();
  }

  // ------------------------------------------------------------------------------------------- clients

  /** A client commits. */
  commit(commit: Commit): void {
    if (!this.writable || !this.settings.clientsAllowed) return;
    const { disk } = this.#machine;
    if (disk.stalledUntil <= this.#world.now) return this.#flush(commit);
    this.#unflushed.push(commit);
    if (this.#unflushed.length > 1) return;
    const flushAll = () => {
      const left = disk.stalledUntil - this.#world.now;
      if (left > 0) return this.#later(left, flushAll);
      const commits = this.#unflushed;
      this.#unflushed = [];
      for (const c of commits) this.#flush(c);
    };
    this.#later(disk.stalledUntil - this.#world.now, flushAll);
  }

  #flush(commit: Commit): void {
    const { disk } = this.#machine;
    disk.tip = append(disk.tip);
    this.replayed = disk.tip;
    commit.record = disk.tip;
    if (commit.local || !this.waits) this.#world.invariants.acknowledged(this.#machine, commit, false);
    else this.waiting.push(commit);
    this.kick();
  }

  /** Commits up to here are acknowledged to their clients. */
  #release(lsn: number): void {
    if (this.stopping) return;
    while (this.waiting.length > 0) {
      const [first] = this.waiting;
      if (first?.record === undefined || first.record.lsn > lsn) return;
      this.waiting.shift();
      this.#world.invariants.acknowledged(this.#machine, first, lsn !== Number.MAX_SAFE_INTEGER);
    }
  }

  // ------------------------------------------------------------------------------------------- the primary's end

  /** Sends what is new to everybody who has not got it. */
  kick(): void {
    for (const connection of this.walsenders) if (connection.busySince === undefined) this.#send(connection);
  }

  #send(connection: Connection): void {
    const { tip } = this.#machine.disk;
    if (connection.sent === tip) return;
    connection.sent = tip;
    connection.busySince = this.#world.now;
    const { standby } = connection;
    this.#world.network.stream(this.#machine.number, standby.number, 0, () =>
      standby.run(() => standby.postgres.#receive(connection, tip)),
    );
  }

  #reported(connection: Connection, lsn: number): void {
    if (connection.incarnation !== this.incarnation || !this.walsenders.includes(connection)) return;
    connection.flush = Math.max(connection.flush, lsn);
    connection.busySince = undefined;
    if (connection.sent === this.#machine.disk.tip || lsn >= (connection.sent?.lsn ?? 0))
      connection.state = 'streaming';
    this.#releaseBy(connection);
    this.#send(connection);
  }

  /**
   * SyncRepReleaseWaiters: a walsender that is itself among the first n of the standbys that stream and have a priority
   * releases up to the lowest of their positions, n being the number in the setting that *it* has loaded.
   */
  #releaseBy(connection: Connection): void {
    const needed = connection.names.length;
    if (needed === 0 || priority(connection) === 0 || connection.state !== 'streaming') return;
    const chosen = this.walsenders
      .filter((w) => w.state === 'streaming' && priority(w) > 0)
      .sort((a, b) => priority(a) - priority(b))
      .slice(0, needed);
    if (chosen.length < needed || !chosen.includes(connection)) return;
    this.#release(Math.min(...chosen.map((w) => w.flush)));
  }

  #tellStandby(connection: Connection): void {
    const { standby } = connection;
    this.#world.network.stream(this.#machine.number, standby.number, 0, () =>
      standby.run(() => standby.postgres.#lose(connection)),
    );
  }

  // ------------------------------------------------------------------------------------------- the standby's end

  #connectSoon(ms: number): void {
    if (
      this.replaysLocalWal ||
      this.#connecting === this.incarnation ||
      this.receiver !== undefined ||
      this.#upstream === undefined
    )
      return;
    this.#connecting = this.incarnation;
    this.#later(ms, () => {
      this.#connecting = -1;
      this.#connect();
    });
  }

  #connect(): void {
    if (this.process !== 'running' || !this.inRecovery || this.receiver !== undefined) return;
    const source = this.#world.machine(this.#upstream);
    const { tip } = this.#machine.disk;
    if (source === undefined) return;
    const { postgres } = source;
    const { disk } = this.#machine;
    const reaches =
      this.#world.network.connected(this.#machine.number, source.number) &&
      source.serves &&
      postgres.process === 'running' &&
      (!postgres.inRecovery || this.settings.upstream?.cascades === true) &&
      !postgres.stopping &&
      disk.stalledUntil <= this.#world.now;
    if (!reaches || !follows(tip, source.disk.tip))
      return this.#connectSoon(this.#world.noise.between(100, 200));
    // Whatever the numbers say: is it really the same history?
    if (!contains(source.disk.tip, tip))
      return this.#world.invariants.violated(
        'one-history-per-timeline',
        `${this.#machine.name} streams from ${source.name} on timeline ${tip.branch.timeline}, and their histories differ`,
      );
    const connection: Connection = {
      primary: source,
      standby: this.#machine,
      name: replicationName(disk.dataId),
      incarnation: postgres.incarnation,
      names: postgres.inRecovery ? [] : postgres.settings.synchronousNames,
      state: 'catchup',
      flush: 0,
      sent: undefined,
      busySince: undefined,
      lastArrival: 0,
      aliveAt: this.#world.now,
    };
    this.receiver = connection;
    this.receivedLsn = Math.max(1, tip.lsn - this.#world.noise.between(0, 2));
    postgres.walsenders = [...postgres.walsenders.filter((w) => w.name !== connection.name), connection];
    postgres.settingsVersion += 1;
    postgres.#send(connection);
  }

  #receive(connection: Connection, record: WalRecord): void {
    const { disk } = this.#machine;
    if (this.receiver !== connection) return;
    if (disk.stalledUntil > this.#world.now)
      return this.#later(disk.stalledUntil - this.#world.now, () => this.#receive(connection, record));
    if (record.lsn > disk.tip.lsn) {
      // The walsender finds that its new timeline left the old one before this position.
      if (!contains(record, disk.tip)) return this.#closeReceiver();
      disk.tip = record;
      this.kick();
    }
    this.receivedLsn = disk.tip.lsn;
    connection.aliveAt = this.#world.now;
    const delay = this.#machine.replayDelay();
    if (delay === 0) this.replayed = disk.tip;
    else
      this.#later(delay, () => {
        if (record.lsn > this.replayed.lsn && contains(disk.tip, record)) this.replayed = record;
      });
    this.#report(connection);
  }

  #report(connection: Connection): void {
    const { lsn } = this.#machine.disk.tip;
    const { primary } = connection;
    // It may lie in the primary's socket for a while, whatever becomes of this connection meanwhile.
    const notBefore = Math.max(connection.lastArrival, this.#world.now + primary.reportDelay());
    connection.lastArrival = this.#world.network.stream(this.#machine.number, primary.number, notBefore, () =>
      primary.run(() => primary.postgres.#reported(connection, lsn)),
    );
  }

  #closeReceiver(): void {
    const connection = this.receiver;
    if (connection === undefined) return;
    this.receiver = undefined;
    const { primary } = connection;
    this.#world.network.stream(this.#machine.number, primary.number, connection.lastArrival, () =>
      primary.run(() => {
        const { postgres } = primary;
        postgres.walsenders = postgres.walsenders.filter((w) => w !== connection);
      }),
    );
  }

  #lose(connection: Connection): void {
    if (this.receiver !== connection) return;
    this.receiver = undefined;
    this.#connectSoon(this.#world.noise.between(5, 100));
  }

  // ------------------------------------------------------------------------------------------- promotion, shutdown

  /** The end of recovery: everything received is replayed, a new timeline begins. */
  promote(allotted: number): void {
    const { disk } = this.#machine;
    const { flaws } = this.#world;
    const from = flaws.promotionSkipsReplay ? this.replayed : disk.tip;
    const unreplayed = this.replayed !== disk.tip;
    const { receiver } = this;
    if (flaws.receiverStays) this.receiver = undefined;
    else this.#closeReceiver();
    this.#upstream = undefined;
    disk.tip = fork(from, flaws.timelineNotReserved ? from.branch.timeline + 1 : allotted);
    this.replayed = disk.tip;
    this.inRecovery = false;
    this.checkpointed = false;
    this.settingsVersion += 1;
    // Who streamed from this standby goes on to the new timeline in the same connection, and counts from then on.
    for (const connection of this.walsenders)
      this.#later(this.#world.noise.between(20, 150), () => {
        connection.names = this.settings.synchronousNames;
        connection.state = 'catchup';
        this.settingsVersion += 1;
        this.#send(connection);
      });
    if (flaws.receiverStays && receiver !== undefined) {
      // It goes on confirming what will not be in this history.
      const confirm = () => {
        const { postgres, disk: theirs } = receiver.primary;
        postgres.#reported(receiver, theirs.tip.lsn);
        if (postgres.walsenders.includes(receiver)) this.#later(50, confirm);
      };
      this.#later(50, confirm);
    }
    this.#world.invariants.promoted(this.#machine, from, unreplayed);
    this.#later(this.#world.noise.between(30, 600), () => {
      this.checkpointed = true;
    });
  }

  /** The shutdown's checkpoint. Returns where it begins. */
  checkpointAtShutdown(): number {
    const { disk } = this.#machine;
    disk.tip = append(disk.tip);
    this.replayed = disk.tip;
    this.kick();
    return disk.tip.lsn - 1;
  }

  /** Every standby that streams has everything. */
  get allSent(): boolean {
    const { lsn } = this.#machine.disk.tip;
    return this.walsenders.every((w) => w.flush >= lsn);
  }

  // ------------------------------------------------------------------------------------------- a look at it

  /** What one statement shows. */
  observe(): void {
    if (this.process !== 'running') return;
    this.#timeOut();
    const { tip } = this.#machine.disk;
    const now = this.#machine.clock();
    const first = this.waiting[0];
    const observation: { -readonly [K in keyof Observation]: Observation[K] } = {
      at: now,
      inRecovery: this.inRecovery,
      timeline: this.replayed.branch.timeline,
      walsenders: this.walsenders.map((w) => ({
        applicationName: w.name,
        state: w.state,
        syncPriority: priority(w),
        flushLsn: BigInt(w.flush),
      })),
      commitWaitMs: first === undefined ? 0 : this.#world.now - first.begunAt,
      pendingRestart: [],
      overridden: [],
    };
    if (this.inRecovery) {
      observation.replayedLsn = BigInt(this.replayed.lsn);
      if (this.replaysLocalWal) observation.replaysLocalWal = true;
      if (this.receivedLsn !== undefined) observation.receivedLsn = BigInt(this.receivedLsn);
      if (this.receiver !== undefined) {
        observation.receiver = { status: 'streaming', senderHost: this.receiver.primary.name };
        observation.receivedTimeline = tip.branch.timeline;
      }
    } else observation.flushLsn = BigInt(tip.lsn);
    this.observation = observation;
  }

  /** Connections whose other end has been silent for too long are closed. */
  #timeOut(): void {
    const { now, network } = this.#world;
    for (const w of this.walsenders)
      if (w.busySince !== undefined && now - w.busySince > replicationTimeoutMs) {
        this.walsenders = this.walsenders.filter((other) => other !== w);
        this.#tellStandby(w);
      }
    const { receiver } = this;
    if (receiver === undefined) return;
    const { primary } = receiver;
    const there =
      primary.serves &&
      primary.postgres.incarnation === receiver.incarnation &&
      primary.postgres.walsenders.includes(receiver) &&
      network.connected(this.#machine.number, primary.number);
    if (there) receiver.aliveAt = now;
    else if (now - receiver.aliveAt > replicationTimeoutMs) {
      this.#closeReceiver();
      this.#connectSoon(this.#world.noise.between(5, 100));
    }
  }

  /** For this process only, when its machine runs. */
  #later(ms: number, run: () => void): void {
    const { incarnation } = this;
    this.#world.after(ms, () =>
      this.#machine.run(() => {
        if (this.incarnation === incarnation) run();
      }),
    );
  }
}

/** Priority of a walsender in the setting that it has loaded; 0: not named. */
function priority(connection: Connection): number {
  return connection.names.indexOf(connection.name) + 1;
}

/** What the walsender checks: the standby's timeline, by number, is in the primary's history, and not left before. */
function follows(standby: WalRecord, primary: WalRecord): boolean {
  const { timeline } = standby.branch;
  if (timeline === primary.branch.timeline) return standby.lsn <= primary.lsn;
  const ancestor = primary.branch.ancestors.find((a) => a.timeline === timeline);
  return ancestor !== undefined && BigInt(standby.lsn) <= ancestor.end;
}
