import { z } from 'zod';
import { now } from '../e2e/faults.ts';
import { install } from '../e2e/install.ts';
import { PostgresCluster } from '../e2e/postgres-cluster.ts';
import { machine, markdown, record, recorded, summary } from './results.ts';

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
    record('provision', { at: new Date().toISOString(), milliseconds: ready });
  } finally {
    await cluster.remove();
  }
}
const all = recorded('provision', z.object({ at: z.string(), milliseconds: z.number() }));
console.log(
  `\nFrom apply to Ready, 1 + 3 instances, milliseconds, median / maximum on ${machine()}:\n\n` +
    markdown(
      ['', 'ms', 'runs'],
      [['', summary(all.map(({ milliseconds }) => milliseconds)), String(all.length)]],
    ),
);
