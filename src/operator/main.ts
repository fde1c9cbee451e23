import { collectDefaultMetrics, Registry } from 'prom-client';
import { fieldManager } from '../api/names.ts';
import { createKubeClient, KubeMetrics, stopSignal } from '../kube/index.ts';
import { createLogger } from '../log/logger.ts';
import { readEnvironment } from './environment.ts';
import { createOperator } from './operator.ts';

/** The operator's program. Ends with 0 after SIGTERM, with 1 after anything else. */
async function main(): Promise<void> {
  const signal = stopSignal();
  const environment = readEnvironment(process.env);
  const log = createLogger({ name: 'koschei-operator', level: environment.logLevel });
  const registry = new Registry();
  collectDefaultMetrics({ register: registry });
  const metrics = new KubeMetrics(registry);
  const client = await createKubeClient({
    fieldManager,
    userAgent: 'koschei-operator',
    onRequest: metrics.onRequest,
  });
  try {
    const operator = await createOperator({ client, environment, log, registry, metrics });
    await operator.run(signal);
  } catch (error) {
    log.error({ err: error }, 'the operator ends');
    process.exitCode = 1;
  }
  // Work that did not end must not keep the process of a lost lease alive.
  process.exit();
}

await main();
