import { now } from '../e2e/faults.ts';
import { install } from '../e2e/install.ts';
import { PostgresCluster } from '../e2e/postgres-cluster.ts';
import { machine, record, recorded, table } from './results.ts';

/*
 * From `kubectl apply` of a primary, one synchronous and two asynchronous standbys to `Ready`, images present.
 * npm run bench:provision -- [runs, default 5]
 */
const runs = Number(process.argv[2] ?? 5);
await install();
for (let i = 0; i < runs; i++) {
  const began = now();
  const cluster = await PostgresCluster.create('provision', {
    replicas: { synchronous: 1, asynchronous: 2 },
    storage: { size: '1Gi' },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
  });
  try {
    await cluster.waitReady(120_000);
    const ready = now() - began;
    console.log(`ready after ${Math.round(ready)} ms`);
    record('provision', {
      row: 'apply to Ready, 1 + 3 instances',
      at: new Date().toISOString(),
      values: { ms: ready },
    });
  } finally {
    await cluster.remove();
  }
}
console.log(`\nMedian / maximum on ${machine()}:\n\n${table(recorded('provision'), ['ms'])}`);
