import { describe, expect, it } from 'vitest';
import {
  type ClusterView,
  type ConfigValue,
  emptyView,
  type LeaderValue,
  type MemberRef,
  type MemberValue,
  type RequestValue,
  type Stamped,
} from '../../dcs/index.ts';
import { initialState } from './decide.ts';
import { Draft } from './draft.ts';
import type { Facts, HaState, PeerAnswer, Upstream } from './facts.ts';
import { observeUpstream, upstreamOf } from './upstream.ts';

const member = (instance: string, digit: string): MemberRef => ({ instance, dataId: digit.repeat(16) });
const [A, B, C, D] = [member('a', 'a'), member('b', 'b'), member('c', 'c'), member('d', 'd')];
const stamp = <T>(value: T): Stamped<T> => ({ value, revision: '1' });
const leader = (m: MemberRef): LeaderValue => ({ ...m, address: `at-${m.instance}` }) as LeaderValue;

interface World {
  /** Whom each standby streams from; one that is not named does not answer. */
  streams: Record<string, string | undefined>;
  leader: MemberRef;
  sync: MemberRef[];
  streamFrom: string | undefined;
  requestTo?: string;
  /** C's own receiver. */
  receives: boolean;
  walLost: boolean;
}

/** C, as it goes through time. */
class Standby {
  readonly world: World = {
    streams: { b: 'a', d: 'a' },
    leader: A,
    sync: [B],
    streamFrom: 'b',
    receives: true,
    walLost: false,
  };
  #state: HaState = initialState(0);
  #applied: Upstream | undefined;
  #now = 0;

  /** Looks every 100 ms for so long; where it streams from then. */
  after(ms: number): Upstream | undefined {
    for (const end = this.#now + ms; this.#now < end; ) {
      this.#now += 100;
      const draft = new Draft(this.#state, this.facts());
      observeUpstream(draft);
      this.#state = draft.state;
      this.#applied = upstreamOf(this.#state, this.facts(), leader(this.world.leader));
    }
    return this.#applied;
  }

  facts(): Facts {
    const { world } = this;
    const answers = Object.entries(world.streams).map(([instance, streamsFrom]) => {
      const known = [A, B, C, D].find((m) => m.instance === instance);
      const answer = { ...known, state: 'standby', streamsFrom } as PeerAnswer;
      return [instance, { at: this.#now, answer }] as const;
    });
    const view: ClusterView = {
      ...emptyView,
      config: stamp({
        members: ['a', 'b', 'c', 'd'],
        synchronous: 1,
        ...(world.streamFrom === undefined ? {} : { instances: { c: { streamFrom: world.streamFrom } } }),
      } as unknown as ConfigValue),
      leader: stamp(leader(world.leader)),
      sync: stamp({ term: 1, mode: 'sync', names: world.sync }),
      ...(world.requestTo === undefined ? {} : { request: stamp({ to: world.requestTo } as RequestValue) }),
      members: new Map(
        [A, B, C, D].map((m) => [m.instance, stamp({ ...m, address: `at-${m.instance}` } as MemberValue)]),
      ),
    };
    return {
      now: this.#now,
      me: { instance: 'c' },
      volume: { state: 'ready', dataId: C.dataId },
      dcs: { view },
      postgres: {
        process: 'running',
        walLost: world.walLost,
        observation: world.receives ? { receiver: { status: 'streaming' } } : {},
      },
      peers: new Map(answers),
      ...(this.#applied === undefined ? {} : { applied: { upstream: this.#applied } }),
    } as unknown as Facts;
  }
}

const primary = { instance: 'a', address: 'at-a' };
const fromB = { instance: 'b', address: 'at-b', cascades: true };

describe('where a standby streams from', () => {
  it('is the primary, if nothing else is said', () => {
    const c = new Standby();
    c.world.streamFrom = undefined;
    expect(c.after(10_000)).toEqual(primary);
  });

  it('is the standby that is named, once that has streamed from the primary for a while', () => {
    const c = new Standby();
    expect(c.after(4_900)).toEqual(primary);
    expect(c.after(500)).toEqual(fromB);
  });

  it.each<[string, Partial<World>]>([
    ['does not answer', { streams: {} }],
    ['does not stream', { streams: { b: undefined } }],
    ['cascades itself', { streams: { b: 'd', d: 'a' } }],
  ])('is the primary within about a second when that one %s', (_what, change) => {
    const c = new Standby();
    c.after(6_000);
    Object.assign(c.world, change);
    expect(c.after(900)).toEqual(fromB);
    expect(c.after(300)).toEqual(primary);
    Object.assign(c.world, { streams: { b: 'a' } });
    expect(c.after(4_000)).toEqual(primary);
    expect(c.after(2_000)).toEqual(fromB);
  });

  it('stays through a failover that its upstream follows, or wins', () => {
    const c = new Standby();
    c.after(6_000);
    Object.assign(c.world, { leader: D, streams: { b: 'a' } });
    expect(c.after(500)).toEqual(fromB);
    c.world.streams = { b: 'd' };
    expect(c.after(5_000)).toEqual(fromB);
    c.world.leader = B;
    expect(c.after(100)).toEqual({ instance: 'b', address: 'at-b' });
  });

  it('is the primary for a while when the standby does not serve it, or lacks WAL', () => {
    for (const change of [{ receives: false }, { receives: false, walLost: true }]) {
      const c = new Standby();
      c.after(6_000);
      Object.assign(c.world, change);
      expect(c.after(2_500)).toEqual(primary);
      Object.assign(c.world, { receives: true, walLost: false });
      expect(c.after(25_000)).toEqual(primary);
      expect(c.after(10_000)).toEqual(fromB);
    }
  });

  it('is the primary while the synchronous set is not complete: this one may be needed in it', () => {
    const c = new Standby();
    c.world.sync = [B, D];
    expect(c.after(6_000)).toEqual(fromB);
    c.world.streams = { b: 'a' };
    expect(c.after(900)).toEqual(fromB);
    expect(c.after(300)).toEqual(primary);
    c.world.streams = { b: 'a', d: 'a' };
    expect(c.after(300)).toEqual(fromB);
    c.world.sync = [];
    expect(c.after(1_200)).toEqual(primary);
  });

  it('is the primary for one that confirms commits, or is to lead', () => {
    const c = new Standby();
    c.world.sync = [C];
    expect(c.after(6_000)).toEqual(primary);
    c.world.sync = [B];
    expect(c.after(6_000)).toEqual(fromB);
    c.world.requestTo = 'c';
    expect(c.after(100)).toEqual(primary);
  });

  it('is any standby if that is said, a synchronous one first, and not another without need', () => {
    const c = new Standby();
    Object.assign(c.world, { streamFrom: 'standby', sync: [D] });
    expect(c.after(6_000)).toMatchObject({ instance: 'd', cascades: true });
    c.world.sync = [B];
    expect(c.after(6_000)).toMatchObject({ instance: 'd' });
    c.world.streams = { b: 'a' };
    expect(c.after(1_500)).toEqual(primary);
    expect(c.after(6_000)).toEqual(fromB);
  });
});
