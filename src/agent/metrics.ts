import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { Agent } from './agent.ts';
import type { Database } from './database.ts';
import type { Storage } from './storage.ts';

/** The agent's Prometheus metrics, each computed when scraped. */
export function agentMetrics(agent: Agent, database: Database, storage: Storage): Registry {
  const registry = new Registry();
  collectDefaultMetrics({ register: registry, prefix: 'koschei_agent_' });
  const gauge = (name: string, help: string, value: () => number) =>
    new Gauge({
      name,
      help,
      registers: [registry],
      collect() {
        this.set(value());
      },
    });
  gauge('koschei_primary', '1 while this instance leads and accepts writes.', () =>
    agent.answer().state === 'primary' ? 1 : 0,
  );
  gauge('koschei_term', 'The leadership term of this instance; 0: none.', () => agent.state.reign?.term ?? 0);
  gauge(
    'koschei_timeline',
    'The timeline that Postgres is on; 0: not known.',
    () => database.facts.observation?.timeline ?? 0,
  );
  gauge(
    'koschei_synchronous_standbys',
    'Members of the synchronous set, as the leader stored it last.',
    () => agent.state.reign?.sync.names.length ?? 0,
  );
  gauge(
    'koschei_commit_wait_seconds',
    'How long the longest waiting commit has waited for a synchronous standby.',
    () => (database.facts.observation?.commitWaitMs ?? 0) / 1000,
  );
  new Gauge({
    name: 'koschei_volume_free_bytes',
    help: 'What is free on a volume, as of the last write to it that became durable.',
    labelNames: ['volume'],
    registers: [registry],
    collect() {
      for (const { volume, freeBytes } of storage.facts)
        if (freeBytes !== undefined) this.set({ volume }, freeBytes);
    },
  });
  new Gauge({
    name: 'koschei_volume_silence_seconds',
    help: 'For how long nothing that is written to a volume once a second has become durable.',
    labelNames: ['volume'],
    registers: [registry],
    collect() {
      for (const { volume, goodAt, lookedAt } of storage.facts)
        this.set({ volume }, Math.max(0, lookedAt - goodAt) / 1000);
    },
  });
  return registry;
}
