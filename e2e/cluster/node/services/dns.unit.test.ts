import { describe, expect, test } from 'vitest';
import { answer, buildZone, type EndpointSlice, type Service } from './dns.ts';

const metadata = (name: string) => ({ name, namespace: 'ns', uid: name, resourceVersion: '1' });

const services: Service[] = [
  {
    metadata: metadata('shop-rw'),
    spec: { clusterIP: '10.96.0.7', ports: [{ name: 'postgres', port: 5432 }] },
  },
  { metadata: metadata('shop-pods'), spec: { clusterIP: 'None' } },
  { metadata: metadata('empty'), spec: { clusterIP: 'None' } },
  {
    metadata: metadata('alias'),
    spec: { type: 'ExternalName', externalName: 'shop-rw.ns.svc.cluster.local' },
  },
];
const slices: EndpointSlice[] = [
  {
    metadata: { ...metadata('shop-pods-x'), labels: { 'kubernetes.io/service-name': 'shop-pods' } },
    addressType: 'IPv4',
    endpoints: [
      { addresses: ['10.244.1.5'], conditions: { ready: true }, hostname: 'shop-1-0' },
      { addresses: ['10.244.2.5'], conditions: { ready: false }, hostname: 'shop-2-0' },
      { addresses: ['10.244.3.5'] },
    ],
    ports: [{ name: 'postgres', port: 5432 }],
  },
];
const zone = buildZone(services, slices);

const ask = (name: string, type = 'A') => answer(zone, { name, type });
const addresses = (name: string) => ask(name).records.map(({ data }) => data);

describe('DNS of the local cluster', () => {
  test('a Service has its ClusterIP, whatever the case of the question', () => {
    expect(addresses('shop-rw.ns.svc.cluster.local')).toEqual(['10.96.0.7']);
    expect(addresses('Shop-RW.ns.svc.CLUSTER.local.')).toEqual(['10.96.0.7']);
  });

  test('a headless Service has the addresses of its ready endpoints', () => {
    expect(addresses('shop-pods.ns.svc.cluster.local')).toEqual(['10.244.1.5', '10.244.3.5']);
  });

  test('an endpoint has a name by its hostname, or else by its address', () => {
    expect(addresses('shop-1-0.shop-pods.ns.svc.cluster.local')).toEqual(['10.244.1.5']);
    expect(addresses('10-244-3-5.shop-pods.ns.svc.cluster.local')).toEqual(['10.244.3.5']);
    expect(ask('5.1.244.10.in-addr.arpa', 'PTR').records).toMatchObject([
      { data: 'shop-1-0.shop-pods.ns.svc.cluster.local' },
    ]);
  });

  test('an endpoint that is not ready has no name', () => {
    expect(ask('shop-2-0.shop-pods.ns.svc.cluster.local').found).toBe('no such name');
  });

  test('another type of an existing name is an empty answer, not an error', () => {
    expect(ask('shop-rw.ns.svc.cluster.local', 'AAAA')).toEqual({ found: 'yes', records: [] });
    expect(ask('ns.svc.cluster.local')).toEqual({ found: 'yes', records: [] });
  });

  test('a headless Service without endpoints does not exist', () => {
    expect(ask('empty.ns.svc.cluster.local').found).toBe('no such name');
  });

  test('an alias comes with the address of its target', () => {
    expect(ask('alias.ns.svc.cluster.local').records).toMatchObject([
      { type: 'CNAME', data: 'shop-rw.ns.svc.cluster.local' },
      { type: 'A', data: '10.96.0.7' },
    ]);
  });

  test('named ports have SRV records', () => {
    expect(ask('_postgres._tcp.shop-pods.ns.svc.cluster.local', 'SRV').records).toMatchObject([
      { data: { port: 5432, target: 'shop-1-0.shop-pods.ns.svc.cluster.local' } },
      { data: { port: 5432, target: '10-244-3-5.shop-pods.ns.svc.cluster.local' } },
    ]);
  });

  test('pods have names by their addresses', () => {
    expect(addresses('10-244-1-9.ns.pod.cluster.local')).toEqual(['10.244.1.9']);
  });

  test('names outside the cluster are not ours', () => {
    expect(ask('example.org').found).toBe('not ours');
    expect(ask('nothing.ns.svc.cluster.local').found).toBe('no such name');
  });
});
