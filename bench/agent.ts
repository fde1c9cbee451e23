import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { Agent, request } from 'undici';
import { z } from 'zod';
import { kubectl } from '../e2e/cluster/cluster.ts';
import { withEtcd } from '../e2e/etcd.ts';
import { install } from '../e2e/install.ts';
import { PostgresCluster } from '../e2e/postgres-cluster.ts';
import { podName } from '../src/api/names.ts';
import { machine, markdown } from './results.ts';

const help = `Usage: npm run bench:agent [-- --idle S] [--load S]

What a cluster of four instances costs, when nothing happens and under pgbench: CPU and resident memory of the agents,
writes to etcd, writes to the Kubernetes API by resource.

  --idle S   seconds of nothing (default 300)
  --load S   seconds of pgbench with 8 clients (default 60)
`;
const { values } = parseArgs({
  options: { idle: { type: 'string' }, load: { type: 'string' }, help: { type: 'boolean', short: 'h' } },
});
const { idle, load } = z
  .object({ idle: z.coerce.number().min(1).default(300), load: z.coerce.number().min(1).default(60) })
  .parse(values);
const insecure = new Agent({ connect: { rejectUnauthorized: false } });

/** Writes counted by the API server so far, by resource. */
async function writes(): Promise<Map<string, number>> {
  const found = new Map<string, number>();
  for (const line of (await kubectl(['get', '--raw', '/metrics'])).split('\n')) {
    const verb = /^apiserver_request_total\{.*verb="(POST|PUT|PATCH|APPLY|DELETE)"/.exec(line)?.[1];
    if (verb === undefined) continue;
    const resource = /resource="([^"]*)"/.exec(line)?.[1] ?? '';
    const subresource = /subresource="([^"]+)"/.exec(line)?.[1];
    const key = subresource === undefined ? resource : `${resource}/${subresource}`;
    found.set(key, (found.get(key) ?? 0) + Number(line.slice(line.lastIndexOf(' '))));
  }
  return found;
}

interface AgentCost {
  readonly instance: string;
  /** `primary` or `standby`. */
  readonly role: string;
  readonly cpuSeconds: number;
  readonly bytes: number;
}

async function agentCosts(cluster: PostgresCluster): Promise<AgentCost[]> {
  return Promise.all(
    (await cluster.pods()).map(async ({ instance, role = '', address }) => {
      const answer = await request(`https://${address}:8008/metrics`, { dispatcher: insecure });
      const text = await answer.body.text();
      const metric = (name: string) =>
        Number(new RegExp(`^koschei_agent_${name} (\\S+)$`, 'm').exec(text)?.[1]);
      return {
        instance,
        role,
        cpuSeconds: metric('process_cpu_seconds_total'),
        bytes: metric('process_resident_memory_bytes'),
      };
    }),
  );
}

/** What it costs while something is done, which takes `seconds`. */
async function during(cluster: PostgresCluster, what: string, seconds: number, work: () => Promise<unknown>) {
  const look = async () => ({
    at: performance.now(),
    writes: await writes(),
    revision: await withEtcd(async (etcd) => Number((await etcd.readPrefix('/koschei/')).revision)),
    agents: await agentCosts(cluster),
  });
  const before = await look();
  await work();
  const after = await look();
  const elapsed = (after.at - before.at) / 1000;
  console.log(`\n### ${what}, ${seconds} s, on ${machine()}\n`);
  console.log(
    markdown(
      ['agent', 'CPU, % of a core', 'resident, MiB'],
      after.agents.map(({ instance, role, cpuSeconds, bytes }, i) => {
        const used = cpuSeconds - (before.agents[i]?.cpuSeconds ?? cpuSeconds);
        return [
          `${instance}, ${role}`,
          ((used / elapsed) * 100).toFixed(2),
          String(Math.round(bytes / 2 ** 20)),
        ];
      }),
    ),
  );
  const perMinute = ((after.revision - before.revision) * 60) / elapsed;
  console.log(
    `\nWrites to etcd: ${perMinute.toFixed(1)} a minute. Writes to the Kubernetes API, by resource:\n`,
  );
  for (const [key, count] of after.writes) {
    const more = count - (before.writes.get(key) ?? 0);
    if (more > 0) console.log(`  ${key}: ${more}`);
  }
}

if (values.help) {
  console.log(help);
  process.exit(0);
}
await install();
const cluster = await PostgresCluster.create('bench-agent', {
  replicas: { synchronous: 1, asynchronous: 2 },
  storage: { size: '1Gi' },
  resources: { requests: { cpu: '50m', memory: '128Mi' } },
});
try {
  await cluster.waitHealthy(180_000);
  await sleep(20_000);
  await during(cluster, 'Idle', idle, () => sleep(idle * 1000));
  const primary = await cluster.knownPrimary();
  const pgbench = (...options: string[]) =>
    kubectl([
      ...['-n', cluster.namespace, 'exec', podName(primary), '-c', 'postgres', '--'],
      ...['pgbench', '-h', '/run/koschei', '-U', 'postgres', ...options, 'app'],
    ]);
  await pgbench('-i', '-q', '-s', '10');
  let result = '';
  await during(cluster, 'Under pgbench with 8 clients', load, async () => {
    result = await pgbench('-c', '8', '-j', '2', '-T', String(load));
  });
  console.log(`\n${/^tps = .*$/m.exec(result)?.[0] ?? result}`);
} finally {
  await cluster.remove();
  await insecure.close();
}
