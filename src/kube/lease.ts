import type { Logger } from 'pino';
import type { KubeClient } from './client.ts';
import { type Clock, sleep, systemClock } from './clock.ts';
import { isAlreadyExists, isConflict, isNotFound, LeadershipLostError } from './errors.ts';
import type { KubeMetrics } from './metrics.ts';
import { resources } from './resources.ts';
import type { Lease } from './types.ts';

/**
 * Leader election with a Lease, by the rules of client-go's leaderelection package: only changes of the record that
 * this process saw itself count, so clocks may differ; the holder stops before others may take over. It is not fencing:
 * a process that was paused can act on its last belief. What must not happen twice carries a precondition.
 */

/** Milliseconds. The holder renews every `retryMs`, stops when it could not for `renewDeadlineMs`. */
export interface LeaseTiming {
  readonly leaseMs: number;
  readonly renewDeadlineMs: number;
  readonly retryMs: number;
}
export const defaultLeaseTiming: LeaseTiming = { leaseMs: 15_000, renewDeadlineMs: 10_000, retryMs: 2_000 };

/** Two clocks read together, milliseconds. A pause of the machine shows in one of them, a set clock in the other. */
export interface Moment {
  readonly monotonic: number;
  readonly wall: number;
}

export interface ElectionState {
  /** The Lease as last read or written, undefined when there is none, and when it was first seen like that. */
  readonly seen?: { readonly lease: Lease | undefined; readonly since: number };
  /** Set while this process leads: when the last successful renewal was sent. */
  readonly renewedAt?: Moment;
}

export type ElectionStep =
  | { readonly do: 'read' }
  | { readonly do: 'create' }
  /** Overwrite the Lease that was read. */
  | { readonly do: 'take'; readonly lease: Lease; readonly because: string }
  | { readonly do: 'renew'; readonly lease: Lease }
  | { readonly do: 'wait'; readonly holder: string }
  | { readonly do: 'lost'; readonly because: string };

/** The state after a Lease (or that there is none) was read at `now`, monotonic milliseconds. */
export function observeLease(state: ElectionState, lease: Lease | undefined, now: number): ElectionState {
  const { seen } = state;
  const same = seen !== undefined && recordOf(seen.lease) === recordOf(lease);
  return { ...state, seen: { lease, since: same ? seen.since : now } };
}

/** The state after a write of ours succeeded that was sent at `sentAt`. */
export const holding = (lease: Lease, sentAt: Moment): ElectionState => ({
  seen: { lease, since: sentAt.monotonic },
  renewedAt: sentAt,
});

/** Whether a holder may still act: it renewed less than the renew deadline ago by both clocks. */
export function isHolding(state: ElectionState, timing: LeaseTiming, now: Moment): boolean {
  return state.renewedAt !== undefined && elapsed(state.renewedAt, now) < timing.renewDeadlineMs;
}

/** What to do now. */
export function electionStep(
  state: ElectionState,
  identity: string,
  timing: LeaseTiming,
  now: Moment,
): ElectionStep {
  const { seen, renewedAt } = state;
  if (renewedAt !== undefined) {
    const age = elapsed(renewedAt, now);
    if (age >= timing.renewDeadlineMs) {
      return { do: 'lost', because: `the lease could not be renewed for ${Math.round(age)} ms` };
    }
    if (seen?.lease === undefined) return { do: 'lost', because: 'the lease was deleted' };
    const holder = holderOf(seen.lease);
    return holder === identity
      ? { do: 'renew', lease: seen.lease }
      : { do: 'lost', because: `the lease is held by ${holder ?? 'nobody'}` };
  }
  if (seen === undefined) return { do: 'read' };
  if (seen.lease === undefined) return { do: 'create' };
  const holder = holderOf(seen.lease);
  if (holder === undefined) return { do: 'take', lease: seen.lease, because: 'it was released' };
  // A write of ours whose answer was lost.
  if (holder === identity) return { do: 'take', lease: seen.lease, because: 'it is ours' };
  const unchangedMs = now.monotonic - seen.since;
  const durationMs = Math.max(timing.leaseMs, (seen.lease.spec?.leaseDurationSeconds ?? 0) * 1000);
  if (unchangedMs < durationMs) return { do: 'wait', holder };
  const because = `${holder} did not renew it for ${Math.round(unchangedMs)} ms`;
  return { do: 'take', lease: seen.lease, because };
}

/** The Lease to write for holding it. */
export function heldLease(
  from: Lease | undefined,
  ref: { readonly namespace: string; readonly name: string },
  identity: string,
  timing: LeaseTiming,
  wallMs: number,
): Lease {
  const now = microTime(wallMs);
  const before = from?.spec;
  const ours = before?.holderIdentity === identity;
  return {
    ...(from ?? { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { ...ref } }),
    spec: {
      ...before,
      holderIdentity: identity,
      leaseDurationSeconds: Math.round(timing.leaseMs / 1000),
      acquireTime: ours ? (before?.acquireTime ?? now) : now,
      renewTime: now,
      leaseTransitions: (before?.leaseTransitions ?? 0) + (ours || from === undefined ? 0 : 1),
    },
  };
}

/** The Lease to write for giving it up: without a holder, and short, for readers that look only at the times. */
export function releasedLease(from: Lease, wallMs: number): Lease {
  const { holderIdentity: _, ...spec } = from.spec ?? {};
  return { ...from, spec: { ...spec, leaseDurationSeconds: 1, renewTime: microTime(wallMs) } };
}

/** RFC 3339 with exactly six digits: the API server refuses a MicroTime with fewer. */
export const microTime = (wallMs: number): string => new Date(wallMs).toISOString().replace('Z', '000Z');

const elapsed = (from: Moment, now: Moment): number =>
  Math.max(now.monotonic - from.monotonic, now.wall - from.wall);

const holderOf = (lease: Lease): string | undefined => {
  const holder = lease.spec?.holderIdentity;
  return holder === undefined || holder === null || holder === '' ? undefined : holder;
};

/** What counts as a change of the record. Times are compared as text. */
const recordOf = (lease: Lease | undefined): string =>
  lease === undefined
    ? ''
    : JSON.stringify([
        lease.metadata.uid,
        lease.spec?.holderIdentity,
        lease.spec?.renewTime,
        lease.spec?.leaseTransitions,
      ]);

export interface ElectorOptions {
  readonly client: KubeClient;
  readonly namespace: string;
  readonly name: string;
  /** Different for every process, also for two incarnations of a pod. */
  readonly identity: string;
  readonly log: Logger;
  readonly timing?: LeaseTiming;
  readonly metrics?: KubeMetrics | undefined;
  readonly clock?: Clock;
  readonly random?: () => number;
}

/** Takes part in the election until `release`. */
export class Elector {
  readonly #options: ElectorOptions;
  readonly #timing: LeaseTiming;
  readonly #clock: Clock;
  readonly #random: () => number;
  readonly #ref: { namespace: string; name: string };
  readonly #stop = new AbortController();
  readonly #acquired = Promise.withResolvers<void>();
  readonly #lost = Promise.withResolvers<LeadershipLostError>();
  #state: ElectionState = {};
  #running: Promise<void> | undefined;

  constructor(options: ElectorOptions) {
    this.#options = options;
    this.#timing = options.timing ?? defaultLeaseTiming;
    this.#clock = options.clock ?? systemClock;
    this.#random = options.random ?? Math.random;
    this.#ref = { namespace: options.namespace, name: options.name };
    options.metrics?.leader.set(0);
  }

  /** Resolves when this process becomes the leader. Stays pending when it is released before. */
  get acquired(): Promise<void> {
    return this.#acquired.promise;
  }

  /** Resolves when this process was the leader and no longer is: it must end. It does not take part any more. */
  get lost(): Promise<LeadershipLostError> {
    return this.#lost.promise;
  }

  /** Whether this process leads at this moment, by its own clocks. */
  get isLeader(): boolean {
    return isHolding(this.#state, this.#timing, this.#now());
  }

  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends the part in the election. A leader gives the lease up, so that the next one need not wait for it to run out. */
  async release(): Promise<void> {
    this.#stop.abort(new Error('the elector was stopped'));
    await this.#running;
    if (!this.isLeader) return;
    this.#setState({});
    const { client, log, identity, name } = this.#options;
    const call = { timeoutMs: this.#timing.retryMs };
    try {
      // Read first: a renewal that was cut off just now may have arrived all the same.
      const lease = await client.find(resources.leases, this.#ref, call);
      if (lease === undefined || holderOf(lease) !== identity) return;
      await client.update(resources.leases, releasedLease(lease, this.#clock.now()), call);
      log.info({ lease: name }, 'gave up the lease');
    } catch (error) {
      log.warn({ err: error }, 'could not give up the lease; it will run out');
    }
  }

  async #run(): Promise<void> {
    const stop = this.#stop.signal;
    while (!stop.aborted) {
      const step = electionStep(this.#state, this.#options.identity, this.#timing, this.#now());
      if (step.do === 'lost') return this.#giveUp(step.because);
      try {
        const again = await this.#do(step);
        if (again) continue;
      } catch (error) {
        if (stop.aborted) return;
        this.#options.log.warn({ err: error, step: step.do }, 'the lease could not be read or written');
      }
      await sleep(this.#clock, this.#pauseMs(), stop);
    }
  }

  /** Until the next try, with jitter; for a leader never beyond its deadline. */
  #pauseMs(): number {
    const pause = this.#timing.retryMs * (1 + 0.2 * this.#random());
    const { renewedAt } = this.#state;
    if (renewedAt === undefined) return pause;
    const left = this.#timing.renewDeadlineMs - elapsed(renewedAt, this.#now());
    return Math.max(0, Math.min(pause, left));
  }

  /** Does the step; true when the next one is due at once. */
  async #do(step: Exclude<ElectionStep, { do: 'lost' }>): Promise<boolean> {
    const { client, identity, log, name } = this.#options;
    switch (step.do) {
      case 'read':
        await this.#read();
        return true;
      case 'wait': {
        await this.#read();
        const next = electionStep(this.#state, identity, this.#timing, this.#now());
        return next.do !== 'wait';
      }
      case 'create':
      case 'take':
      case 'renew': {
        const sentAt = this.#now();
        const from = step.do === 'create' ? undefined : step.lease;
        const lease = heldLease(from, this.#ref, identity, this.#timing, sentAt.wall);
        const options = { signal: this.#stop.signal, timeoutMs: this.#callMs() };
        try {
          const written =
            from === undefined
              ? await client.create(resources.leases, lease, options)
              : await client.update(resources.leases, lease, options);
          const first = this.#state.renewedAt === undefined;
          this.#setState(holding(written, sentAt));
          if (first) {
            const because = step.do === 'take' ? step.because : 'there was none';
            log.info({ lease: name, identity, because }, 'became the leader');
            this.#acquired.resolve();
          }
          return false;
        } catch (error) {
          if (!isConflict(error) && !isAlreadyExists(error) && !isNotFound(error)) throw error;
          // Somebody wrote in between, or our own last write arrived after all: look before the next try.
          await this.#read();
          return this.#state.renewedAt !== undefined;
        }
      }
    }
  }

  async #read(): Promise<void> {
    const options = { signal: this.#stop.signal, timeoutMs: this.#callMs() };
    const lease = await this.#options.client.find(resources.leases, this.#ref, options);
    this.#setState(observeLease(this.#state, lease, this.#clock.monotonic()));
  }

  /** A leader's calls end when its time does; two of them fit into it. */
  #callMs(): number {
    const half = this.#timing.renewDeadlineMs / 2;
    const { renewedAt } = this.#state;
    if (renewedAt === undefined) return half;
    return Math.max(1, Math.min(half, this.#timing.renewDeadlineMs - elapsed(renewedAt, this.#now())));
  }

  #giveUp(because: string): void {
    this.#setState({});
    this.#options.log.error({ lease: this.#options.name, because }, 'is no longer the leader');
    this.#lost.resolve(new LeadershipLostError(because));
  }

  #setState(state: ElectionState): void {
    this.#state = state;
    this.#options.metrics?.leader.set(state.renewedAt === undefined ? 0 : 1);
  }

  #now(): Moment {
    return { monotonic: this.#clock.monotonic(), wall: this.#clock.now() };
  }
}
