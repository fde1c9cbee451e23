import { z } from 'zod';
import { killNode, kubectl, startNode, waitForNode } from '../e2e/cluster/cluster.ts';
import { killPod, killPostgres, now } from '../e2e/faults.ts';
import { install } from '../e2e/install.ts';
import { PostgresCluster } from '../e2e/postgres-cluster.ts';
import { underLoad } from '../e2e/scenario.ts';
import type { Gaps } from '../e2e/workload.ts';
import { podName } from '../src/api/names.ts';
import { machine, record, recorded, table } from './results.ts';

/*
 * The write gap of each fault under load, and where the time goes, read from the primary's log.
 * npm run bench:failover -- [runs, default 3] [row]
 */
const runs = Number(process.argv[2] ?? 3);
const only = process.argv[3];

const Line = z.looseObject({
  time: z.string().optional(),
  operation: z.string().optional(),
  because: z.string().optional(),
  write: z.string().optional(),
  msg: z.string().optional(),
});

/** What happened when in the agent of an instance, milliseconds since the epoch. */
async function logOf(cluster: PostgresCluster, instance: string, since: number) {
  const text = await kubectl([
    ...['-n', cluster.namespace, 'logs', podName(instance), '-c', 'postgres'],
    `--since-time=${new Date(since - 1000).toISOString()}`,
  ]);
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return [];
    const entry = Line.parse(JSON.parse(line));
    const at = entry.time === undefined ? Number.NaN : Date.parse(entry.time);
    return at >= since ? [{ ...entry, at }] : [];
  });
}

type Log = Awaited<ReturnType<typeof logOf>>;

/** When the first operation of a kind ended, not before `after`. */
const ended = (log: Log, operation: string, after = 0) =>
  log.find((e) => e.operation === operation && e.because === undefined && e.at >= after)?.at;

/** When Postgres required the new synchronous standbys and nobody else, so that commits were acknowledged again. */
function setUsable(log: Log): number | undefined {
  const settled = log.find((e) => e.because === 'only names in etcd need to confirm')?.at;
  return settled === undefined ? undefined : ended(log, 'configure', settled);
}

/** The phases of a takeover, each in milliseconds after the one before; absent where there was none. */
function takeover(log: Log, faultAt: number, gaps: Gaps): Record<string, number> {
  const started = (operation: string) =>
    log.find((e) => e.operation === operation && e.because !== undefined)?.at;
  const promoted = ended(log, 'promote');
  const usable = setUsable(log);
  const found = consecutive(faultAt, [
    ['detect', started('stop-receiver')],
    ['stop receiver', ended(log, 'stop-receiver')],
    ['take', started('promote')],
    ['promote', promoted],
    ['sync set usable', usable],
  ]);
  const routed = log.find((e) => e.msg === 'the -rw Service leads here')?.at;
  if (routed !== undefined && promoted !== undefined) found['route (after promote)'] = routed - promoted;
  return { ...found, ...firstAcknowledgements(gaps, usable, routed) };
}

/** The phases of the replacement of a synchronous standby, in the primary's log. */
function replacement(log: Log, faultAt: number, gaps: Gaps): Record<string, number> {
  const usable = setUsable(log);
  const found = consecutive(faultAt, [
    ['detect', log.find((e) => e.because?.endsWith('becomes synchronous'))?.at],
    ['sync set usable', usable],
  ]);
  return { ...found, ...firstAcknowledgements(gaps, usable, usable) };
}

function consecutive(from: number, marks: [string, number | undefined][]): Record<string, number> {
  const found: Record<string, number> = {};
  let last = from;
  for (const [name, at] of marks) {
    if (at === undefined) continue;
    found[name] = at - last;
    last = at;
  }
  return found;
}

/** From when a write could be acknowledged to when the first one was: connecting anew is in it. */
function firstAcknowledgements(gaps: Gaps, usable: number | undefined, routed: number | undefined) {
  const found: Record<string, number> = {};
  const { service, 'multi-host': multiHost } = gaps;
  if (usable === undefined) return found;
  if (service !== undefined && routed !== undefined)
    found['first ack, Service'] = service.to - Math.max(usable, routed);
  if (multiHost !== undefined) found['first ack, multi-host'] = multiHost.to - usable;
  return found;
}

type Fault = (
  cluster: PostgresCluster,
  primary: string,
) => Promise<{ at: number; undo?: () => Promise<void> }>;

async function nodeKilled(cluster: PostgresCluster, instance: string) {
  const { node } = await cluster.podOf(instance);
  const at = now();
  await killNode(node);
  const undo = async () => {
    await startNode(node);
    await waitForNode(node);
  };
  return { at, undo };
}

const rows: Record<string, Fault> = {
  switchover: async (cluster) => {
    const at = now();
    await cluster.requestSwitchover();
    return { at };
  },
  'kill -9 of postgres': async (cluster, primary) => ({ at: await killPostgres(cluster, primary) }),
  'pod deleted without grace': async (cluster, primary) => ({ at: await killPod(cluster, primary) }),
  'node killed': nodeKilled,
  "synchronous standby's node killed": async (cluster, primary) => {
    const nodeOfPrimary = (await cluster.podOf(primary)).node;
    const [standby] = await cluster.synchronousStandbys();
    if (standby === undefined) throw new Error('there is no synchronous standby');
    if ((await cluster.podOf(standby)).node === nodeOfPrimary)
      throw new Error(`${standby} is on the primary's node`);
    return nodeKilled(cluster, standby);
  },
};

await install();
const cluster = await PostgresCluster.create('bench-failover', {
  postgres: { parameters: { shared_buffers: '64MB', max_connections: 50 } },
  replicas: { synchronous: 1, asynchronous: 2 },
  storage: { size: '1Gi' },
  resources: { requests: { cpu: '50m', memory: '128Mi' } },
});
try {
  await cluster.waitHealthy(180_000);
  for (const [row, fault] of Object.entries(rows)) {
    if (only !== undefined && row !== only) continue;
    for (let run = 0; run < runs; run++) {
      const old = await cluster.knownPrimary();
      const keepsPrimary = row.startsWith('synchronous');
      const report = await underLoad(cluster, async (ledger) => {
        await ledger.acknowledges(now(), 15_000);
        const { at, undo } = await fault(cluster, old);
        if (!keepsPrimary) await cluster.waitForOtherPrimary({ instance: old }, 60_000);
        await ledger.acknowledges(now(), 60_000);
        await undo?.();
        return at;
      });
      const log = await logOf(cluster, keepsPrimary ? old : await cluster.knownPrimary(), report.faultAt);
      const { service, 'multi-host': multiHost } = report.gaps;
      record('failover', {
        row,
        at: new Date().toISOString(),
        values: {
          ...(service === undefined ? {} : { 'gap, Service': service.milliseconds }),
          ...(multiHost === undefined ? {} : { 'gap, multi-host': multiHost.milliseconds }),
          ...(keepsPrimary ? replacement : takeover)(log, report.faultAt, report.gaps),
        },
      });
    }
  }
} finally {
  await cluster.remove();
}
const columns = [
  'gap, Service',
  'gap, multi-host',
  'detect',
  'stop receiver',
  'take',
  'promote',
  'sync set usable',
  'route (after promote)',
  'first ack, Service',
  'first ack, multi-host',
];
console.log(
  `\nMilliseconds, median / maximum, on ${machine()}; 8 writers, statement timeout 500 ms, connect timeout 300 ms per host, hosts shuffled:\n\n` +
    table(recorded('failover'), columns),
);
