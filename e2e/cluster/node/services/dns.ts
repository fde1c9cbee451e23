import type { KubeObject } from './mirror.ts';

const zone = 'cluster.local';

/** Seconds that an answer may be kept. */
const ttl = 2;

export interface Service extends KubeObject {
  readonly spec: {
    readonly type?: string;
    readonly clusterIP?: string;
    readonly externalName?: string;
    readonly ports?: readonly Port[];
  };
}

export interface Port {
  readonly name?: string;
  readonly protocol?: string;
  readonly port?: number;
}

export interface EndpointSlice extends KubeObject {
  readonly addressType: string;
  readonly endpoints?: readonly {
    readonly addresses: readonly string[];
    readonly conditions?: { readonly ready?: boolean };
    readonly hostname?: string;
  }[];
  readonly ports?: readonly Port[];
}

export type DnsRecord =
  | {
      readonly type: 'A' | 'CNAME' | 'PTR';
      readonly name: string;
      readonly ttl: number;
      readonly data: string;
    }
  | {
      readonly type: 'SRV';
      readonly name: string;
      readonly ttl: number;
      readonly data: {
        readonly port: number;
        readonly target: string;
        readonly priority: number;
        readonly weight: number;
      };
    };

/** All records of the cluster: name in lower case -> records. A name without records has others below it. */
export type Zone = ReadonlyMap<string, readonly DnsRecord[]>;

/**
 * The records that Kubernetes prescribes for Services (https://github.com/kubernetes/dns, specification 1.1.0).
 * Endpoints count as ready unless their slice says they are not; slices of Services with publishNotReadyAddresses
 * say ready for all.
 */
export function buildZone(services: readonly Service[], slices: readonly EndpointSlice[]): Zone {
  const records = new Map<string, DnsRecord[]>();
  const add = (record: DnsRecord) => {
    const present = records.get(record.name) ?? [];
    if (!present.some((other) => JSON.stringify(other) === JSON.stringify(record))) present.push(record);
    records.set(record.name, present);
    for (let parent = parentOf(record.name); parent.endsWith(zone); parent = parentOf(parent)) {
      if (!records.has(parent)) records.set(parent, []);
    }
  };
  const addPorts = (service: string, target: string, ports: readonly Port[]) => {
    for (const { name, protocol, port } of ports) {
      if (name === undefined || name === '' || port === undefined) continue;
      const data = { port, target, priority: 0, weight: 100 };
      add({ type: 'SRV', name: `_${name}._${(protocol ?? 'TCP').toLowerCase()}.${service}`, ttl, data });
    }
  };

  const byService = new Map<string, EndpointSlice[]>();
  for (const slice of slices) {
    const owner = slice.metadata.labels?.['kubernetes.io/service-name'];
    if (owner === undefined || slice.addressType !== 'IPv4') continue;
    const key = `${owner}.${slice.metadata.namespace}`;
    byService.set(key, [...(byService.get(key) ?? []), slice]);
  }
  for (const { metadata, spec } of services) {
    const service = `${metadata.name}.${metadata.namespace}.svc.${zone}`;
    if (spec.type === 'ExternalName' && spec.externalName !== undefined) {
      add({ type: 'CNAME', name: service, ttl, data: spec.externalName });
    } else if (spec.clusterIP !== undefined && spec.clusterIP !== '' && spec.clusterIP !== 'None') {
      add({ type: 'A', name: service, ttl, data: spec.clusterIP });
      add({ type: 'PTR', name: reverse(spec.clusterIP), ttl, data: service });
      addPorts(service, service, spec.ports ?? []);
    } else {
      for (const slice of byService.get(`${metadata.name}.${metadata.namespace}`) ?? []) {
        for (const { addresses, conditions, hostname } of slice.endpoints ?? []) {
          if (conditions?.ready === false) continue;
          for (const address of addresses) {
            const endpoint = `${hostname ?? address.replaceAll('.', '-')}.${service}`;
            add({ type: 'A', name: service, ttl, data: address });
            add({ type: 'A', name: endpoint, ttl, data: address });
            if (hostname !== undefined) add({ type: 'PTR', name: reverse(address), ttl, data: endpoint });
            addPorts(service, endpoint, slice.ports ?? []);
          }
        }
      }
    }
  }
  return records;
}

export interface Answer {
  readonly found: 'yes' | 'no such name' | 'not ours';
  readonly records: readonly DnsRecord[];
}

/** Answers one question. `not ours` are names outside the cluster, to be asked elsewhere. */
export function answer(records: Zone, question: { readonly name: string; readonly type: string }): Answer {
  const name = question.name.toLowerCase().replace(/\.$/, '');
  const all = records.get(name) ?? podRecord(name);
  if (all !== undefined) {
    const wanted = all.filter(({ type }) => type === question.type || type === 'CNAME');
    const alias = wanted.find(({ type }) => type === 'CNAME');
    const target = typeof alias?.data === 'string' ? (records.get(alias.data.toLowerCase()) ?? []) : [];
    return { found: 'yes', records: [...wanted, ...target.filter(({ type }) => type === question.type)] };
  }
  const ours = name === zone || name.endsWith(`.${zone}`);
  return { found: ours ? 'no such name' : 'not ours', records: [] };
}

/** `10-244-1-7.ns.pod.cluster.local` is 10.244.1.7, whether there is such a pod or not. */
function podRecord(name: string): readonly DnsRecord[] | undefined {
  const dashed = /^(\d{1,3}(?:-\d{1,3}){3})\.[a-z0-9-]+\.pod\.cluster\.local$/.exec(name)?.[1];
  return dashed === undefined ? undefined : [{ type: 'A', name, ttl, data: dashed.replaceAll('-', '.') }];
}

const reverse = (address: string) => `${address.split('.').reverse().join('.')}.in-addr.arpa`;

const parentOf = (name: string) => name.slice(name.indexOf('.') + 1);
