import { beforeAll, describe, expect, it } from 'vitest';
import { PgClusterSpec } from '../../../api/pgcluster.ts';
import { clusterKeys } from '../../../dcs/index.ts';
import type { Secret } from '../../../kube/index.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../../../tls/certificates.ts';
import { tlsData } from '../../etcd/managed.ts';
import { now } from '../../testing/model.ts';
import type { AcceptedCluster } from '../snapshot.ts';
import { appSecret, authorityNotice, read, type TlsNeed, tlsNeeds, whyIssue } from './secrets.ts';

const cluster = (more: object = {}): AcceptedCluster => ({
  metadata: { name: 'shop', namespace: 'ns', uid: 'u' },
  apiVersion: 'koschei.dev/v1',
  kind: 'PgCluster',
  spec: PgClusterSpec.parse({ storage: { size: '1Gi' }, ...more }),
  status: {},
  clusterId: 'abcdefghijklmnop',
});
const days = (count: number) => new Date(now.getTime() + count * 86_400_000);

describe('the Secret of the application', () => {
  const secret = appSecret(cluster(), "p@ss/w'ord", ['shop-1', 'shop-2'], 'CA');
  it('says all that a client needs', () => {
    expect(Object.keys(secret.data ?? {}).sort()).toEqual([
      'ca.crt',
      'dbname',
      'host',
      'jdbc-uri',
      'password',
      'port',
      'uri',
      'uri-multi-host',
      'user',
      'username',
    ]);
  });
  it('has URIs that carry any password', () => {
    const uri = new URL(read(secret, 'uri') ?? '');
    expect(decodeURIComponent(uri.password)).toBe("p@ss/w'ord");
    expect(uri.host).toBe('shop-rw.ns.svc:5432');
    expect(read(secret, 'uri-multi-host')).toMatch(
      /@shop-1-0\.shop-pods\.ns\.svc:5432,shop-2-0\.shop-pods\.ns\.svc:5432\/app\?target_session_attrs=read-write/,
    );
  });
  it('outlives the PgCluster', () => {
    expect(secret.metadata.ownerReferences).toBeUndefined();
  });
});

describe('an authority', () => {
  it('that ends within a year is told of', async () => {
    const { cert } = await createAuthority({ commonName: 'test', validDays: 3650, now });
    expect(authorityNotice(cert, 'shop-ca', days(0))).toBeUndefined();
    expect(authorityNotice(cert, 'shop-ca', days(3284))).toBeUndefined();
    expect(authorityNotice(cert, 'shop-ca', days(3286))).toMatch(/shop-ca ends on .*36[34] days/);
    expect(authorityNotice('no certificate', 'shop-ca', days(0))).toBeUndefined();
  });
});

describe('a certificate', () => {
  let authority: KeyPair;
  let need: TlsNeed;
  let found: Secret;
  beforeAll(async () => {
    authority = await createAuthority({ commonName: 'test', validDays: 3650, now });
    const [first] = tlsNeeds(cluster());
    if (first === undefined) throw new Error('no need');
    need = first;
    const pair = await issueCertificate({ ...need.order, authority, validDays: 90, now });
    found = { ...need.secret, data: tlsData(pair, authority.cert) };
  });

  it('is left alone while it is good', () => {
    expect(whyIssue(found, need.order, authority.cert, days(59))).toBeUndefined();
  });
  it('is renewed when two thirds of its life are over', () => {
    expect(whyIssue(found, need.order, authority.cert, days(61))).toMatch(/ends on/);
  });
  it('is issued anew for other names', () => {
    const order = { ...need.order, dnsNames: [...need.order.dnsNames, 'new.example'] };
    expect(whyIssue(found, order, authority.cert, now)).toMatch(/other names/);
  });
  it('is issued anew by another authority', async () => {
    const other = await createAuthority({ commonName: 'test', validDays: 3650, now });
    expect(whyIssue(found, need.order, other.cert, now)).toMatch(/authority/);
  });
  it.each([
    ['missing', undefined],
    ['empty', {}],
    ['damaged', { 'tls.crt': 'eA==', 'tls.key': 'eA==', 'ca.crt': 'eA==' }],
  ])('is issued when it is %s', (_, data) => {
    const damaged = data === undefined ? undefined : ({ ...need.secret, data } as Secret);
    expect(whyIssue(damaged, need.order, authority.cert, now)).toBeDefined();
  });
});

describe('the certificates of a cluster', () => {
  const names = (more: object) => tlsNeeds(cluster(more)).map(({ secret }) => secret.metadata.name);
  it('cover every name that instances and Services have', () => {
    const [server] = tlsNeeds(cluster());
    expect(server?.order.dnsNames).toEqual(
      expect.arrayContaining(['shop-rw.ns.svc', 'shop-ro', 'shop-r.ns', '*.shop-pods.ns.svc', 'localhost']),
    );
  });
  it("include one for the managed etcd, under the user of this cluster's own keys", () => {
    expect(names({})).toContain('shop-etcd-tls');
    const user = (of: AcceptedCluster) =>
      tlsNeeds(of).find(({ order }) => order.authority === 'etcd')?.order.commonName;
    expect(user(cluster())).toBe(clusterKeys('ns', 'shop', 'abcdefghijklmnop').user);
    const other = { ...cluster(), metadata: { ...cluster().metadata, namespace: 'other' } };
    expect(user(other)).not.toBe(user(cluster()));
  });
  it("include none for an etcd of the user's own", () => {
    expect(names({ etcd: { endpoints: ['https://e:2379'], tlsSecret: 'mine' } })).not.toContain(
      'shop-etcd-tls',
    );
  });
});
