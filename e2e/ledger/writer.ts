import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import * as z from 'zod';
import { Connector, messageOf } from './connection.ts';
import { routes } from './history.ts';
import { tables, work } from './worker.ts';

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
  /** Milliseconds within which the first session must be there. */
  patience: z.int().min(0),
});
export type WriterSettings = z.infer<typeof settings>;

/** Events, one per line: `{"ready":true}`, then `{"attempt":{...}}`, then `{"done":true}`; or `{"error":"..."}`. */
const say = (event: object) => process.stdout.write(`${JSON.stringify(event)}\n`);

/** Milliseconds since the epoch with fractions, on a clock that does not jump. */
const now = () => performance.timeOrigin + performance.now();

const stop = new AbortController();
const lines = createInterface({ input: process.stdin });
const first = new Promise<string>((resolve) => lines.once('line', resolve));
lines.on('close', () => stop.abort());

try {
  const { run, target, workersPerRoute, interval, patience, ...chosen } = settings.parse(
    JSON.parse(await first),
  );
  const workers = chosen.routes.flatMap((route, index) =>
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
  await Promise.all(
    workers.map(({ worker, route }) =>
      work({
        run,
        worker,
        route,
        interval,
        now,
        connector: new Connector(target, route, stop.signal),
        report: (attempt) => say({ attempt }),
        signal: stop.signal,
      }),
    ),
  );
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
        for (const table of tables) await session.client.query(table);
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
