import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, request } from 'undici';
import { kubectl } from '../e2e/cluster/cluster.ts';
import { withEtcd } from '../e2e/etcd.ts';
import { install } from '../e2e/install.ts';
import { PostgresCluster } from '../e2e/postgres-cluster.ts';
import { machine } from './results.ts';

/*
 * What a cluster of four instances costs when nothing happens: writes to the Kubernetes API by resource, revisions of
 * etcd, CPU and memory of the agents.
 * npm run bench:idle -- [seconds, default 300]
 */
const seconds = Number(process.argv[2] ?? 300);
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

async function agentMetric(address: string, name: string): Promise<number> {
  const answer = await request(`https://${address}:8008/metrics`, { dispatcher: insecure });
  const text = await answer.body.text();
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1]);
}

await install();
const cluster = await PostgresCluster.create('bench-idle', {
  replicas: { synchronous: 1, asynchronous: 2 },
  storage: { size: '1Gi' },
  resources: { requests: { cpu: '50m', memory: '128Mi' } },
});
try {
  await cluster.waitHealthy(180_000);
  await sleep(20_000);
  const look = async () => ({
    writes: await writes(),
    revision: await withEtcd(async (etcd) => Number((await etcd.readPrefix('/koschei/')).revision)),
    cpu: await Promise.all(
      (await cluster.pods()).map(async (pod) => ({
        instance: pod.instance,
        seconds: await agentMetric(pod.address ?? '', 'koschei_agent_process_cpu_seconds_total'),
        bytes: await agentMetric(pod.address ?? '', 'koschei_agent_process_resident_memory_bytes'),
      })),
    ),
  });
  const before = await look();
  await sleep(seconds * 1000);
  const after = await look();
  console.log(`\nIdle for ${seconds} s on ${machine()}.\n\nWrites to the Kubernetes API, by resource:\n`);
  for (const [key, count] of after.writes) {
    const more = count - (before.writes.get(key) ?? 0);
    if (more > 0) console.log(`  ${key}: ${more}`);
  }
  console.log(
    `\nWrites to etcd: ${(((after.revision - before.revision) * 60) / seconds).toFixed(1)} a minute`,
  );
  after.cpu.forEach(({ instance, seconds: used, bytes }, i) => {
    const percent = ((used - (before.cpu[i]?.seconds ?? used)) / seconds) * 100;
    console.log(
      `  agent of ${instance}: ${percent.toFixed(2)} % of a core, ${Math.round(bytes / 2 ** 20)} MiB`,
    );
  });
} finally {
  await cluster.remove();
  await insecure.close();
}
