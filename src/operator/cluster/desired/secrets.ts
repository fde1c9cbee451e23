import {
  appSecretName,
  appUser,
  caKey,
  caSecretName,
  clusterLabels,
  etcdTlsSecretName,
  podHost,
  podsServiceName,
  port,
  readOnlyServiceName,
  readServiceName,
  readWriteServiceName,
  replicationTlsSecretName,
  replicationUser,
  serverTlsSecretName,
  tlsKey,
} from '../../../api/names.ts';
import { clusterKeys } from '../../../dcs/index.ts';
import type { Secret } from '../../../kube/index.ts';
import { type CertificateInfo, inspect, isIssuedBy, needsRenewal } from '../../../tls/certificates.ts';
import type { CertificateOrder } from '../../action.ts';
import { ownedBy } from '../../owner.ts';
import type { AcceptedCluster } from '../snapshot.ts';

export const encode = (text: string): string => Buffer.from(text).toString('base64');
/** The text under a key of a Secret; undefined when there is none. */
export function read(secret: Secret | undefined, key: string): string | undefined {
  const value = secret?.data?.[key];
  return value === undefined ? undefined : Buffer.from(value, 'base64').toString();
}

/** A Secret that outlives the PgCluster: it has no owner. */
const kept = (cluster: AcceptedCluster, name: string): Secret => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: {
    name,
    namespace: cluster.metadata.namespace,
    labels: clusterLabels(cluster.metadata.name, cluster.clusterId),
  },
  type: 'Opaque',
});

/** A Secret that can be made again at any time, and vanishes with the PgCluster. */
function derived(cluster: AcceptedCluster, name: string): Secret {
  const secret = kept(cluster, name);
  return { ...secret, metadata: { ...secret.metadata, ownerReferences: ownedBy(cluster) } };
}

/**
 * The Secret that applications read. A password that a person has put there stays; without one a new one is made, and Postgres
 * is given it, too (`verifierOf`).
 * @param authority certificate by which clients can check the server
 */
export function appSecret(
  cluster: AcceptedCluster,
  password: string,
  instances: readonly string[],
  authority: string | undefined,
): Secret {
  const { name, namespace } = cluster.metadata;
  const host = `${readWriteServiceName(name)}.${namespace}.svc`;
  const hosts = instances.map((instance) => `${podHost(name, instance, namespace)}:${port.postgres}`);
  const credentials = `${appUser}:${encodeURIComponent(password)}`;
  const entries: Record<string, string> = {
    host,
    port: String(port.postgres),
    username: appUser,
    user: appUser,
    password,
    dbname: appUser,
    uri: `postgresql://${credentials}@${host}:${port.postgres}/${appUser}?sslmode=require`,
    'uri-multi-host': `postgresql://${credentials}@${hosts.join(',')}/${appUser}?target_session_attrs=read-write&connect_timeout=3&sslmode=require`,
    'jdbc-uri': `jdbc:postgresql://${hosts.join(',')}/${appUser}?targetServerType=primary&connectTimeout=3&sslmode=require&user=${appUser}&password=${encodeURIComponent(password)}`,
    ...(authority === undefined ? {} : { [tlsKey.ca]: authority }),
  };
  return {
    ...kept(cluster, appSecretName(name)),
    data: Object.fromEntries(Object.entries(entries).map(([key, value]) => [key, encode(value)])),
  };
}

/** The Secret of the cluster's own authority, before it has one. */
export const authoritySecret = (cluster: AcceptedCluster): Secret =>
  kept(cluster, caSecretName(cluster.metadata.name));

/** The data of an authority's Secret. */
export const authorityData = (pair: { cert: string; key: string }): Record<string, string> => ({
  [caKey.cert]: encode(pair.cert),
  [caKey.key]: encode(pair.key),
});

/** An authority's end is told of this long before, days: it is never renewed by itself. */
const authorityNoticeDays = 365;

/**
 * What to say about an authority that ends within a year; undefined: nothing.
 * @param certificate in PEM; one that cannot be read is not judged here
 * @param secret where it is
 */
export function authorityNotice(certificate: string, secret: string, now: Date): string | undefined {
  let end: Date;
  try {
    end = inspect(certificate).notAfter;
  } catch {
    return undefined;
  }
  const days = Math.floor((end.getTime() - now.getTime()) / 86_400_000);
  return days >= authorityNoticeDays
    ? undefined
    : `The certificate authority in the Secret ${secret} ends on ${end.toISOString().slice(0, 10)} (${days} days), and every certificate of it with it. It is not renewed by itself: put a new one into the Secret before (docs/operations.md, "Credentials")`;
}

/** A TLS Secret that the cluster needs, and what is to be in it. */
export interface TlsNeed {
  readonly secret: Secret;
  readonly order: CertificateOrder;
}

/** The certificates of a cluster. With an etcd of the user's own, the client certificate for it is the user's, too. */
export function tlsNeeds(cluster: AcceptedCluster): TlsNeed[] {
  const { name, namespace } = cluster.metadata;
  const ofService = (service: string): string[] => [
    service,
    `${service}.${namespace}`,
    `${service}.${namespace}.svc`,
    `${service}.${namespace}.svc.cluster.local`,
  ];
  const pods = podsServiceName(name);
  const needs: TlsNeed[] = [
    {
      secret: derived(cluster, serverTlsSecretName(name)),
      order: {
        authority: 'cluster',
        commonName: name,
        dnsNames: [
          ...[readWriteServiceName, readOnlyServiceName, readServiceName].flatMap((service) =>
            ofService(service(name)),
          ),
          ...ofService(pods).map((host) => `*.${host}`),
          'localhost',
        ],
        ipAddresses: ['127.0.0.1'],
        usages: ['server', 'client'],
      },
    },
    {
      secret: derived(cluster, replicationTlsSecretName(name)),
      order: {
        authority: 'cluster',
        commonName: replicationUser,
        dnsNames: [],
        ipAddresses: [],
        usages: ['client'],
      },
    },
  ];
  if (cluster.spec.etcd === undefined) {
    needs.push({
      secret: derived(cluster, etcdTlsSecretName(name)),
      order: {
        authority: 'etcd',
        commonName: clusterKeys(namespace, name, cluster.clusterId).user,
        dnsNames: [],
        ipAddresses: [],
        usages: ['client'],
      },
    });
  }
  return needs;
}

/**
 * Why a certificate has to be issued, or undefined when the one found is good.
 * @param authority the authority's certificate
 */
export function whyIssue(
  found: Secret | undefined,
  order: CertificateOrder,
  authority: string,
  now: Date,
): string | undefined {
  const [cert, key, ca] = [read(found, tlsKey.cert), read(found, tlsKey.key), read(found, tlsKey.ca)];
  if (found === undefined || cert === undefined || key === undefined) return 'there is none yet';
  const info = examine(found, cert, authority);
  if (ca !== authority || info === undefined) return 'it is not of the present authority';
  if (needsRenewal(info, now)) return `it ends on ${info.notAfter.toISOString()}`;
  const covers = (have: readonly string[], wanted: readonly string[]) =>
    wanted.every((name) => have.includes(name));
  if (
    info.commonName !== order.commonName ||
    !covers(info.dnsNames, order.dnsNames) ||
    !covers(info.ipAddresses, order.ipAddresses)
  ) {
    return 'it is for other names';
  }
  return undefined;
}

/** Objects of a cache never change: what takes cryptography is found out once for each. */
const examined = new WeakMap<Secret, { authority: string; info: CertificateInfo | undefined }>();

/** What a certificate says; undefined when the authority has not issued it, or it is damaged. */
function examine(secret: Secret, cert: string, authority: string): CertificateInfo | undefined {
  const known = examined.get(secret);
  if (known?.authority === authority) return known.info;
  const info = isIssuedBy(cert, authority) ? inspect(cert) : undefined;
  examined.set(secret, { authority, info });
  return info;
}
