import { z } from 'zod';
import type { CallOptions, KubeClient } from './client.ts';

const versionSchema = z.object({ major: z.string(), minor: z.string(), gitVersion: z.string() });
const groupsSchema = z.object({
  groups: z.array(z.object({ name: z.string(), versions: z.array(z.object({ groupVersion: z.string() })) })),
});

/** What `/version` and `/apis` say. */
export interface Discovery {
  readonly version: z.infer<typeof versionSchema>;
  readonly groups: z.infer<typeof groupsSchema>['groups'];
}

/** What the server can do, as far as it changes what Koschei does. */
export interface ChosenApis {
  readonly serverVersion: { readonly major: number; readonly minor: number; readonly gitVersion: string };
  readonly endpointSlice: 'discovery.k8s.io/v1' | 'discovery.k8s.io/v1beta1';
  /** Undefined: the server has no PodDisruptionBudgets. */
  readonly podDisruptionBudget: 'policy/v1' | 'policy/v1beta1' | undefined;
  /** Rules in CRDs (`x-kubernetes-validations`) may compare quantities, as ours do, since 1.29. */
  readonly hasCelQuantities: boolean;
  /** `unhealthyPodEvictionPolicy` of PodDisruptionBudgets is on by default, since 1.27. */
  readonly hasUnhealthyPodEvictionPolicy: boolean;
  /** Our CRDs are installed. */
  readonly hasKoschei: boolean;
  /** Every group and version the server has, e.g. `apps/v1`. */
  readonly groupVersions: ReadonlySet<string>;
}

/** The server is too old, or its answers make no sense. */
export class DiscoveryError extends Error {
  override readonly name = 'DiscoveryError';
}

/** Asks the server which version it is and which APIs it has. */
export async function discover(client: KubeClient, options: CallOptions = {}): Promise<Discovery> {
  const [version, groups] = await Promise.all([
    client.raw('/version', options),
    client.raw('/apis', options),
  ]);
  return parseDiscovery(version, groups);
}

/** Checks the two documents. Throws `DiscoveryError`. */
export function parseDiscovery(version: unknown, groups: unknown): Discovery {
  const parsed = z
    .object({ version: versionSchema, apis: groupsSchema })
    .safeParse({ version, apis: groups });
  if (!parsed.success) throw new DiscoveryError(`the server's /version or /apis: ${parsed.error.message}`);
  return { version: parsed.data.version, groups: parsed.data.apis.groups };
}

/** Chooses the version of every API that is not the same everywhere. Throws `DiscoveryError` below Kubernetes 1.20. */
export function chooseApis(discovery: Discovery): ChosenApis {
  const { gitVersion } = discovery.version;
  // Managed clusters report a minor such as "27+".
  const major = Number.parseInt(discovery.version.major, 10);
  const minor = Number.parseInt(discovery.version.minor, 10);
  if (!Number.isInteger(major) || !Number.isInteger(minor)) {
    throw new DiscoveryError(`expected a version such as 1.30, found ${gitVersion}`);
  }
  const atLeast = (wanted: number): boolean => major > 1 || (major === 1 && minor >= wanted);
  const groupVersions = new Set(
    discovery.groups.flatMap((group) => group.versions.map((one) => one.groupVersion)),
  );
  const first = <V extends string>(...candidates: V[]): V | undefined =>
    candidates.find((candidate) => groupVersions.has(candidate));
  const endpointSlice = first('discovery.k8s.io/v1', 'discovery.k8s.io/v1beta1');
  if (endpointSlice === undefined || !atLeast(20)) {
    throw new DiscoveryError(`expected Kubernetes 1.20 or newer with EndpointSlices, found ${gitVersion}`);
  }
  return {
    serverVersion: { major, minor, gitVersion },
    endpointSlice,
    podDisruptionBudget: first('policy/v1', 'policy/v1beta1'),
    hasCelQuantities: atLeast(29),
    hasUnhealthyPodEvictionPolicy: atLeast(27),
    hasKoschei: groupVersions.has('koschei.dev/v1'),
    groupVersions,
  };
}
