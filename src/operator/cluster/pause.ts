import type { PgClusterSpec } from '../../api/pgcluster.ts';
import type { ConfigValue } from '../../dcs/index.ts';

/** How much longer the pause of automatic failover lasts, ms; undefined: there is none, or its time is over. */
export function pauseLeftMs({ paused }: PgClusterSpec, now: Date): number | undefined {
  if (paused === undefined) return undefined;
  const left = Date.parse(paused.until) - now.getTime();
  return left > 0 ? left : undefined;
}

/** What the agents are to know of it. Written once: they count its time themselves, in case nobody takes it back. */
export function pauseFor(
  spec: PgClusterSpec,
  now: Date,
  present: ConfigValue | undefined,
): ConfigValue['paused'] {
  const forMs = pauseLeftMs(spec, now);
  if (spec.paused === undefined || forMs === undefined) return undefined;
  const { until } = spec.paused;
  return present?.paused?.until === until ? present.paused : { until, forMs };
}
