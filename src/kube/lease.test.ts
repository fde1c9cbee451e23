import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ElectionState,
  electionStep,
  heldLease,
  holding,
  isHolding,
  microTime,
  observeLease,
  releasedLease,
  defaultLeaseTiming as timing,
} from './lease.ts';
import type { Lease } from './types.ts';

const ref = { namespace: 'ns', name: 'operator' };
const at = (ms: number) => ({ monotonic: ms, wall: ms });
const held = (by: string, wallMs: number, from?: Lease) => heldLease(from, ref, by, timing, wallMs);

describe('a candidate', () => {
  it('reads first, and creates what is missing', () => {
    expect(electionStep({}, 'me', timing, at(0))).toEqual({ do: 'read' });
    expect(electionStep(observeLease({}, undefined, 0), 'me', timing, at(0))).toEqual({ do: 'create' });
  });

  it('waits a full lease from when it saw the last change itself, whatever the times in the record say', () => {
    let state = observeLease({}, held('other', -999_999_999), 1_000);
    expect(electionStep(state, 'me', timing, at(15_999))).toEqual({ do: 'wait', holder: 'other' });
    state = observeLease(state, held('other', -999_999_999), 15_999);
    expect(electionStep(state, 'me', timing, at(16_000))).toMatchObject({ do: 'take' });
  });

  it('starts to wait anew whenever the holder renewed', () => {
    let state = observeLease({}, held('other', 0), 0);
    state = observeLease(state, held('other', 1), 14_000);
    expect(electionStep(state, 'me', timing, at(28_999))).toMatchObject({ do: 'wait' });
    expect(electionStep(state, 'me', timing, at(29_000))).toMatchObject({ do: 'take' });
  });

  it('does not believe its wall clock', () => {
    const state = observeLease({}, held('other', 0), 0);
    expect(electionStep(state, 'me', timing, { monotonic: 1_000, wall: 9e12 })).toMatchObject({ do: 'wait' });
  });

  it('honours a longer lease of another version', () => {
    const lease = heldLease(undefined, ref, 'other', { ...timing, leaseMs: 60_000 }, 0);
    const state = observeLease({}, lease, 0);
    expect(electionStep(state, 'me', timing, at(59_999))).toMatchObject({ do: 'wait' });
    expect(electionStep(state, 'me', timing, at(60_000))).toMatchObject({ do: 'take' });
  });

  it('takes a released lease at once, and one that is its own', () => {
    const released = observeLease({}, releasedLease(held('other', 0), 5), 0);
    expect(electionStep(released, 'me', timing, at(0))).toMatchObject({
      do: 'take',
      because: 'it was released',
    });
    const own = observeLease({}, held('me', 0), 0);
    expect(electionStep(own, 'me', timing, at(0))).toMatchObject({ do: 'take', because: 'it is ours' });
  });
});

describe('a leader', () => {
  it('renews, and stops at the renew deadline by either clock', () => {
    const state = holding(held('me', 0), at(0));
    expect(electionStep(state, 'me', timing, at(9_999))).toMatchObject({ do: 'renew' });
    expect(electionStep(state, 'me', timing, at(10_000))).toMatchObject({ do: 'lost' });
    expect(electionStep(state, 'me', timing, { monotonic: 10_000, wall: 0 })).toMatchObject({ do: 'lost' });
    // The machine slept: the monotonic clock stood still.
    expect(electionStep(state, 'me', timing, { monotonic: 1, wall: 10_000 })).toMatchObject({ do: 'lost' });
    expect(isHolding(state, timing, { monotonic: 1, wall: 10_000 })).toBe(false);
    expect(isHolding(state, timing, at(9_999))).toBe(true);
  });

  it('notices that somebody else holds the lease, or nobody', () => {
    const state = holding(held('me', 0), at(0));
    const by = (lease: Lease | undefined) =>
      electionStep(observeLease(state, lease, 100), 'me', timing, at(100));
    expect(by(held('other', 50))).toMatchObject({ do: 'lost', because: 'the lease is held by other' });
    expect(by(undefined)).toMatchObject({ do: 'lost', because: 'the lease was deleted' });
    expect(by(releasedLease(held('me', 0), 5))).toMatchObject({ do: 'lost' });
    expect(by(held('me', 60))).toMatchObject({ do: 'renew' });
  });
});

it('writes the record as the API wants it', () => {
  const first = held('a', Date.UTC(2030, 0, 1, 0, 0, 0, 120));
  expect(first.spec).toEqual({
    holderIdentity: 'a',
    leaseDurationSeconds: 15,
    acquireTime: '2030-01-01T00:00:00.120000Z',
    renewTime: '2030-01-01T00:00:00.120000Z',
    leaseTransitions: 0,
  });
  const renewed = held('a', Date.UTC(2030, 0, 1, 0, 0, 2), first);
  expect(renewed.spec).toMatchObject({ acquireTime: first.spec?.acquireTime, leaseTransitions: 0 });
  expect(held('b', 0, renewed).spec).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
  expect(releasedLease(renewed, 0).spec).not.toHaveProperty('holderIdentity');
  expect(microTime(0)).toBe('1970-01-01T00:00:00.000000Z');
});

it('never lets two lead at once, however the answers are delayed or lost, as long as clocks run evenly', () => {
  type Process = { id: string; offset: number; wallOffset: number; state: ElectionState };
  const turn = fc.record({
    who: fc.nat(2),
    /** True time that passes before the turn. */
    after: fc.integer({ min: 0, max: 8_000 }),
    /** Of a write: whether it arrives, and whether its answer does. */
    arrives: fc.boolean(),
    answered: fc.boolean(),
    /** Between sending and arriving. */
    travel: fc.integer({ min: 0, max: 4_000 }),
  });
  fc.assert(
    fc.property(
      fc.array(turn, { maxLength: 80, size: 'max' }),
      fc.array(fc.integer({ min: -1e9, max: 1e9 }), { minLength: 6, maxLength: 6 }),
      (turns, offsets) => {
        const processes: Process[] = ['a', 'b', 'c'].map((id, i) => ({
          id,
          offset: offsets[i] ?? 0,
          wallOffset: offsets[i + 3] ?? 0,
          state: {},
        }));
        let stored: Lease | undefined;
        let version = 0;
        let now = 0;
        const clockOf = (process: Process, time: number) => ({
          monotonic: time + process.offset,
          wall: time + process.wallOffset,
        });
        for (const { who, after, arrives, answered, travel } of turns) {
          now += after;
          const me = processes[who];
          if (me === undefined) continue;
          const step = electionStep(me.state, me.id, timing, clockOf(me, now));
          if (step.do === 'lost') me.state = {};
          else if (step.do === 'read' || step.do === 'wait') {
            if (arrives) me.state = observeLease(me.state, stored, clockOf(me, now).monotonic);
          } else {
            const sentAt = clockOf(me, now);
            const from = step.do === 'create' ? undefined : step.lease;
            now += travel;
            if (arrives && from?.metadata.resourceVersion === stored?.metadata.resourceVersion) {
              const lease = heldLease(from, ref, me.id, timing, sentAt.wall);
              version += 1;
              stored = { ...lease, metadata: { ...lease.metadata, resourceVersion: String(version) } };
              if (answered) me.state = holding(stored, sentAt);
            } else if (arrives && answered) {
              me.state = observeLease(me.state, stored, clockOf(me, now).monotonic);
            }
          }
          const leaders = processes.filter((process) =>
            isHolding(process.state, timing, clockOf(process, now)),
          );
          expect(leaders.map((process) => process.id).length).toBeLessThanOrEqual(1);
        }
      },
    ),
    { numRuns: 2_000 },
  );
});
