import type { LeaderWrite, Operation, StorageFacts, Volume } from '../src/agent/ha/index.ts';
import { SimAgent } from './agent.ts';
import { SimDatabase } from './database.ts';
import { SimPostgres } from './postgres.ts';
import { firstRecord, type WalRecord } from './wal.ts';
import type { World } from './world.ts';

/** The data volume of an instance: what survives everything but its own loss. */
export interface Disk {
  state: Volume['state'];
  dataId: string;
  /** Made by initdb for a new cluster. */
  bootstrap: boolean;
  promotedTerm: number;
  /** Everything flushed. */
  tip: WalRecord;
  stalledUntil: number;
  /** When the last stall began. */
  stalledSince: number;
  fullUntil: number;
}

/** koschei-init gives the agent this long after the deadline (images/koschei-init, AGENT_FIRST_MS). */
const agentFirstMs = 200;
/** ... and sends SIGKILL this long after SIGQUIT (QUIT_GRACE_MS). */
const quitGraceMs = 700;
export const systemIdentifier = '7000000000000000001';

/** What a fault does to one machine until it is over. */
interface Trouble {
  until: number;
  delay: number;
}

/**
 * A machine with one instance: its clock, its volume, koschei-init, the agent and Postgres. It may lose power, be
 * suspended, or lose its volume.
 */
export class Machine {
  readonly #world: World;
  readonly number: number;
  readonly name: string;
  readonly node: string;
  readonly disk: Disk;
  readonly postgres: SimPostgres;
  readonly database: SimDatabase;
  agent: SimAgent | undefined;
  boots = 0;
  /** Of the agent that runs or ran last. */
  lastBootId = '';
  powered = false;
  frozenUntil = 0;
  /** When it last thawed: what it was to have done meanwhile it does now. */
  thawedAt = Number.NEGATIVE_INFINITY;
  stubbornUntil = 0;
  readonly slowReload: Trouble = { until: 0, delay: 0 };
  readonly slowReports: Trouble = { until: 0, delay: 0 };
  readonly slowReplay: Trouble = { until: 0, delay: 0 };
  readonly slowStart: Trouble = { until: 0, delay: 0 };
  readonly transactionFates: {
    readonly write?: LeaderWrite['kind'];
    readonly fate: string;
    readonly delay: number;
  }[] = [];
  readonly operationFates: { readonly do: Operation['do']; readonly fate: string; readonly delay: number }[] =
    [];
  /** When the member key was last renewed. */
  leaseRenewedAt = 0;
  readonly #offset: number;
  readonly #rate: number;
  #suspendedMs = 0;
  /** On the machine's clock; 0: none. */
  #deadline = 0;
  #deadlineWatched = false;
  #backup: WalRecord = firstRecord;
  /** Grows when koschei-init begins anew. */
  #life = 0;
  /** This boot of the agent has read the volume. */
  #volumeRead = true;

  constructor(world: World, number: number, dataId: string) {
    this.#world = world;
    this.number = number;
    this.name = `shop-${number + 1}`;
    this.node = `node-${number + 1}`;
    this.disk = {
      state: 'ready',
      dataId,
      bootstrap: number === 0,
      promotedTerm: 0,
      tip: firstRecord,
      stalledUntil: 0,
      stalledSince: 0,
      fullUntil: 0,
    };
    this.#offset = world.noise.between(0, 1_000_000);
    // Within the error that the ttl's margin allows between two machines.
    this.#rate = 1 + (world.noise.next() - 0.5) * 0.009;
    this.postgres = new SimPostgres(world, this);
    this.database = new SimDatabase(world, this);
  }

  /** Milliseconds on the boot-time clock. */
  clock(): number {
    const suspended = this.#world.flaws.clockStopsWhenSuspended ? this.#suspendedMs : 0;
    return Math.floor(this.#offset + (this.#world.now - suspended) * this.#rate);
  }

  /** The simulated time at which this machine's clock shows `at`, or a little later. */
  timeOf(at: number): number {
    const suspended = this.#world.flaws.clockStopsWhenSuspended ? this.#suspendedMs : 0;
    return Math.ceil((at - this.#offset) / this.#rate) + suspended;
  }

  /** Programs on it run now. */
  get serves(): boolean {
    return this.powered && this.frozenUntil <= this.#world.now;
  }

  /** Does something on this machine: never when it is off, and after the thaw when it is suspended. */
  run(what: () => void): void {
    if (!this.powered) return;
    if (this.frozenUntil > this.#world.now)
      return this.#world.after(this.frozenUntil - this.#world.now, () => this.run(what));
    what();
  }

  // ------------------------------------------------------------------------------------------- chance and trouble

  reloadDelay(): number {
    return this.#delay(this.slowReload, 0, 15);
  }

  reportDelay(): number {
    return this.slowReports.until > this.#world.now
      ? this.#world.noise.between(0, this.slowReports.delay)
      : 0;
  }

  replayDelay(): number {
    return this.slowReplay.until > this.#world.now ? this.#world.noise.between(1, this.slowReplay.delay) : 0;
  }

  startDelay(): number {
    return this.slowStart.until > this.#world.now ? this.slowStart.delay : this.#world.noise.between(50, 400);
  }

  #delay(trouble: Trouble, low: number, high: number): number {
    const { noise } = this.#world;
    return trouble.until > this.#world.now ? noise.between(low, trouble.delay) : noise.between(low, high);
  }

  /** How long the processes of Postgres take to end when they are killed, ms. */
  quitDelay(): number {
    const { noise, now } = this.#world;
    return this.stubbornUntil > now ? quitGraceMs + noise.between(5, 100) : noise.between(5, 60);
  }

  // ------------------------------------------------------------------------------------------- power, suspension

  powerOn(): void {
    if (this.powered) return;
    this.powered = true;
    this.#boot();
  }

  losePower(forMs: number): void {
    if (!this.powered) return;
    this.powered = false;
    this.agent?.end();
    this.agent = undefined;
    this.#deadline = 0;
    this.#life += 1;
    this.postgres.end();
    this.database.abandon();
    this.#world.after(forMs, () => this.powerOn());
  }

  freeze(forMs: number): void {
    const { now } = this.#world;
    const until = Math.max(this.frozenUntil, now + forMs);
    this.#suspendedMs += until - Math.max(now, this.frozenUntil);
    this.frozenUntil = until;
    this.thawedAt = until;
  }

  loseVolume(forMs: number, backup: boolean): void {
    const { disk } = this;
    this.losePower(forMs);
    disk.state = backup ? 'ready' : 'empty';
    disk.dataId = this.#world.newDataId();
    disk.bootstrap = false;
    disk.promotedTerm = 0;
    disk.tip = backup ? this.#backup : firstRecord;
    this.postgres.replayed = disk.tip;
  }

  /** What an old backup of the cluster holds. */
  takeBackup(record: WalRecord): void {
    this.#backup = record;
  }

  stallDisk(until: number): void {
    const { disk } = this;
    if (disk.stalledUntil <= this.#world.now) disk.stalledSince = this.#world.now;
    disk.stalledUntil = Math.max(disk.stalledUntil, until);
  }

  fillDisk(until: number): void {
    this.disk.fullUntil = Math.max(this.disk.fullUntil, until);
    this.database.crash();
  }

  // ------------------------------------------------------------------------------------------- koschei-init

  #boot(): void {
    this.boots += 1;
    this.#deadline = 0;
    this.database.abandon();
    this.#volumeRead = this.disk.stalledUntil <= this.#world.now;
    if (!this.#volumeRead) this.awaitDisk();
    this.agent = new SimAgent(this.#world, this, this.boots);
    this.lastBootId = this.agent.bootId;
    this.#world.tell(this, `the agent starts (boot ${this.boots})`);
    this.agent.start();
  }

  /** The agent says when koschei-init must fence; 0: need not. */
  guard(deadline: number): void {
    if (deadline === this.#deadline) return;
    this.#deadline = deadline;
    if (deadline > 0 && !this.#deadlineWatched) this.#watchDeadline();
  }

  #watchDeadline(): void {
    this.#deadlineWatched = true;
    const deadline = this.#deadline;
    const life = this.#life;
    // The driver looks just when the deadline is over, koschei-init a little later.
    this.#world.at(this.timeOf(deadline + 10), () =>
      this.run(() => {
        if (life === this.#life && this.#deadline === deadline) this.agent?.wake();
      }),
    );
    this.#world.at(this.timeOf(deadline + agentFirstMs), () => {
      if (!this.powered || life !== this.#life) this.#rewatch();
      else
        this.run(() => {
          if (
            this.#life === life &&
            this.#deadline > 0 &&
            this.clock() >= this.#deadline + agentFirstMs - 1
          ) {
            this.#world.tell(this, 'koschei-init fences: the deadline is over');
            this.#deadlineWatched = false;
            this.endAgent(0);
          } else this.#rewatch();
        });
    });
  }

  #rewatch(): void {
    this.#deadlineWatched = false;
    if (this.#deadline > 0) this.#watchDeadline();
  }

  /** The agent ends or is ended: koschei-init ends everything of Postgres, then starts a new agent. */
  endAgent(afterMs: number): void {
    if (!this.powered || this.agent === undefined) return;
    this.agent.end();
    this.agent = undefined;
    this.#deadline = 0;
    this.#life += 1;
    const life = this.#life;
    this.database.abandon();
    const gone = () => this.run(() => life === this.#life && this.postgres.end());
    const delay = this.postgres.process === 'none' ? 0 : this.quitDelay();
    this.#world.after(delay, gone);
    this.#world.after(delay + afterMs + this.#world.noise.between(20, 150), () =>
      this.run(() => life === this.#life && this.#boot()),
    );
  }

  // ------------------------------------------------------------------------------------------- the volume

  /** Postgres is dead, and nobody can look at its volume before the disk answers again. */
  awaitDisk(): void {
    const { postgres, disk } = this;
    postgres.process = 'ended';
    const { incarnation } = postgres;
    const look = () =>
      this.run(() => {
        if (postgres.incarnation !== incarnation || postgres.process !== 'ended') return;
        if (disk.stalledUntil > this.#world.now) return this.#world.at(disk.stalledUntil, look);
        this.#volumeRead = true;
        postgres.process = 'none';
        postgres.since = this.clock();
        this.agent?.wake();
      });
    this.#world.after(this.#world.noise.between(5, 50), look);
  }

  /** What the process that writes once a second last saw. */
  storage(): StorageFacts {
    const { stalledUntil, stalledSince } = this.disk;
    const lookedAt = this.clock();
    const stalledMs = stalledUntil > this.#world.now ? this.#world.now - stalledSince : 0;
    return { volume: 'data', lookedAt, goodAt: lookedAt - stalledMs };
  }

  volume(): Volume {
    if (!this.#volumeRead) return { state: 'unknown' };
    const { state, dataId, bootstrap, promotedTerm, tip } = this.disk;
    if (state === 'empty') return { state };
    if (state === 'tainted') return { state, why: 'pg_rewind was interrupted or failed' };
    return { state, dataId, systemIdentifier, bootstrap, promotedTerm, timeline: tip.branch.timeline };
  }
}
