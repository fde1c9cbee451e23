import { collectDefaultMetrics, Gauge, Registry } from 'prom-client';
import type { Agent } from './agent.ts';
import type { Database } from './database.ts';

/** The agent's Prometheus metrics, each computed when scraped. */
export function agentMetrics(agent: Agent, database: Database): Registry {
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
  return registry;
}
