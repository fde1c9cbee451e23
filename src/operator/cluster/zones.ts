import type { ConfigValue } from '../../dcs/index.ts';
import { type Clock, type KubeClient, type Pod, resources } from '../../kube/index.ts';
import type { Logger } from '../../log/logger.ts';
import type { ClusterSnapshot } from './snapshot.ts';

/** https://kubernetes.io/docs/reference/labels-annotations-taints/#topologykubernetesiozone */
export const zoneLabel = 'topology.kubernetes.io/zone';
/** A label of a node is looked at again after this long, ms. It hardly ever changes. */
const keepMs = 600_000;

/** The zones of nodes, as far as somebody asked for them; one for all clusters. */
export class NodeZones {
  readonly #client: KubeClient;
  readonly #clock: Clock;
  readonly #known = new Map<string, { readonly zone: string | undefined; readonly at: number }>();

  constructor(client: KubeClient, clock: Clock) {
    this.#client = client;
    this.#clock = clock;
  }

  /**
   * Zone by node, `''` for a node without the label. A node that is not there, or cannot be asked for, is left out: what
   * was known of it still holds. Never throws.
   */
  async of(nodes: readonly string[], log: Logger, signal: AbortSignal): Promise<ReadonlyMap<string, string>> {
    const zones = new Map<string, string>();
    for (const name of new Set(nodes)) {
      const zone = await this.#look(name, log, signal);
      if (zone !== undefined) zones.set(name, zone);
    }
    return zones;
  }

  async #look(name: string, log: Logger, signal: AbortSignal): Promise<string | undefined> {
    const now = this.#clock.monotonic();
    const known = this.#known.get(name);
    if (known !== undefined && now - known.at < keepMs) return known.zone;
    try {
      const node = await this.#client.find(resources.nodes, { name }, { signal });
      const zone = node === undefined ? known?.zone : (node.metadata.labels?.[zoneLabel] ?? '');
      this.#known.set(name, { zone, at: now });
      return zone;
    } catch (error) {
      log.warn({ err: error, node: name }, 'the zone of a node is not known: the node cannot be read');
      this.#known.set(name, { zone: known?.zone, at: now });
      return known?.zone;
    }
  }
}

/** The nodes that pods run on. */
export const nodesOf = (pods: readonly Pod[]): string[] => pods.flatMap((pod) => pod.spec?.nodeName ?? []);

/**
 * What the agents are to know of zones. The configuration is left as it is while it says what is needed: a pod that is
 * away for a moment must not change it.
 */
export function zonesFor(
  { pods, zones }: Pick<ClusterSnapshot, 'pods' | 'zones'>,
  present: ConfigValue | undefined,
): ConfigValue['zones'] {
  const before = present?.zones ?? {};
  const needed = [...new Set(nodesOf(pods))].flatMap((node): [string, string][] => {
    const zone = zones.get(node) ?? before[node] ?? '';
    return zone === '' ? [] : [[node, zone]];
  });
  const isKnown = needed.every(([node, zone]) => before[node] === zone);
  const isOutdated = Object.keys(before).some((node) => zones.get(node) === '');
  if (isKnown && !isOutdated) return present?.zones;
  return needed.length === 0 ? undefined : Object.fromEntries(needed);
}
