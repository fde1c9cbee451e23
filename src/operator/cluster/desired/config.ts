import type { PgClusterSpec } from '../../../api/pgcluster.ts';
import { parseQuantity } from '../../../api/quantity.ts';
import { type ConfigValue, defaultTiming } from '../../../dcs/index.ts';

/** What the agents go by that is not said in the spec. */
export type Circumstances = {
  readonly [K in 'appPasswordVerifier' | 'adopt' | 'zones' | 'paused']?: ConfigValue[K] | undefined;
};

/** What the agents go by, but for its generation. */
export const haConfig = (
  spec: PgClusterSpec,
  members: readonly string[],
  { appPasswordVerifier, adopt, zones, paused }: Circumstances = {},
): Omit<ConfigValue, 'generation'> => ({
  synchronous: spec.replicas.synchronous,
  durability: spec.durability,
  fencing: spec.failover.fencing,
  ...(spec.failover.maximumLag === undefined
    ? {}
    : { maximumLagBytes: parseQuantity(spec.failover.maximumLag) ?? 0 }),
  timing: { ...defaultTiming, ttlMs: spec.failover.ttlSeconds * 1000 },
  members: [...members].sort(),
  parameters: { ...spec.postgres.parameters },
  hba: [...(spec.postgres.hba ?? [])],
  logLevel: spec.logLevel,
  ...(spec.instances === undefined ? {} : { instances: instanceOptions(spec.instances) }),
  ...(appPasswordVerifier === undefined ? {} : { appPasswordVerifier }),
  ...(adopt === undefined ? {} : { adopt }),
  ...(zones === undefined ? {} : { zones }),
  ...(paused === undefined ? {} : { paused }),
});

const instanceOptions = (entries: NonNullable<PgClusterSpec['instances']>): ConfigValue['instances'] =>
  Object.fromEntries(
    entries.map(({ name, noFailover, priority, streamFrom, applyDelaySeconds }) => [
      name,
      {
        // Agents that do not know of the delay know this.
        ...(noFailover || applyDelaySeconds !== undefined ? { noFailover: true } : {}),
        ...(priority === undefined ? {} : { priority }),
        ...(streamFrom === undefined ? {} : { streamFrom }),
        ...(applyDelaySeconds === undefined ? {} : { applyDelaySeconds }),
      },
    ]),
  );

/** Whether a stored configuration says the same; its generation does not count. */
export function sameConfig(stored: ConfigValue, wanted: Omit<ConfigValue, 'generation'>): boolean {
  const { generation: _, ...rest } = stored;
  return canonical(rest) === canonical(wanted);
}

/** JSON with sorted keys. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
