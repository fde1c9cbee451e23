import { expect, it } from 'vitest';
import { deadline, sleep, systemClock } from './clock.ts';
import { FakeClock, settle } from './testing/fake-clock.ts';

it('the fake clock fires timers in order of time, also those set by others on the way', async () => {
  const clock = new FakeClock();
  const fired: string[] = [];
  clock.setTimer(20, () => fired.push(`b at ${clock.monotonic()}`));
  clock.setTimer(10, () => {
    fired.push(`a at ${clock.monotonic()}`);
    clock.setTimer(5, () => fired.push(`c at ${clock.monotonic()}`));
  });
  const cancelled = clock.setTimer(12, () => fired.push('never'));
  cancelled.cancel();
  expect(clock.nextTimerMs).toBe(10);
  await clock.advance(19);
  expect(fired).toEqual(['a at 10', 'c at 15']);
  clock.jumpWall(-1_000);
  await clock.advance(1);
  expect(fired.at(-1)).toBe('b at 20');
  expect(clock.now()).toBe(-980);
});

it('sleep ends early when its signal aborts, and leaves no timer', async () => {
  const clock = new FakeClock();
  const stop = new AbortController();
  let woke = false;
  void sleep(clock, 1_000, stop.signal).then(() => {
    woke = true;
  });
  await clock.advance(10);
  expect(woke).toBe(false);
  stop.abort();
  await settle();
  expect(woke).toBe(true);
  expect(clock.timers).toBe(0);
  await sleep(clock, 1_000, stop.signal);
});

it('a deadline aborts by time and with its parent, and can be disposed of', async () => {
  const clock = new FakeClock();
  const parent = new AbortController();
  const late = deadline(clock, 50, parent.signal);
  await clock.advance(50);
  expect([late.signal.aborted, late.timedOut()]).toEqual([true, true]);
  const kept = deadline(clock, 50, parent.signal);
  const gone = deadline(clock, 50, parent.signal);
  gone.dispose();
  const reason = new Error('ending');
  parent.abort(reason);
  expect(kept.signal.reason).toBe(reason);
  expect(kept.timedOut()).toBe(false);
  expect(gone.signal.aborted).toBe(false);
  expect(deadline(clock, 50, parent.signal).signal.aborted).toBe(true);
});

it('the system clock calls back', async () => {
  const before = systemClock.monotonic();
  await sleep(systemClock, 5);
  expect(systemClock.monotonic()).toBeGreaterThan(before);
});
