import type { ConfigValue } from '../../dcs/index.ts';

/** The priority of an instance of which the spec says nothing: as many can be put above it as below. */
export const usualPriority = 50;

type Options = Pick<ConfigValue, 'instances' | 'zones'> | undefined;

/**
 * Whether an instance may become the primary (option `noFailover`). One that may not never stands, is not handed over to
 * and is not made synchronous; it stays what it is when it is told so: a primary leads on, a synchronous standby confirms
 * until another one does.
 */
export function mayLead(config: Options, instance: string): boolean {
  return config?.instances?.[instance]?.noFailover !== true;
}

/** From 0 to 100: who is preferred among those who are equally safe to choose. */
export function priorityOf(config: Options, instance: string): number {
  return config?.instances?.[instance]?.priority ?? usualPriority;
}

/**
 * What an instance is to stream from instead of the primary (option `streamFrom`): an instance, or `standby` for any that
 * streams from the primary itself, rather a synchronous one.
 */
export function streamFromOf(config: Options, instance: string): string | undefined {
  return config?.instances?.[instance]?.streamFrom;
}

/** By how much an instance replays late (option `applyDelaySeconds`), seconds; undefined: not at all. */
export function applyDelayOf(config: Options, instance: string): number | undefined {
  return config?.instances?.[instance]?.applyDelaySeconds;
}

/** How far apart two instances are, by the nodes that they run on. */
export interface Distance {
  /** On different nodes. */
  readonly apart: boolean;
  /** In different zones, both of them known. */
  readonly zoneApart: boolean;
}

export function distance(config: Options, node: string, other: string): Distance {
  const [here, there] = [config?.zones?.[node], config?.zones?.[other]];
  return { apart: node !== other, zoneApart: here !== undefined && there !== undefined && here !== there };
}
