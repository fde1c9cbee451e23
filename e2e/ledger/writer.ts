import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { audit, bankTables, openAccounts, transfer } from './bank.ts';
import { Connector, messageOf } from './connection.ts';
import { type Route, routes } from './history.ts';
import { forEver, read, tables, write } from './worker.ts';

/*
 * The workload as a program of its own, so that nothing else delays it. It reads its settings as one line of JSON from
 * its standard input (no password is ever an argument), writes one line of JSON per event to its standard output, and
 * ends when its input ends.
 */

const settings = z.object({
  run: z.string().min(1),
  target: z.object({
    serviceHost: z.string(),
    podsHost: z.string(),
    port: z.int(),
    nameServers: z.array(z.string()).readonly(),
    user: z.string(),
    password: z.string(),
    database: z.string(),
    tls: z.boolean(),
  }),
  routes: z.array(z.enum(routes)).min(1).readonly(),
  workersPerRoute: z.int().min(1).max(32),
  /** Milliseconds between two transactions of a worker. */
  interval: z.number().min(0),
  /** Clients that read registers, and clients of the bank, on each route; they pause as long. */
  readersPerRoute: z.int().min(0).max(32).default(0),
  bankClientsPerRoute: z.int().min(0).max(32).default(0),
  /** Milliseconds within which the first session must be there. */
  patience: z.int().min(0),
});
export type WriterSettings = z.input<typeof settings>;

/**
 * Events, one per line: `{"ready":true}`, then `{"attempt":{...}}`, `{"read":{...}}`, `{"transfer":{...}}`,
 * `{"audit":{...}}`, then `{"done":true}`; or `{"error":"..."}`.
 */
const say = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`);

/** Milliseconds since the epoch with fractions, on a clock that does not jump. */
const now = () => performance.timeOrigin + performance.now();

const stop = new AbortController();
const lines = createInterface({ input: process.stdin });
const first = new Promise<string>((resolve) => lines.once('line', resolve));
lines.on('close', () => stop.abort());

try {
  const { run, target, workersPerRoute, interval, patience, ...more } = settings.parse(
    JSON.parse(await first),
  );
  const workers = more.routes.flatMap((route, index) =>
    Array.from({ length: workersPerRoute }, (_, number) => ({
      worker: 1 + index * workersPerRoute + number,
      route,
    })),
  );
  await prepare(
    new Connector(target, 'multi-host', stop.signal),
    run,
    workers.map(({ worker }) => worker),
    patience,
  );
  say({ ready: true });
  const numbers = workers.map(({ worker }) => worker);
  const client = (route: Route) => ({
    ...{
      run,
      route,
      interval,
      now,
      connector: new Connector(target, route, stop.signal),
      signal: stop.signal,
    },
  });
  const perRoute = (count: number) =>
    more.routes.flatMap((route, index) =>
      Array.from({ length: count }, (_, number) => ({ number: 1 + index * count + number, route })),
    );
  await Promise.all([
    ...workers.map(({ worker, route }) =>
      forEver(
        client(route),
        write(run, worker, (attempt) => say({ attempt })),
      ),
    ),
    ...perRoute(more.readersPerRoute).map(({ number, route }) =>
      forEver(
        client(route),
        read(run, number, numbers, (made) => say({ read: made })),
      ),
    ),
    ...perRoute(more.bankClientsPerRoute).flatMap(({ number, route }) => [
      forEver(
        client(route),
        transfer(run, number, (made) => say({ transfer: made })),
      ),
      forEver(
        client(route),
        audit(run, number, (made) => say({ audit: made })),
      ),
    ]),
  ]);
  say({ done: true });
  process.exit(0);
} catch (error) {
  say({ error: messageOf(error) });
  process.exit(1);
}

async function prepare(
  connector: Connector,
  run: string,
  workers: number[],
  patience: number,
): Promise<void> {
  const deadline = now() + patience;
  for (;;) {
    try {
      const session = await connector.open();
      try {
        for (const table of [...tables, ...bankTables]) await session.client.query(table);
        await session.client.query(openAccounts(run));
        await session.client.query(
          `INSERT INTO ledger_register SELECT $1, unnest($2::int[]), 0 ON CONFLICT DO NOTHING`,
          [run, workers],
        );
        return;
      } finally {
        session.close();
      }
    } catch (error) {
      if (now() > deadline) throw error;
      await sleep(100);
    }
  }
}
