import { type ConfigValue, defaultTiming } from '../src/dcs/index.ts';
import { SimEtcd } from './etcd.ts';
import { type Fault, faultsEnd, type Schedule, type Victim } from './faults.ts';
import { type InvariantName, Invariants, shortestTtl, Violation } from './invariants.ts';
import { Machine } from './machine.ts';
import { Network } from './network.ts';
import { EventQueue } from './queue.ts';
import { type Random, random } from './random.ts';
import { type Flaws, type Rules, shipped } from './rules.ts';

/** How long it may take until all is well after the faults are over, ms: ttl, patience with slow starts, retries. */
const recoveryMs = 120_000;
/** When those who could lead are gone for good, it is looked for so long whether somebody leads all the same, ms. */
const hopelessMs = 10_000;
/** All must be well for this long, ms. */
const settledMs = 300;

export interface Outcome {
  readonly events: number;
  readonly simulatedMs: number;
  readonly terms: number;
  readonly acknowledged: number;
  /** By a primary of an older term, after a newer one was promoted. */
  readonly acknowledgedLate: number;
  readonly violation?: { readonly invariant: InvariantName; readonly message: string; readonly at: number };
}

export interface RunOptions {
  readonly rules?: Rules;
  readonly flaws?: Flaws;
  /** Takes the lines of the story. */
  readonly tell?: (line: string) => void;
  /** Instead of the schedule's end: until this time, whatever the state of the cluster. */
  readonly untilMs?: number;
  /** Things that a named schedule does to the world by itself. */
  readonly prepare?: (world: World) => void;
}

/** Plays one schedule. */
export function run(schedule: Schedule, options: RunOptions = {}): Outcome {
  return new World(schedule, options).run();
}

/** A simulated cluster with everything around it. */
export class World {
  readonly schedule: Schedule;
  readonly rules: Rules;
  readonly flaws: Flaws;
  readonly noise: Random;
  readonly machines: readonly Machine[];
  readonly etcd: SimEtcd;
  readonly network: Network;
  readonly invariants: Invariants;
  now = 0;
  /** The newest term in etcd. */
  lastTerm = 0;
  /** The configuration was changed: whose rules hold for a running takeover is no longer clear. */
  reconfigured = false;
  /** When the last fault is over. */
  readonly calmSince: number;
  readonly #queue = new EventQueue();
  readonly #tell: ((line: string) => void) | undefined;
  readonly #options: RunOptions;
  readonly #clients: Random;
  #events = 0;
  #commits = 0;
  #requests = 0;

  constructor(schedule: Schedule, options: RunOptions = {}) {
    this.schedule = schedule;
    this.rules = options.rules ?? shipped;
    this.flaws = options.flaws ?? {};
    this.#tell = options.tell;
    this.#options = options;
    this.noise = random(schedule.noise, 2);
    this.#clients = random(schedule.noise, 3);
    this.calmSince = faultsEnd(schedule.faults);
    this.network = new Network(
      schedule.instances,
      this.noise,
      () => this.now,
      (at, what) => this.at(at, what),
    );
    this.machines = Array.from(
      { length: schedule.instances },
      (_, i) => new Machine(this, i, this.newDataId()),
    );
    this.invariants = new Invariants(this);
    this.etcd = new SimEtcd(this.#config(), () => this.#changed());
    for (const number of schedule.noFailover ?? []) {
      const machine = this.machines[number];
      if (machine !== undefined) this.invariants.barred(machine, true);
    }
    for (const machine of this.machines) this.at(this.noise.between(0, 200), () => machine.powerOn());
    for (const fault of schedule.faults) this.at(fault.at, () => this.#happens(fault));
    this.#serveClients();
    this.#expireLeases();
    options.prepare?.(this);
  }

  get telling(): boolean {
    return this.#tell !== undefined;
  }

  get ttlMs(): number {
    // A leader may not yet have heard of another one.
    return shortestTtl(Math.max(this.schedule.ttlMs, this.etcd.view.config?.value.timing.ttlMs ?? 0));
  }

  run(): Outcome {
    const { untilMs } = this.#options;
    let violation: Outcome['violation'];
    let wellSince: number | undefined;
    let nextLook = this.calmSince + 100;
    try {
      for (let next = this.#queue.take(); next !== undefined; next = this.#queue.take()) {
        if (untilMs !== undefined && next.at > untilMs) break;
        this.now = next.at;
        this.#events += 1;
        next.run();
        this.invariants.check();
        if (untilMs !== undefined || this.now < nextLook) continue;
        nextLook = this.now + 100;
        const unwell = this.invariants.unhealthy();
        if (unwell !== undefined) {
          wellSince = undefined;
          const waited = this.now - this.calmSince;
          if (waited > hopelessMs && this.invariants.hopeless(this.etcd.view)) break;
          if (waited > recoveryMs)
            this.invariants.violated('liveness', `${unwell}, ${recoveryMs / 1000} s after the last fault`);
          continue;
        }
        wellSince ??= this.now;
        if (this.now - wellSince >= settledMs) break;
      }
    } catch (error) {
      if (!(error instanceof Violation)) throw error;
      violation = { invariant: error.invariant, message: error.message, at: this.now };
      this.#tell?.(`${stamp(this.now)} *** ${error.invariant}: ${error.message}`);
    }
    return {
      events: this.#events,
      simulatedMs: this.now,
      terms: this.lastTerm,
      acknowledged: this.invariants.acknowledgedCount,
      acknowledgedLate: this.invariants.lateCount,
      ...(violation === undefined ? {} : { violation }),
    };
  }

  // ------------------------------------------------------------------------------------------- time

  at(time: number, what: () => void): void {
    this.#queue.add(time < this.now ? this.now : time, what);
  }

  after(ms: number, what: () => void): void {
    this.#queue.add(this.now + ms, what);
  }

  tell(who: Machine, what: string): void {
    this.#tell?.(`${stamp(this.now)} ${who.name} ${what}`);
  }

  // ------------------------------------------------------------------------------------------- names

  machine(name: string | undefined): Machine | undefined {
    if (name === undefined) return undefined;
    for (const machine of this.machines) if (machine.name === name) return machine;
    return undefined;
  }

  /** The instance behind an `application_name`, for stories. */
  nameOf(replicationName: string): string {
    return this.machines.find((m) => replicationName === `k_${m.disk.dataId}`)?.name ?? replicationName;
  }

  newDataId(): string {
    const digits = () => this.noise.between(0, 0xffff).toString(16).padStart(4, '0');
    return digits() + digits() + digits() + digits();
  }

  #config(): ConfigValue {
    return {
      generation: 1,
      ...this.schedule.config,
      timing: { ...defaultTiming, ttlMs: this.schedule.ttlMs },
      members: this.machines.map((m) => m.name),
      parameters: {},
      hba: [],
      instances: Object.fromEntries(
        this.machines.map(({ name, number }) => [
          name,
          {
            ...(this.schedule.noFailover?.includes(number) ? { noFailover: true } : {}),
            ...(this.schedule.priorities?.[number] === undefined
              ? {}
              : { priority: this.schedule.priorities[number] }),
            ...this.#streamFrom(number),
          },
        ]),
      ),
      ...(this.schedule.zones === true
        ? { zones: Object.fromEntries(this.machines.map((m) => [m.node, `zone-${m.number % 2}`])) }
        : {}),
      logLevel: 'info',
    };
  }

  #streamFrom(number: number): { streamFrom?: string } {
    const from = this.schedule.streamFrom?.[number];
    const name = from === 'standby' ? from : this.machines.find((m) => m.number === from)?.name;
    return name === undefined ? {} : { streamFrom: name };
  }

  /** As the operator refuses it: with fewer that may lead, the set could never be complete. */
  #isAllowed({ synchronous, instances = {} }: ConfigValue): boolean {
    const barred = Object.values(instances).filter((each) => each.noFailover === true).length;
    return barred <= this.machines.length - 1 - synchronous;
  }

  // ------------------------------------------------------------------------------------------- what goes on

  #changed(): void {
    const { view } = this.etcd;
    const asked = view.config?.value.synchronous === 0 || this.reconfigured;
    if (asked && view.sync?.value.mode === 'async') this.invariants.forgetPromises();
    for (const { agent } of this.machines) agent?.watched(view);
  }

  #endPause(until: string): void {
    const stored = this.etcd.view.config?.value;
    if (stored?.paused?.until !== until) return;
    const { paused: _, ...config } = stored;
    this.etcd.configure({ ...config, generation: config.generation + 1 });
  }

  /** Clients write to whoever lets them. */
  #serveClients(): void {
    const again = () => {
      for (const machine of this.machines) {
        if (!machine.serves || !machine.postgres.writable) continue;
        this.#commits += 1;
        machine.postgres.commit({
          number: this.#commits,
          local: this.#clients.chance(0.05),
          begunAt: this.now,
        });
      }
      this.after(this.#clients.between(40, 200), again);
    };
    this.after(500, again);
  }

  /** Member keys hang on leases of 30 s. */
  #expireLeases(): void {
    const again = () => {
      // Leases run out by a decision of etcd's leader, and a new one begins to count anew.
      if (this.etcd.noLeaderUntil > this.now)
        for (const machine of this.machines) machine.leaseRenewedAt = this.etcd.noLeaderUntil;
      for (const machine of this.machines)
        if (this.etcd.view.members.has(machine.name) && this.now - machine.leaseRenewedAt > 30_000)
          this.etcd.forget(machine.name);
      this.after(5_000, again);
    };
    this.after(30_000, again);
  }

  #victim(who: Victim, other?: Machine): Machine {
    const { leader, sync } = this.etcd.view;
    const first = sync?.value.names.find((m) => m.instance !== leader?.value.instance)?.instance;
    const found =
      who === 'leader'
        ? this.machine(leader?.value.instance)
        : who === 'sync'
          ? this.machine(first)
          : this.machines[who];
    const any = found !== undefined && found !== other ? found : this.machines.findLast((m) => m !== other);
    if (any === undefined) throw new RangeError('a cluster has at least one instance');
    return any;
  }

  #happens(fault: Fault): void {
    const until = this.now + ('for' in fault ? fault.for : 0);
    const { network, etcd } = this;
    if (!('who' in fault) && !('from' in fault)) {
      this.#tell?.(`${stamp(this.now)} FAULT ${tellFault(fault)}`);
      switch (fault.kind) {
        case 'etcd-election':
          etcd.noLeaderUntil = Math.max(etcd.noLeaderUntil, until);
          return;
        case 'etcd-outage':
          etcd.noLeaderUntil = Math.max(etcd.noLeaderUntil, until);
          if (this.schedule.faults.every((f) => f === fault || isOver(f, this.now) || f.at > until))
            this.invariants.etcdGoesAway(until);
          return;
        case 'etcd-full':
          etcd.fullUntil = Math.max(etcd.fullUntil, until);
          return;
        case 'switchover': {
          this.#requests += 1;
          const to = fault.to === undefined ? undefined : this.machines[fault.to]?.name;
          etcd.request({
            id: `request-${this.#requests}`,
            kind: 'switchover',
            by: 'a person',
            ...(to === undefined ? {} : { to }),
          });
          return;
        }
        case 'pause': {
          const config = etcd.view.config?.value;
          if (config === undefined) return;
          const paused = { until: `${until}`, forMs: fault.for };
          etcd.configure({ ...config, generation: config.generation + 1, paused });
          this.invariants.paused(until);
          if (!fault.left) this.at(until, () => this.#endPause(paused.until));
          return;
        }
        case 'reconfigure': {
          const config = etcd.view.config?.value;
          if (config === undefined) return;
          const { synchronous, durability } = fault;
          const next = { ...config, generation: config.generation + 1, synchronous, durability };
          if (!this.#isAllowed(next)) return;
          if (synchronous === 0 || config.synchronous === 0) this.reconfigured = true;
          etcd.configure(next);
          return;
        }
      }
    }
    if ('from' in fault) {
      const a = this.#victim(fault.from);
      const b = this.#victim(fault.to, a);
      this.#tell?.(`${stamp(this.now)} FAULT ${tellFault(fault)} (${a.name} -> ${b.name})`);
      if (fault.kind === 'cut-link') network.cut(a.number, b.number, until);
      else network.slow(a.number, b.number, until, fault.delay);
      return;
    }
    const machine = this.#victim(fault.who);
    this.#tell?.(`${stamp(this.now)} FAULT ${tellFault(fault)} (${machine.name})`);
    const trouble = (which: { until: number; delay: number }, delay: number) => {
      which.until = until;
      which.delay = delay;
    };
    switch (fault.kind) {
      case 'crash-postgres':
        return machine.serves ? machine.database.crash() : undefined;
      case 'kill-agent':
        return machine.run(() => machine.endAgent(fault.for));
      case 'lose-power':
        return machine.losePower(fault.for);
      case 'stop-pod':
        return machine.run(() => machine.agent?.requestStop());
      case 'stall-agent':
        if (machine.agent !== undefined) machine.agent.stalledUntil = until;
        return;
      case 'freeze':
        return machine.powered ? machine.freeze(fault.for) : undefined;
      case 'cut-etcd':
        if (fault.requests) network.cut(machine.number, network.etcd, until);
        if (fault.answers) network.cut(network.etcd, machine.number, until);
        return;
      case 'slow-etcd':
        network.slow(machine.number, network.etcd, until, fault.delay);
        return network.slow(network.etcd, machine.number, until, fault.delay);
      case 'isolate':
        for (let other = 0; other <= network.etcd; other++) {
          if (other === machine.number) continue;
          network.cut(machine.number, other, until);
          network.cut(other, machine.number, until);
        }
        return;
      case 'slow-watch':
        if (machine.agent !== undefined) {
          machine.agent.slowWatchUntil = until;
          machine.agent.watchDelay = fault.delay;
        }
        return;
      case 'compact':
        return machine.agent?.loseWatch();
      case 'transaction':
        machine.transactionFates.push(fault);
        return;
      case 'operation':
        machine.operationFates.push(fault);
        return;
      case 'slow-reload':
        return trouble(machine.slowReload, fault.delay);
      case 'slow-reports':
        return trouble(machine.slowReports, fault.delay);
      case 'slow-replay':
        return trouble(machine.slowReplay, fault.delay);
      case 'slow-start':
        return trouble(machine.slowStart, fault.delay);
      case 'stubborn':
        machine.stubbornUntil = until;
        return;
      case 'disk-stall':
        return machine.stallDisk(until);
      case 'disk-full':
        return machine.fillDisk(until);
      case 'lose-volume':
        return machine.loseVolume(fault.for, false);
      case 'restore-backup':
        return machine.loseVolume(fault.for, true);
      case 'force-failover': {
        const { leader, members, request } = etcd.view;
        const member = members.get(machine.name)?.value;
        if (leader === undefined || member === undefined) return;
        this.#requests += 1;
        const isOff = this.machine(leader.value.instance)?.powered === false;
        return etcd.request(
          {
            id: `request-${this.#requests}`,
            kind: 'failover',
            to: machine.name,
            dataId: member.dataId,
            bootId: member.bootId,
            term: leader.value.term,
            // In the synchronous set nothing need be accepted; the candidate looks for itself.
            ...(this.noise.chance(0.9) ? { acceptLoss: true } : {}),
            ...(isOff ? { primaryIsOff: true } : {}),
            by: 'a person',
          },
          request?.revision,
        );
      }
      case 'bar': {
        const config = etcd.view.config?.value;
        if (config === undefined) return;
        const options = { ...config.instances?.[machine.name], noFailover: fault.noFailover };
        const instances = { ...config.instances, [machine.name]: options };
        const next = { ...config, generation: config.generation + 1, instances };
        if (!this.#isAllowed(next)) return;
        etcd.configure(next);
        this.invariants.barred(machine, fault.noFailover);
        return;
      }
      case 'order':
        this.#requests += 1;
        return etcd.order(machine.name, { id: `order-${this.#requests}`, do: fault.do });
      default:
        fault satisfies never;
    }
  }
}

function stamp(now: number): string {
  return String(now).padStart(7);
}

/** One fault in one line. */
export function tellFault({ at: _, ...fault }: Fault): string {
  const { kind, ...rest } = fault;
  const details = Object.entries(rest).map(([key, value]) => `${key} ${value}`);
  return [kind, ...details].join(', ');
}

/** Nothing of a fault is left by then: not even what it may do only to the next operation of its kind. */
function isOver(fault: Fault, now: number): boolean {
  const lasts = fault.kind === 'transaction' || fault.kind === 'operation' ? Number.POSITIVE_INFINITY : 0;
  return fault.at + Math.max(lasts, 'for' in fault ? fault.for : 0) < now;
}
