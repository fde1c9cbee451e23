import { instanceName } from '../../api/names.ts';
import type { PgClusterSpec } from '../../api/pgcluster.ts';
import type { ConfigValue } from '../../dcs/index.ts';
import type { Member, Volume } from './members.ts';
import { isReplaced } from './replacement.ts';

/**
 * Ordinals of instances to make so that there are `count`: those whose volume holds data first, then the lowest free
 * ones. Volumes with data that nobody gave up always get their instance back, even beyond `count`: one of them may be
 * the primary's. A name whose volume is detached is not used while that volume is there.
 * @param taken names in use, also by instances that are just being deleted
 */
export function ordinalsToAdd(
  cluster: string,
  count: number,
  members: readonly Pick<Member, 'name'>[],
  taken: ReadonlySet<string>,
  volumes: readonly Pick<Volume, 'ordinal' | 'instance' | 'initialized' | 'released' | 'detached'>[],
): number[] {
  const detached = new Set(volumes.filter((volume) => volume.detached).map(({ instance }) => instance));
  const free = (ordinal: number) => {
    const name = instanceName(cluster, ordinal);
    return !taken.has(name) && !detached.has(name);
  };
  const added = volumes
    .filter((volume) => volume.initialized && !volume.released && free(volume.ordinal))
    .map(({ ordinal }) => ordinal);
  for (let ordinal = 1; members.length + added.length < count; ordinal += 1) {
    if (free(ordinal) && !added.includes(ordinal)) added.push(ordinal);
  }
  return added.sort((a, b) => a - b);
}

export interface Removal {
  /** The instances that stay members. */
  readonly kept: readonly Member[];
  /** Those that are to go, the least useful first. Never the leader nor a synchronous standby. */
  readonly leaving: readonly Member[];
  /** How many more should go, but cannot yet. */
  readonly waiting: number;
}

/**
 * Which instances to remove so that `count` remain. Without a known leader none: any of them may be needed.
 * Among equally useful ones those that the spec names stay, since a person has a use for just them.
 * @param config the present one: who is no longer in it was chosen before
 */
export function chooseRemoval(
  members: readonly Member[],
  count: number,
  leaderKnown: boolean,
  config: ConfigValue | undefined,
  options: PgClusterSpec['instances'] = [],
): Removal {
  const named = (member: Member) => Number(options.some(({ name }) => name === member.name));
  const excess = members.length - count;
  if (excess <= 0) return { kept: members, leaving: [], waiting: 0 };
  if (!leaderKnown) return { kept: members, leaving: [], waiting: excess };
  const leaving = members
    .filter((member) => !member.isLeader && !member.isSync)
    .sort(
      (a, b) => usefulness(a, config) - usefulness(b, config) || named(a) - named(b) || b.ordinal - a.ordinal,
    )
    .slice(0, excess);
  return {
    kept: members.filter((member) => !leaving.includes(member)),
    leaving,
    waiting: excess - leaving.length,
  };
}

/** Steps rather than bytes, so that the choice does not waver with every byte of lag. */
function usefulness(member: Member, config: ConfigValue | undefined): number {
  if (config !== undefined && !config.members.includes(member.name)) return 0;
  if (isReplaced(member)) return 0.5;
  if (!member.ready) return 1;
  if (!member.healthy) return 2;
  const lag = member.says?.lagBytes ?? Number.POSITIVE_INFINITY;
  return lag > 16 * 1024 ** 2 ? 3 : 4;
}

/**
 * Whether those who leave may be deleted: the configuration without them is in force at the leader, so it will not
 * take them into the synchronous set any more.
 */
export function mayDelete(
  removal: Removal,
  members: readonly Member[],
  config: ConfigValue | undefined,
): boolean {
  const leader = members.find((member) => member.isLeader);
  return (
    removal.leaving.length > 0 &&
    config !== undefined &&
    removal.leaving.every((member) => !config.members.includes(member.name)) &&
    leader?.says?.configGeneration !== undefined &&
    leader.says.configGeneration >= config.generation
  );
}
