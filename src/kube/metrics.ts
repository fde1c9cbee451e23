import { Counter, Gauge, Histogram, type Registry } from 'prom-client';
import type { RequestInfo } from './client.ts';

/** The metrics of this folder, on a registry of the caller's. No label has one value per object. */
export class KubeMetrics {
  readonly reconciles: Counter<'controller' | 'result'>;
  readonly reconcileSeconds: Histogram<'controller'>;
  readonly activeWorkers: Gauge<'controller'>;
  readonly queueDepth: Gauge<'controller'>;
  readonly queueAdds: Counter<'controller'>;
  readonly queueRetries: Counter<'controller'>;
  readonly queueSeconds: Histogram<'controller'>;
  readonly cacheObjects: Gauge<'cache'>;
  readonly cacheRelists: Counter<'cache'>;
  readonly cacheWatchErrors: Counter<'cache'>;
  readonly requests: Counter<'verb' | 'resource' | 'code'>;
  readonly requestSeconds: Histogram<'verb'>;
  readonly leader: Gauge;
  readonly #silences = new Map<string, () => number>();

  constructor(registry: Registry) {
    const registers = [registry];
    const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
    this.reconciles = new Counter({
      name: 'koschei_reconcile_total',
      help: 'Reconciles by result: success, requeue, conflict, error, terminal.',
      labelNames: ['controller', 'result'],
      registers,
    });
    this.reconcileSeconds = new Histogram({
      name: 'koschei_reconcile_seconds',
      help: 'Duration of a reconcile.',
      labelNames: ['controller'],
      buckets: seconds,
      registers,
    });
    this.activeWorkers = new Gauge({
      name: 'koschei_reconcile_active_workers',
      help: 'Reconciles that run at the moment.',
      labelNames: ['controller'],
      registers,
    });
    this.queueDepth = new Gauge({
      name: 'koschei_workqueue_depth',
      help: 'Keys that wait for a worker, without those that wait for a time.',
      labelNames: ['controller'],
      registers,
    });
    this.queueAdds = new Counter({
      name: 'koschei_workqueue_adds_total',
      help: 'Keys put into the queue; an add of a key that is already in it does not count.',
      labelNames: ['controller'],
      registers,
    });
    this.queueRetries = new Counter({
      name: 'koschei_workqueue_retries_total',
      help: 'Keys put off because their reconcile failed.',
      labelNames: ['controller'],
      registers,
    });
    this.queueSeconds = new Histogram({
      name: 'koschei_workqueue_wait_seconds',
      help: 'How long a key waited for a worker.',
      labelNames: ['controller'],
      buckets: seconds,
      registers,
    });
    this.cacheObjects = new Gauge({
      name: 'koschei_cache_objects',
      help: 'Objects in the cache.',
      labelNames: ['cache'],
      registers,
    });
    this.cacheRelists = new Counter({
      name: 'koschei_cache_relists_total',
      help: 'Full lists, the first one included.',
      labelNames: ['cache'],
      registers,
    });
    this.cacheWatchErrors = new Counter({
      name: 'koschei_cache_errors_total',
      help: 'Lists and watches that failed.',
      labelNames: ['cache'],
      registers,
    });
    this.requests = new Counter({
      name: 'koschei_kube_requests_total',
      help: 'Requests to the Kubernetes API; code is the HTTP status, timeout or error.',
      labelNames: ['verb', 'resource', 'code'],
      registers,
    });
    this.requestSeconds = new Histogram({
      name: 'koschei_kube_request_seconds',
      help: 'Duration of requests to the Kubernetes API, for watches until their headers.',
      labelNames: ['verb'],
      buckets: seconds,
      registers,
    });
    this.leader = new Gauge({
      name: 'koschei_leader',
      help: 'Whether this process holds the lease: 1 or 0.',
      registers,
    });
    const silences = this.#silences;
    new Gauge({
      name: 'koschei_cache_silence_seconds',
      help: 'Time since the API was last heard of through a list, an event, a bookmark or an accepted watch.',
      labelNames: ['cache'],
      registers,
      collect() {
        for (const [cache, silentMs] of silences) this.set({ cache }, silentMs() / 1000);
      },
    });
  }

  /** Reports the silence of a cache at every scrape. */
  observeSilence(cache: string, silentMs: () => number): void {
    this.#silences.set(cache, silentMs);
  }

  /** To be passed to a client as `onRequest`. */
  readonly onRequest = (request: RequestInfo): void => {
    const { verb, resource, code, durationMs } = request;
    this.requests.inc({ verb, resource, code });
    this.requestSeconds.observe({ verb }, durationMs / 1000);
  };
}
