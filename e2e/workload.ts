import { randomBytes } from 'node:crypto';
import { appSecretName, podsServiceName, port, readWriteServiceName } from '../src/api/names.ts';
import { foreignContext, nodes } from './cluster/settings.ts';
import { eventually } from './kubernetes.ts';
import { faultsOf, judge, type Verdict } from './ledger/checker.ts';
import { finalStateQuery, parseFinalState } from './ledger/final-state.ts';
import { type Attempt, clientRoutes, type Gap, longestGap, type Route } from './ledger/history.ts';
import { Ledger, localWriter } from './ledger/ledger.ts';
import { writerPod } from './ledger/writer-pod.ts';
import type { PostgresCluster } from './postgres-cluster.ts';

/** Starts the workload against a cluster: some writers through the `-rw` Service, some through all pods. */
export async function startLedger(cluster: PostgresCluster): Promise<Ledger> {
  const secret = appSecretName(cluster.name);
  const local = foreignContext === undefined;
  const [command, serviceHost, user, password, database] = await Promise.all([
    local ? localWriter : writerPod(cluster.namespace),
    cluster.serviceAddress(readWriteServiceName(cluster.name)),
    cluster.secret(secret, 'user'),
    cluster.secret(secret, 'password'),
    cluster.secret(secret, 'dbname'),
  ]);
  const settings = {
    run: `run-${randomBytes(4).toString('hex')}`,
    target: {
      serviceHost,
      podsHost: `${podsServiceName(cluster.name)}.${cluster.namespace}.svc${local ? '.cluster.local' : ''}`,
      port: port.postgres,
      nameServers: local ? nodes.map(({ ip }) => ip) : [],
      user,
      password,
      database,
      tls: true,
    },
    routes: clientRoutes,
    workersPerRoute: 4,
    interval: 40,
    patience: 15_000,
  };
  return Ledger.start(settings, command);
}

/**
 * Compares what was acknowledged with what is there: on the primary by row, on every standby that it has the same
 * rows.
 * @throws {Error} if anything acknowledged is lost, or anything else is wrong.
 */
export async function verifyLedger(
  cluster: PostgresCluster,
  run: string,
  attempts: readonly Attempt[],
): Promise<Verdict> {
  const primary = await cluster.knownPrimary();
  const verdict = judge(attempts, parseFinalState(await cluster.sql(primary, finalStateQuery(run))));
  const faults = faultsOf(verdict);
  const lsn = await cluster.sql(primary, 'SELECT pg_current_wal_flush_lsn()');
  const digest =
    `SELECT count(*), md5(string_agg(worker || '/' || seq, ',' ORDER BY worker, seq)) ` +
    `FROM ledger WHERE run = '${run}'`;
  const expected = await cluster.sql(primary, digest);
  for (const { instance } of await cluster.pods()) {
    if (instance === primary) continue;
    await eventually(`${instance} to have replayed ${lsn}`, 20_000, async () => {
      return (await cluster.sql(instance, `SELECT pg_last_wal_replay_lsn() >= '${lsn}'`)) === 't';
    });
    const found = await cluster.sql(instance, digest);
    if (found !== expected) faults.push(`${instance} has other rows than the primary: ${found}, ${expected}`);
  }
  if (faults.length > 0) throw new Error(`The ledger of ${run} is wrong:\n  - ${faults.join('\n  - ')}`);
  return verdict;
}

/** The longest time without an acknowledgement, by route. */
export type Gaps = Readonly<Partial<Record<Route, Gap | undefined>>>;

/** The longest holes between acknowledgements since a moment, by route. */
export function gapsSince(attempts: readonly Attempt[], moment: number): Gaps {
  return {
    service: longestGap(attempts, 'service', moment),
    'multi-host': longestGap(attempts, 'multi-host', moment),
  };
}
