import { setTimeout as sleep } from 'node:timers/promises';
import { defaultTiming } from '../../src/dcs/index.ts';
import { dumpDiagnostics } from '../diagnostics.ts';
import { now } from '../faults.ts';
import { eventually } from '../kubernetes.ts';
import { messageOf } from '../ledger/connection.ts';
import { clientRoutes } from '../ledger/history.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { TermRecord } from '../ledger/primaries.ts';
import type { FullVerdict } from '../ledger/verdict.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { type Gaps, gapsSince, judgeLedger, startLedger } from '../workload.ts';
import type { Expectation, Fault } from './fault.ts';
import type { Journal } from './journal.ts';
import { observe, termsOf } from './observe.ts';
import type { Result } from './results.ts';
import { Strike } from './strike.ts';

/** Milliseconds of undisturbed load before a fault. */
const warmUp = 1_500;
/** Milliseconds after which a fault that ends by itself has surely shown: before, all may still look well. */
const shows = 3_000;
/** Milliseconds that a replaced primary may answer reads: its ttl, and the way of an answer. */
const staleFor = defaultTiming.ttlMs + 1_000;

/**
 * Lets one fault happen to a healthy cluster under load, undoes it, waits until everything is redundant again and judges
 * all that clients saw. Never throws: what could not be judged is `unverified`, and that is never good.
 */
export async function drill(cluster: PostgresCluster, fault: Fault, journal: Journal): Promise<Result> {
  const at = new Date().toISOString();
  const result = (more: Partial<Result> & Pick<Result, 'verdict' | 'problems'>): Result => ({
    ...{ fault: fault.name, at, target: '', gaps: {} },
    ...more,
  });
  let ledger: Ledger | undefined;
  let strike: Strike | undefined;
  const problems: string[] = [];
  const note = (problem: Promise<unknown>) => problem.catch((error) => problems.push(messageOf(error)));
  try {
    await cluster.waitHealthy(120_000);
    // Members of etcd that an earlier fault has ended may still be on their way back.
    const facts = await eventually('all members of etcd to answer', 90_000, () => observe(cluster), 1_000);
    strike = new Strike(fault, facts, journal);
    const before = await termsOf(cluster.namespace);
    ledger = await startLedger(cluster, { readersPerRoute: 1, bankClientsPerRoute: 1 });
    await sleep(warmUp);

    const faultAt = await strike.start();
    await sleep(Math.max(0, faultAt + Math.max(fault.holdMs, shows) - now()));
    await strike.end();
    const endedAt = now();
    // What lasted has shown by now.
    if (fault.holdMs < shows) await note(takenOver(cluster, before, fault.expects));
    await note(cluster.waitHealthy(fault.expects.redundant ?? 120_000));
    const redundantAt = now();
    await note(ledger.acknowledges(now(), 15_000));
    await ledger.stop();

    const terms = await termsOf(cluster.namespace);
    const failovers = terms.length - before.length;
    const addresses = new Map(facts.instances.map(({ address, name }) => [address, name]));
    for (const { address, instance } of await cluster.pods()) addresses.set(address ?? '', instance);
    const fenceWithin = fault.expects.staleFor ?? staleFor;
    const verdict = await judgeLedger(cluster, ledger, { terms, addresses, fenceWithin });
    const gaps = gapsSince(ledger.attempts, faultAt);
    problems.push(...verdict.problems, ...unexpected(fault.expects, failovers, gaps));
    if (problems.length > 0) {
      const folder = await dumpDiagnostics(`fault-${fault.name}`, cluster, ledger.attempts);
      problems.push(`details in ${folder}`);
    }
    return result({
      verdict: problems.length === 0 ? 'pass' : 'fail',
      problems,
      target: strike.target,
      failovers,
      gaps: Object.fromEntries(
        clientRoutes.flatMap((route) => {
          const gap = gaps[route];
          return gap === undefined ? [] : [[route, gap.milliseconds]];
        }),
      ),
      fromFault: redundantAt - faultAt,
      fromEnd: redundantAt - endedAt,
      ...counts(verdict),
    });
  } catch (error) {
    const folder = await dumpDiagnostics(`fault-${fault.name}`, cluster, ledger?.attempts).catch(messageOf);
    // A cluster that is not well again is a failure, also when it cannot be asked what clients saw.
    const verdict = problems.length > 0 ? 'fail' : 'unverified';
    problems.push(messageOf(error), `details in ${folder}`);
    return result({ verdict, problems, target: strike?.target ?? '' });
  } finally {
    // What could not be undone stays in the journal, and who goes on undoes it first.
    await strike?.end().catch((error: unknown) => console.error(messageOf(error)));
    await ledger?.stop().catch(() => {});
  }
}

/** Waits until there is a new term, if there must be one. */
async function takenOver(
  cluster: PostgresCluster,
  before: readonly TermRecord[],
  { failovers: [least] }: Expectation,
): Promise<void> {
  if (least === 0) return;
  await eventually(
    'another term',
    45_000,
    async () => {
      return (await termsOf(cluster.namespace)).length >= before.length + least;
    },
    500,
  );
}

/** Where a fault did more than it may, or less than it must. */
export function unexpected(expects: Expectation, failovers: number, gaps: Gaps): string[] {
  const [least, most] = expects.failovers;
  const problems = (expects.routes ?? clientRoutes).flatMap((route) => {
    const gap = gaps[route]?.milliseconds;
    if (gap === undefined) return [`nothing was acknowledged on the route ${route}`];
    return gap <= expects.gap
      ? []
      : [
          `no acknowledgement on the route ${route} for ${Math.round(gap)} ms; at most ${expects.gap} expected`,
        ];
  });
  if (failovers >= least && failovers <= most) return problems;
  const range = least === most ? `${least}` : `${least} to ${most}`;
  return [...problems, `${failovers} new terms instead of ${range}`];
}

function counts({ writes, reads, bank }: FullVerdict) {
  return {
    acknowledged: writes.acknowledged + bank.acknowledged,
    failed: writes.failed + bank.failed,
    indeterminate: writes.unknown + bank.unknown,
    lost: writes.lost.length,
    reads: reads.reads,
    staleReads: reads.staleUntilFence,
    audits: bank.audits,
  };
}
