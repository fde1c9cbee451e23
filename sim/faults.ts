import type { LeaderWrite, Operation } from '../src/agent/ha/index.ts';
import { type ConfigValue, defaultTiming } from '../src/dcs/index.ts';
import { type Random, random } from './random.ts';

/** An instance by its number, from 0 on. */
export type InstanceNumber = number;

/** Whom a fault hits: an instance, or whoever is the leader in etcd then, or the first other member of `sync`. */
export type Victim = InstanceNumber | 'leader' | 'sync';

/**
 * One thing that goes wrong. Times and durations are milliseconds of simulated time; `for` is a duration. Faults are
 * data: a schedule is replayed, shortened and told from them.
 */
export type Fault = { readonly at: number } /** kill -9 of Postgres's postmaster. */ & (
  | { readonly kind: 'crash-postgres'; readonly who: Victim }
  /** The agent ends, koschei-init ends Postgres, and a new agent comes `for` later. */
  | { readonly kind: 'kill-agent'; readonly who: Victim; readonly for: number }
  /** The whole machine loses power and comes back `for` later. */
  | { readonly kind: 'lose-power'; readonly who: Victim; readonly for: number }
  /** SIGTERM: the pod is being stopped; it starts again afterwards. */
  | { readonly kind: 'stop-pod'; readonly who: Victim }
  /** The agent's event loop stands still; koschei-init and Postgres go on. */
  | { readonly kind: 'stall-agent'; readonly who: Victim; readonly for: number }
  /** The whole machine is suspended; its boot-time clock goes on. */
  | { readonly kind: 'freeze'; readonly who: Victim; readonly for: number }
  /** Nothing goes from one instance to another (one direction). */
  | { readonly kind: 'cut-link'; readonly from: Victim; readonly to: Victim; readonly for: number }
  /** Messages from one instance to another take longer, overtake each other, and come twice. */
  | {
      readonly kind: 'slow-link';
      readonly from: Victim;
      readonly to: Victim;
      readonly for: number;
      readonly delay: number;
    }
  /** The instance and etcd do not reach each other, in the given directions. */
  | {
      readonly kind: 'cut-etcd';
      readonly who: Victim;
      readonly for: number;
      readonly requests: boolean;
      readonly answers: boolean;
    }
  /** Requests to etcd and its answers take longer. */
  | { readonly kind: 'slow-etcd'; readonly who: Victim; readonly for: number; readonly delay: number }
  /** Cut off from every other instance and from etcd. */
  | { readonly kind: 'isolate'; readonly who: Victim; readonly for: number }
  /** etcd has no leader: nothing is answered; what was sent meanwhile is lost or carried out at the end. */
  | { readonly kind: 'etcd-election'; readonly for: number }
  /** The same for long: etcd has lost its quorum. */
  | { readonly kind: 'etcd-outage'; readonly for: number }
  /** etcd refuses writes (NOSPACE) and answers reads. */
  | { readonly kind: 'etcd-full'; readonly for: number }
  /** The instance's watch brings everything late. */
  | { readonly kind: 'slow-watch'; readonly who: Victim; readonly for: number; readonly delay: number }
  /** etcd compacts what the instance's watch has not yet brought: the watch is cancelled. */
  | { readonly kind: 'compact'; readonly who: Victim }
  /** What becomes of the next transaction of the instance (of this kind). */
  | {
      readonly kind: 'transaction';
      readonly who: Victim;
      readonly write?: LeaderWrite['kind'];
      readonly fate: 'answer-lost' | 'never' | 'late';
      readonly delay: number;
    }
  /** Processes of Postgres take up changed settings late, one by one. */
  | { readonly kind: 'slow-reload'; readonly who: Victim; readonly for: number; readonly delay: number }
  /** Reports of standbys stay in the sockets of this primary's walsenders. */
  | { readonly kind: 'slow-reports'; readonly who: Victim; readonly for: number; readonly delay: number }
  | { readonly kind: 'slow-replay'; readonly who: Victim; readonly for: number; readonly delay: number }
  /** The next operation of this kind on Postgres: fails before or after it has done anything, or takes longer. */
  | {
      readonly kind: 'operation';
      readonly who: Victim;
      readonly do: Operation['do'];
      readonly fate: 'fails' | 'fails-after' | 'slow';
      readonly delay: number;
    }
  /** Postgres needs this long to start, for a while. */
  | { readonly kind: 'slow-start'; readonly who: Victim; readonly for: number; readonly delay: number }
  /** Backends do not end at SIGQUIT: only SIGKILL, 0.7 s later, ends them. */
  | { readonly kind: 'stubborn'; readonly who: Victim; readonly for: number }
  /** Nothing is flushed to the data volume. */
  | { readonly kind: 'disk-stall'; readonly who: Victim; readonly for: number }
  /** Postgres ends and does not start while the volume is full. */
  | { readonly kind: 'disk-full'; readonly who: Victim; readonly for: number }
  /** The volume is gone with its machine; the instance comes back with an empty one. */
  | { readonly kind: 'lose-volume'; readonly who: Victim; readonly for: number }
  /** The volume is gone and the instance comes back with an old backup of it, under a new data id. */
  | { readonly kind: 'restore-backup'; readonly who: Victim; readonly for: number }
  | { readonly kind: 'switchover'; readonly to?: InstanceNumber }
  | {
      readonly kind: 'reconfigure';
      readonly synchronous: number;
      readonly durability: ConfigValue['durability'];
    }
  /** A person decides that this instance takes over, whatever is lost by that. */
  | { readonly kind: 'force-failover'; readonly who: InstanceNumber }
  /** Automatic failover is paused; `left`: the operator is away when the time is over. */
  | { readonly kind: 'pause'; readonly for: number; readonly left: boolean }
  /** The spec says of this instance that it never leads, or no longer so. */
  | { readonly kind: 'bar'; readonly who: InstanceNumber; readonly noFailover: boolean }
  | { readonly kind: 'order'; readonly who: InstanceNumber; readonly do: 'restart' | 'reclone' }
);

export type FaultKind = Fault['kind'];

/** A cluster and what happens to it. The same schedule always gives the same story. */
export interface Schedule {
  /** Of everything that is chance and no fault: delays, rates of clocks, clients. */
  readonly noise: number;
  readonly instances: number;
  readonly config: Pick<ConfigValue, 'synchronous' | 'durability' | 'fencing' | 'maximumLagBytes'>;
  readonly ttlMs: number;
  /** Instances that never lead. Schedules that were written down earlier do not say it. */
  readonly noFailover?: readonly InstanceNumber[];
  /** Whom instances stream from instead of the primary: `standby`, or an instance. */
  readonly streamFrom?: Readonly<Record<InstanceNumber, InstanceNumber | 'standby'>>;
  /** Instances with even numbers are in one zone, the others in another one. */
  readonly zones?: boolean;
  /** Priorities of the instances, in their order; the usual one for those beyond. */
  readonly priorities?: readonly number[];
  readonly faults: readonly Fault[];
}

/** What schedules are to be like; everything else is chance. */
export interface Profile {
  readonly instances?: number;
  readonly config?: Partial<Schedule['config']>;
  readonly ttlMs?: number;
  readonly noFailover?: readonly InstanceNumber[];
  /** Kinds of faults that come often. */
  readonly favour?: readonly FaultKind[];
  /** No other kinds. */
  readonly only?: readonly FaultKind[];
  /** These come always. */
  readonly also?: readonly Fault[];
}

/** Faults begin here: the cluster has formed, ms. */
export const calmBefore = 2_000;

const weights: Readonly<Record<FaultKind, number>> = {
  'crash-postgres': 8,
  'kill-agent': 8,
  'lose-power': 6,
  'stop-pod': 4,
  'stall-agent': 4,
  freeze: 4,
  'cut-link': 8,
  'slow-link': 4,
  'cut-etcd': 10,
  'slow-etcd': 4,
  isolate: 8,
  'etcd-election': 3,
  'etcd-outage': 2,
  'etcd-full': 1,
  'slow-watch': 3,
  compact: 2,
  transaction: 10,
  'slow-reload': 6,
  'slow-reports': 6,
  'slow-replay': 3,
  operation: 6,
  'slow-start': 3,
  stubborn: 2,
  'disk-stall': 4,
  'disk-full': 2,
  'lose-volume': 2,
  'restore-backup': 1,
  switchover: 5,
  reconfigure: 1,
  bar: 1,
  pause: 2,
  'force-failover': 2,
  order: 2,
};
const kinds = Object.keys(weights) as FaultKind[];

/** The schedule of a seed. */
export function schedule(seed: number, profile: Profile = {}): Schedule {
  const r = random(seed, 1);
  const instances = profile.instances ?? r.pick([3, 3, 3, 3, 3, 2, 4]);
  const config = {
    synchronous: Math.min(instances - 1, r.pick([1, 1, 1, 1, 2, 0])),
    durability: r.chance(0.7) ? 'required' : 'preferred',
    fencing: r.chance(0.8) ? 'fast' : 'strict',
    ...profile.config,
  } as const;
  const ttlMs = profile.ttlMs ?? r.pick([defaultTiming.ttlMs, 4_000]);
  // A stream of its own: what happens else does not depend on it.
  const o = random(seed, 4);
  const spare = instances - 1 - config.synchronous;
  const noFailover = profile.noFailover ?? (spare > 0 && o.chance(0.2) ? [o.between(0, instances - 1)] : []);
  const priorities = o.chance(0.3) ? Array.from({ length: instances }, () => o.pick([0, 50, 100])) : [];
  const zones = o.chance(0.3);
  const bound = config.synchronous === 0 && o.chance(0.3) ? { maximumLagBytes: o.pick([0, 2, 10]) } : {};
  const cascading = instances > 2 && o.chance(0.25) ? o.between(0, instances - 1) : undefined;
  const upstream = o.chance(0.6) ? 'standby' : (o.between(0, instances - 1) as InstanceNumber);
  const end = calmBefore + r.between(500, 7_000);
  const faults: Fault[] = [...(profile.also ?? [])];
  const count = r.pick([1, 2, 3, 4, 5, 6, 8, 10]);
  // Much of what is interesting needs several things to go wrong within the time of one takeover.
  const bursts = r.chance(0.5);
  let at = calmBefore + r.between(0, 500);
  for (let i = 0; i < count; i++) {
    at =
      bursts && i > 0 && !r.chance(0.2) ? Math.min(end, at + r.between(0, 300)) : r.between(calmBefore, end);
    faults.push(fault(r, pickKind(r, profile), at, instances));
  }
  const streamFrom: Schedule['streamFrom'] =
    cascading === undefined || upstream === cascading ? undefined : { [cascading]: upstream };
  // It takes a while until a standby streams from another one.
  const later = streamFrom === undefined ? 0 : 7_000;
  const inOrder = faults.map((f) => ({ ...f, at: f.at + later })).toSorted((a, b) => a.at - b.at);
  return {
    noise: seed,
    instances,
    config: { ...bound, ...config },
    ttlMs,
    noFailover,
    priorities,
    zones,
    ...(streamFrom === undefined ? {} : { streamFrom }),
    faults: inOrder,
  };
}

function pickKind(r: Random, profile: Profile): FaultKind {
  const allowed = profile.only ?? kinds;
  const weight = (kind: FaultKind) => weights[kind] * (profile.favour?.includes(kind) ? 12 : 1);
  let left = r.next() * allowed.reduce((sum, kind) => sum + weight(kind), 0);
  for (const kind of allowed) {
    left -= weight(kind);
    if (left < 0) return kind;
  }
  return 'crash-postgres';
}

function fault(r: Random, kind: FaultKind, at: number, instances: number): Fault {
  const anybody = () => r.between(0, instances - 1);
  const who = (): Victim => (r.chance(0.5) ? 'leader' : r.chance(0.3) ? 'sync' : anybody());
  const duration = () => (r.chance(0.7) ? r.between(200, 3_000) : r.between(3_000, 9_000));
  switch (kind) {
    case 'crash-postgres':
    case 'compact':
      return { at, kind, who: who() };
    case 'stop-pod':
      return { at, kind, who: who() };
    case 'kill-agent':
    case 'lose-power':
    case 'stall-agent':
    case 'freeze':
    case 'isolate':
    case 'stubborn':
    case 'disk-full':
    case 'lose-volume':
    case 'restore-backup':
      return { at, kind, who: who(), for: duration() };
    case 'disk-stall':
      // Long enough for a leader to give up its place, and for what it gave it up to to be well again before the end.
      return { at, kind, who: who(), for: r.chance(0.5) ? duration() : r.between(5_000, 20_000) };
    case 'cut-link':
      return { at, kind, from: who(), to: who(), for: duration() };
    case 'slow-link':
      return { at, kind, from: who(), to: who(), for: duration(), delay: r.between(20, 1_500) };
    case 'cut-etcd': {
      const direction = r.between(0, 3);
      return { at, kind, who: who(), for: duration(), requests: direction !== 1, answers: direction !== 2 };
    }
    case 'etcd-election':
      return { at, kind, for: r.between(100, 2_500) };
    case 'etcd-outage':
      return { at, kind, for: r.between(2_500, 40_000) };
    case 'etcd-full':
      return { at, kind, for: duration() };
    case 'slow-etcd':
    case 'slow-watch':
    case 'slow-reload':
    case 'slow-reports':
    case 'slow-replay':
      return { at, kind, who: who(), for: duration(), delay: r.between(50, 2_500) };
    case 'slow-start':
      return { at, kind, who: who(), for: duration(), delay: r.between(1_000, 15_000) };
    case 'transaction': {
      const write = r.pick([
        undefined,
        undefined,
        'sync',
        'sync',
        'take',
        'history',
        'vacate',
        'resume',
        'new-term',
      ] as const);
      const fate = r.pick(['answer-lost', 'never', 'late'] as const);
      return {
        at,
        kind,
        who: who(),
        ...(write === undefined ? {} : { write }),
        fate,
        delay: r.between(200, 5_000),
      };
    }
    case 'operation': {
      const what = r.pick([
        'start',
        'configure',
        'configure',
        'promote',
        'stop-receiver',
        'rewind',
        'clone',
        'stop',
        'prove-wait',
      ] as const);
      return {
        at,
        kind,
        who: who(),
        do: what,
        fate: r.pick(['fails', 'fails-after', 'slow'] as const),
        delay: r.between(100, 3_000),
      };
    }
    case 'switchover':
      return { at, kind, ...(r.chance(0.5) ? { to: anybody() } : {}) };
    case 'reconfigure':
      return {
        at,
        kind,
        synchronous: r.between(0, instances - 1),
        durability: r.pick(['required', 'preferred'] as const),
      };
    case 'pause':
      return { at, kind, for: r.between(2_000, 15_000), left: r.chance(0.3) };
    case 'force-failover':
      // Not much is lost for long before somebody notices.
      return { at: at + r.between(2_000, 8_000), kind, who: anybody() };
    case 'bar':
      return { at, kind, who: anybody(), noFailover: r.chance(0.7) };
    case 'order':
      return { at, kind, who: anybody(), do: r.pick(['restart', 'reclone'] as const) };
  }
}

/** When the last of the faults is over, ms. */
export function faultsEnd(faults: readonly Fault[]): number {
  return faults.reduce((end, f) => Math.max(end, f.at + ('for' in f ? f.for : 0)), calmBefore);
}
