import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { TestBed, type TestInstance } from '../../src/postgres/test-instances.ts';
import { run, waitUntil } from '../cluster/shell.ts';
import { finalBankQuery, parseFinalBank } from './bank.ts';
import { faultsOf, judge } from './checker.ts';
import { finalStateQuery, parseFinalState } from './final-state.ts';
import { longestGap, routes } from './history.ts';
import { Ledger } from './ledger.ts';
import { judgeEvidence } from './verdict.ts';
import type { WriterSettings } from './writer.ts';

let bed: TestBed;
let server: TestInstance;

beforeAll(async () => {
  bed = await TestBed.create();
  server = await bed.instance('one');
  await server.initdb();
});
afterAll(() => bed.close());

const reconfigure = async (settings: Parameters<TestInstance['configure']>[0]) =>
  server.sql.reloadAndVerify((await server.configure(settings)).owned);

const start = (name: string, more: Pick<WriterSettings, 'readersPerRoute' | 'bankClientsPerRoute'> = {}) =>
  Ledger.start({
    run: name,
    target: {
      serviceHost: '127.0.0.1',
      podsHost: '127.0.0.1',
      port: server.paths.port,
      nameServers: [],
      user: 'app',
      password: 'the password',
      database: 'app',
      tls: true,
    },
    routes,
    workersPerRoute: 3,
    interval: 5,
    patience: 10_000,
    ...more,
  });

function psql(sql: string): Promise<string> {
  const { paths, binaries } = server.installation;
  return run(`${binaries.directory}/psql`, [
    ...['-h', paths.socketDir, '-p', String(paths.port), '-U', 'postgres', '-d', 'app'],
    ...['--no-psqlrc', '--no-align', '--tuples-only', '-c', sql],
  ]);
}

/** Judges everything that a workload did, on a server that keeps its timeline and address. */
const judgeAll = async ({ run, history }: Ledger) =>
  judgeEvidence({
    history,
    final: await finalState(run),
    bank: parseFinalBank(await psql(finalBankQuery(run))),
    terms: [],
    instanceOf: () => undefined,
    fenceWithin: 0,
  });

const finalState = async (name: string) => parseFinalState(await psql(finalStateQuery(name)));

describe('the workload', () => {
  test('survives a crash of the server without a lost row, and measures the gap', async () => {
    await server.startAsPrimary();
    const ledger = await start('crash');
    await server.postgres.fence({ graceMs: 0, deadlineMs: 10_000 });
    const crashed = performance.timeOrigin + performance.now();
    await server.startAsPrimary();
    await ledger.acknowledges(crashed, 20_000);
    const attempts = await ledger.stop();
    const verdict = judge(attempts, await finalState('crash'));
    expect(faultsOf(verdict)).toEqual([]);
    expect(verdict.acknowledged).toBeGreaterThan(10);
    expect(longestGap(attempts)?.to).toBeGreaterThan(crashed);
    await server.stop();
  });

  test('does not take a commit for acknowledged whose wait for the standby was given up', async () => {
    await server.startAsPrimary();
    const ledger = await start('cancelled');
    await reconfigure({ synchronousStandbys: ['nobody'] });
    // Backends take up a reload between two statements: what ends right after it need not have waited.
    const inForce = performance.timeOrigin + performance.now() + 200;
    const cancelled = (each: { completedAt: number; error?: string | undefined }) =>
      each.completedAt > inForce && each.error?.includes('canceling wait for synchronous replication');
    await waitUntil('a wait to be cancelled', 10_000, async () => {
      await psql(`SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'`);
      return ledger.attempts.some(cancelled);
    });
    const attempts = await ledger.stop();
    const waited = attempts.filter((each) => each.completedAt > inForce);
    expect(new Set(waited.map((each) => each.outcome))).not.toContain('acknowledged');
    await reconfigure({});
    const verdict = judge(attempts, await finalState('cancelled'));
    expect(faultsOf(verdict)).toEqual([]);
    expect(verdict.resolved).toBeGreaterThan(0);
    await server.stop();
  });

  test('reads, moves money and sums it up, and finds nothing wrong across a crash', async () => {
    await server.startAsPrimary();
    const ledger = await start('bank', { readersPerRoute: 2, bankClientsPerRoute: 3 });
    const enough = () => {
      const { reads, transfers, audits } = ledger.history;
      const done = transfers.filter(({ outcome }) => outcome === 'acknowledged');
      const levels = new Set(done.map(({ isolation }) => isolation));
      return levels.size === 2 && done.length > 50 && reads.length > 50 && audits.length > 50;
    };
    await waitUntil('enough of everything', 20_000, async () => enough());
    await server.postgres.fence({ graceMs: 0, deadlineMs: 10_000 });
    const crashed = performance.timeOrigin + performance.now();
    await server.startAsPrimary();
    await waitUntil('transfers after the crash', 20_000, async () =>
      ledger.history.transfers.some((each) => each.outcome === 'acknowledged' && each.invokedAt > crashed),
    );
    await ledger.stop();
    const verdict = await judgeAll(ledger);
    expect(verdict.problems).toEqual([]);
    expect(new Set(ledger.history.attempts.flatMap(({ started }) => started ?? [])).size, 'lives').toBe(2);
    await server.stop();
  });

  test('notices money and rows that somebody takes', async () => {
    await server.startAsPrimary();
    const ledger = await start('thief', { readersPerRoute: 1, bankClientsPerRoute: 1 });
    await waitUntil('audits', 10_000, async () => ledger.history.audits.length > 5);
    await psql(`UPDATE bank_account SET balance = balance - 1 WHERE run = 'thief' AND account = 1`);
    const before = ledger.history.audits.length;
    await waitUntil('an audit', 10_000, async () => ledger.history.audits.length > before + 2);
    await ledger.stop();
    await psql(`DELETE FROM ledger WHERE run = 'thief' AND worker = 1 AND seq = 1`);
    const { problems } = await judgeAll(ledger);
    expect(problems.join('\n')).toMatch(/1 acknowledged rows are lost.*sums of the bank are not 8000/s);
    await server.stop();
  });

  test('says why when no server lets it in', async () => {
    await expect(
      Ledger.start({
        run: 'nobody',
        target: {
          serviceHost: '127.0.0.1',
          podsHost: '127.0.0.1',
          // tcpmux: nobody listens.
          port: 1,
          nameServers: [],
          user: 'app',
          password: 'the password',
          database: 'app',
          tls: true,
        },
        routes: ['multi-host'],
        workersPerRoute: 1,
        interval: 5,
        patience: 300,
      }),
    ).rejects.toThrow(/no primary among the hosts.*ECONNREFUSED/);
  });
});
