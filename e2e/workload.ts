import { randomBytes } from 'node:crypto';
import { appSecretName, podsServiceName, port, readWriteServiceName } from '../src/api/names.ts';
import { foreignContext, nodes } from './cluster/settings.ts';
import { eventually } from './kubernetes.ts';
import { finalBankQuery, parseFinalBank } from './ledger/bank.ts';
import { faultsOf, judge, type Verdict } from './ledger/checker.ts';
import { finalStateQuery, parseFinalState } from './ledger/final-state.ts';
import { type Attempt, clientRoutes, type Gap, longestGap, type Route } from './ledger/history.ts';
import { Ledger, localWriter } from './ledger/ledger.ts';
import type { TermRecord } from './ledger/primaries.ts';
import { type FullVerdict, judgeEvidence } from './ledger/verdict.ts';
import type { WriterSettings } from './ledger/writer.ts';
import { writerPod } from './ledger/writer-pod.ts';
import type { PostgresCluster } from './postgres-cluster.ts';

/**
 * Starts the workload against a cluster: some writers through the `-rw` Service, some through all pods.
 * @param more clients of other kinds; none by default
 */
export async function startLedger(
  cluster: PostgresCluster,
  more: Pick<WriterSettings, 'readersPerRoute' | 'bankClientsPerRoute'> = {},
): Promise<Ledger> {
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
    ...more,
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
  const faults = [...faultsOf(verdict), ...(await differences(cluster, primary, run))];
  if (faults.length > 0) throw new Error(`The ledger of ${run} is wrong:\n  - ${faults.join('\n  - ')}`);
  return verdict;
}

/**
 * Judges everything that a workload did: rows, reads, the bank, who acknowledged when, and that all instances have the
 * same rows.
 * @param addresses instances by the addresses that they had meanwhile
 */
export async function judgeLedger(
  cluster: PostgresCluster,
  { run, history }: Ledger,
  { terms, addresses, fenceWithin }: JudgeOptions,
): Promise<FullVerdict> {
  const primary = await cluster.knownPrimary();
  const verdict = judgeEvidence({
    history,
    final: parseFinalState(await cluster.sql(primary, finalStateQuery(run))),
    bank: parseFinalBank(await cluster.sql(primary, finalBankQuery(run))),
    terms,
    instanceOf: (address) => addresses.get(address),
    fenceWithin,
  });
  return { ...verdict, problems: [...verdict.problems, ...(await differences(cluster, primary, run))] };
}

export interface JudgeOptions {
  readonly terms: readonly TermRecord[];
  readonly addresses: ReadonlyMap<string, string>;
  /** See `Evidence`. */
  readonly fenceWithin: number;
}

/** Standbys that do not have the rows of the primary, as sentences. */
async function differences(cluster: PostgresCluster, primary: string, run: string): Promise<string[]> {
  const lsn = await cluster.sql(primary, 'SELECT pg_current_wal_flush_lsn()');
  const digest =
    `SELECT count(*), md5(string_agg(worker || '/' || seq, ',' ORDER BY worker, seq)), ` +
    `(SELECT md5(string_agg(account || ' ' || balance, ',' ORDER BY account)) ` +
    `FROM bank_account WHERE run = '${run}') FROM ledger WHERE run = '${run}'`;
  const expected = await cluster.sql(primary, digest);
  const problems: string[] = [];
  for (const { instance } of await cluster.pods()) {
    if (instance === primary) continue;
    await eventually(`${instance} to have replayed ${lsn}`, 20_000, async () => {
      return (await cluster.sql(instance, `SELECT pg_last_wal_replay_lsn() >= '${lsn}'`)) === 't';
    });
    const found = await cluster.sql(instance, digest);
    if (found !== expected)
      problems.push(`${instance} has other rows than the primary: ${found}, ${expected}`);
  }
  return problems;
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
