import { expect, onTestFailed, test } from 'vitest';
import type { PgClusterSpecInput } from '../src/api/pgcluster.ts';
import { dumpDiagnostics } from './diagnostics.ts';
import { now } from './faults.ts';
import type { Verdict } from './ledger/checker.ts';
import { type Attempt, clientRoutes, type Route } from './ledger/history.ts';
import type { Ledger } from './ledger/ledger.ts';
import { PostgresCluster } from './postgres-cluster.ts';
import { type Gaps, gapsSince, startLedger, verifyLedger } from './workload.ts';

/** What a workload showed. */
export interface LoadReport {
  /** When the fault was there, milliseconds since the epoch. */
  readonly faultAt: number;
  readonly verdict: Verdict;
  /** The longest time without an acknowledgement since the fault, by route. */
  readonly gaps: Gaps;
  readonly attempts: readonly Attempt[];
}

export interface LoadOptions {
  /** Milliseconds within which all must be well again after the fault. */
  readonly healthyWithin?: number;
}

/**
 * Lets a fault happen while rows are written, waits until all is well and writes are acknowledged on both routes, and
 * checks that nothing acknowledged is lost.
 * @param fault returns when the fault was there; it may also wait for what must come of it, and undo it.
 */
export async function underLoad(
  cluster: PostgresCluster,
  fault: (ledger: Ledger) => Promise<number>,
  options: LoadOptions = {},
): Promise<LoadReport> {
  const ledger = await startLedger(cluster);
  running.set(cluster, ledger);
  try {
    const faultAt = await fault(ledger);
    await cluster.waitHealthy(options.healthyWithin ?? 120_000);
    await ledger.acknowledges(now(), 15_000);
    const attempts = await ledger.stop();
    const verdict = await verifyLedger(cluster, ledger.run, attempts);
    const gaps = gapsSince(attempts, faultAt);
    console.log(`    ${describe(verdict, gaps)}`);
    return { faultAt, verdict, gaps, attempts };
  } finally {
    await ledger.stop().catch(() => {});
  }
}

/**
 * Makes a cluster in a namespace of its own and waits until all is well.
 * @throws {Error} after 180 s; what explains it is kept, and the cluster is removed.
 */
export async function healthyCluster(test: string, spec: PgClusterSpecInput): Promise<PostgresCluster> {
  const cluster = await PostgresCluster.create(test, spec);
  try {
    const began = now();
    await cluster.waitHealthy(180_000);
    console.log(
      `    ${cluster.namespace}/${cluster.name} is healthy after ${((now() - began) / 1000).toFixed(1)} s`,
    );
    return cluster;
  } catch (error) {
    console.log(`    details in ${await dumpDiagnostics(`${test}-creation`, cluster)}`);
    await cluster.remove();
    throw error;
  }
}

/**
 * Fails when writes stood still for longer than a fault explains.
 * @param limit milliseconds that each route may be without an acknowledgement: about three times what
 * docs/benchmarks.md says of the fault, because two cores are shared with everything else
 */
export function expectShortGaps(
  { gaps }: LoadReport,
  limit: number,
  of: readonly Route[] = clientRoutes,
): void {
  for (const route of of) expect(gaps[route]?.milliseconds, `gap of ${route}`).toBeLessThan(limit);
}

/** The workloads of this process, for diagnostics. */
const running = new Map<PostgresCluster, Ledger>();

function describe(verdict: Verdict, gaps: Gaps): string {
  const seconds = clientRoutes.map(
    (route) => `${route} ${((gaps[route]?.milliseconds ?? 0) / 1000).toFixed(2)} s`,
  );
  const { acknowledged, present, lost, unknown, resolved } = verdict;
  return (
    `write gap: ${seconds.join(', ')}; ${acknowledged} rows acknowledged, ${lost.length} lost, ` +
    `${present} present, ${resolved} of ${unknown} unknown ones committed`
  );
}

/** A test about a cluster; when it fails, everything that explains it is kept. */
export function scenario(
  name: string,
  cluster: () => PostgresCluster | undefined,
  body: () => Promise<void>,
  timeout?: number,
): void {
  test(
    name,
    async () => {
      onTestFailed(async () => {
        const subject = cluster();
        const ledger = subject === undefined ? undefined : running.get(subject);
        console.log(`    details in ${await dumpDiagnostics(name, subject, ledger?.attempts)}`);
      }, 120_000);
      await body();
    },
    timeout,
  );
}
