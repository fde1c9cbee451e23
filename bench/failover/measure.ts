import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { repository } from '../../e2e/cluster/settings.ts';
import { now } from '../../e2e/faults.ts';
import { eventually } from '../../e2e/kubernetes.ts';
import { faultsOf, judge } from '../../e2e/ledger/checker.ts';
import { finalStateQuery, parseFinalState } from '../../e2e/ledger/final-state.ts';
import { type Attempt, longestGap, type Route, routes } from '../../e2e/ledger/history.ts';
import { Ledger } from '../../e2e/ledger/ledger.ts';
import type { FirstAcks } from './phases.ts';
import { load } from './report.ts';
import type { Row } from './rows.ts';
import type { Run, Subject } from './runs.ts';
import type { Stack } from './stack.ts';

/** Where the log of the primary and every attempt of the last run of a row are kept. */
const traces = `${repository}/.state/bench/traces`;

/** Milliseconds of writing before a fault. */
const steadyMs = 3_000;
/** Milliseconds after which a fault that has its effect at once has shown it. */
const promptMs = 3_000;
/** Milliseconds that a lasting fault lasts at least: longer than a ttl of Koschei. */
const lastingMs = 8_000;
/** Milliseconds until everything must be redundant again. */
const healthyMs = 240_000;

/** Does a fault to a stack that is well, under writes, and waits until it is well again. */
export async function measure(stack: Stack, row: Row, subject: Subject): Promise<Run> {
  const victim = await (row.victim === 'primary' ? stack.primary() : stack.synchronousStandby());
  await stack.placeEtcdLeader(victim.node, row.etcdLeader);
  const ledger = await Ledger.start({
    run: `run-${randomBytes(4).toString('hex')}`,
    target: await stack.target(),
    routes,
    ...load,
    patience: 20_000,
  });
  let undo: (() => Promise<void>) | undefined;
  try {
    await sleep(steadyMs);
    await ledger.acknowledges(now(), 15_000);
    const before = serverOf(ledger.attempts.findLast(isAcknowledged));
    const injected = await stack.inject(row.fault, victim);
    const faultAt = injected.at;
    undo = injected.undo;
    const unrecovered = await stillAfter(ledger, stack, faultAt + shownAfter(row, stack));
    const after = serverOf(ledger.attempts.findLast(isAcknowledged));
    const watchedUntil = now();
    const wellFrom = undo === undefined ? faultAt : watchedUntil;
    await undo?.();
    undo = undefined;
    await stack.waitHealthy(healthyMs);
    const redundantAfter = now() - wellFrom;
    await ledger.acknowledges(now(), 30_000);
    const attempts = await ledger.stop();
    const verdict = judge(
      attempts,
      parseFinalState(await stack.sql(await stack.primary(), finalStateQuery(ledger.run))),
    );
    const log = await stack.log(faultAt);
    trace(`${row.id}-${subject}`, `fault at ${new Date(faultAt).toISOString()}\n${log}`, attempts);
    return {
      subject,
      version: stack.version,
      row: row.id,
      at: new Date(faultAt).toISOString(),
      gaps: gapsIn(attempts, faultAt, watchedUntil),
      gapsAfter: row.lasts ? gapsIn(attempts, watchedUntil, Number.POSITIVE_INFINITY) : {},
      unrecovered,
      phases: stack.phases(log, row, faultAt, firstAcks(attempts, stack.routes, faultAt, watchedUntil)),
      etcdLeaderHit: row.etcdLeader === 'here',
      moved: before !== after,
      redundantAfter,
      acknowledged: verdict.acknowledged,
      lost: verdict.lost.length,
      faults: faultsOf(verdict),
    };
  } finally {
    await undo?.();
    await ledger.stop().catch(() => {});
  }
}

function trace(name: string, log: string, attempts: readonly Attempt[]): void {
  mkdirSync(traces, { recursive: true });
  writeFileSync(`${traces}/${name}.log`, log);
  writeFileSync(`${traces}/${name}.jsonl`, attempts.map((each) => `${JSON.stringify(each)}\n`).join(''));
}

/** Milliseconds after the fault from when on an acknowledgement means that it is over. */
function shownAfter(row: Row, stack: Stack): number {
  return Math.max(promptMs, row.lasts ? lastingMs : 0, row.late ? stack.lateMs : 0);
}

/**
 * Waits until every route has acknowledged a transaction that began after `moment`, as long as the stack has patience.
 * @returns the routes that did not.
 */
async function stillAfter(ledger: Ledger, stack: Stack, moment: number): Promise<Route[]> {
  await sleep(Math.max(0, moment - now()));
  const missing = () => stack.routes.filter((route) => ledger.firstAckAfter(moment, route) === undefined);
  await eventually('every route', stack.patienceMs, async () => missing().length === 0).catch(() => {});
  return missing();
}

function gapsIn(attempts: readonly Attempt[], from: number, to: number): Run['gaps'] {
  const found: Run['gaps'] = {};
  for (const route of routes) {
    const gap = longestGap(attempts, route, from, to);
    if (gap !== undefined) found[route] = gap.milliseconds;
  }
  return found;
}

/** The end of the longest gap of each of these routes. */
function firstAcks(
  attempts: readonly Attempt[],
  expected: readonly Route[],
  from: number,
  to: number,
): FirstAcks {
  const found: Partial<Record<Route, number>> = {};
  for (const route of expected) {
    const gap = longestGap(attempts, route, from, to);
    if (gap !== undefined) found[route] = gap.to;
  }
  return found;
}

const isAcknowledged = (each: Attempt): boolean => each.outcome === 'acknowledged';
const serverOf = (each: Attempt | undefined): string | undefined => each?.server;
