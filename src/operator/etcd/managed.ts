import { caKey, label, tlsKey } from '../../api/names.ts';
import { isAlreadyExists, type KubeClient, resources, type Secret } from '../../kube/index.ts';
import type { Logger } from '../../log/logger.ts';
import { createAuthority, issueCertificate, type KeyPair } from '../../tls/certificates.ts';
import type { CertificateOrder } from '../action.ts';
import { authorityData, encode, read, whyIssue } from '../cluster/desired/secrets.ts';
import { rootUser } from './administration.ts';

/** Names of the managed etcd, as `deploy/` installs it. */
export const managedEtcd = {
  name: 'koschei-etcd',
  members: 3,
  authoritySecret: 'koschei-etcd-ca',
  serverSecret: 'koschei-etcd-server-tls',
  rootSecret: 'koschei-etcd-root',
} as const;

/** How long certificates are valid, days. They are renewed when two thirds of it are over. */
export const certificateDays = 90;
export const authorityDays = 3650;

/** The Secret of the managed etcd's authority is gone or incomplete, although certificates of it are in use. */
export class AuthorityMissingError extends Error {
  override readonly name = 'AuthorityMissingError';
  constructor(namespace: string | undefined, found: string, because: string) {
    super(
      `expected the certificate authority of the managed etcd in the Secret ${namespace}/${managedEtcd.authoritySecret}: ${found}, but ${because}, so it was in use. A new authority would lock every cluster out of etcd, and is not made: restore the Secret from a backup; docs/operations.md ("etcd") says what to do without one`,
    );
  }
}

/** What a client needs to talk to the managed etcd as root, and what issues certificates for it. */
export interface EtcdCredentials {
  readonly authority: KeyPair;
  readonly root: KeyPair;
}

/**
 * Makes and renews the Secrets of the managed etcd: its authority, the certificate of its servers (and peers), and the
 * operator's own as root. The authority is never replaced: every cluster's certificate hangs on it.
 * @param namespace the operator's own, where etcd runs
 * @throws {AuthorityMissingError} when the authority's Secret is gone or incomplete although it was used.
 */
export async function ensureEtcdCredentials(
  client: KubeClient,
  namespace: string,
  now: Date,
  log: Logger,
): Promise<EtcdCredentials> {
  const labels = {
    [label.name]: 'koschei',
    [label.managedBy]: 'koschei',
    'app.kubernetes.io/component': 'etcd',
  };
  const shell = (name: string): Secret => ({
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: { name, namespace, labels },
    type: 'Opaque',
  });
  const authority = await ensureAuthority(client, shell, now, log);
  const ensure = async (name: string, order: CertificateOrder): Promise<KeyPair> => {
    const found = await client.find(resources.secrets, { namespace, name });
    const why = whyIssue(found, order, authority.cert, now);
    const [cert, key] = [read(found, tlsKey.cert), read(found, tlsKey.key)];
    if (why === undefined && cert !== undefined && key !== undefined) return { cert, key };
    const pair = await issueCertificate({ ...order, authority, validDays: certificateDays, now });
    log.info({ secret: name, why }, 'issuing a certificate of the managed etcd');
    await client.apply(resources.secrets, { ...shell(name), data: tlsData(pair, authority.cert) } as Secret, {
      force: true,
    });
    return pair;
  };
  await ensure(managedEtcd.serverSecret, serverOrder(namespace));
  const root = await ensure(managedEtcd.rootSecret, {
    authority: 'etcd',
    commonName: rootUser,
    dnsNames: [],
    ipAddresses: [],
    usages: ['client'],
  });
  return { authority, root };
}

/** The data of a TLS Secret. */
export const tlsData = (pair: KeyPair, authority: string): Record<string, string> => ({
  [tlsKey.cert]: encode(pair.cert),
  [tlsKey.key]: encode(pair.key),
  [tlsKey.ca]: encode(authority),
});

/** Members take each other for peers by this common name only: other certificates of the authority do not do. */
export function serverOrder(namespace: string): CertificateOrder {
  const { name, members } = managedEtcd;
  const hosts = [
    name,
    `${name}.${namespace}`,
    `${name}.${namespace}.svc`,
    `${name}.${namespace}.svc.cluster.local`,
  ];
  return {
    authority: 'etcd',
    commonName: name,
    dnsNames: [
      ...hosts,
      ...Array.from({ length: members }, (_, n) => hosts.map((host) => `${name}-${n}.${host}`)).flat(),
      'localhost',
    ],
    ipAddresses: ['127.0.0.1'],
    usages: ['server', 'client'],
  };
}

/**
 * The authority as its Secret holds it. It is made only where nothing was ever issued by one: a second authority would
 * lock every cluster's agents, and the members of etcd among themselves, out.
 */
async function ensureAuthority(
  client: KubeClient,
  shell: (name: string) => Secret,
  now: Date,
  log: Logger,
): Promise<KeyPair> {
  const secret = shell(managedEtcd.authoritySecret);
  const find = async (name: string) => await client.find(resources.secrets, shell(name).metadata);
  const held = await find(secret.metadata.name);
  if (held !== undefined) return keyPairOf(held);
  for (const name of [managedEtcd.serverSecret, managedEtcd.rootSecret]) {
    if ((await find(name)) !== undefined)
      throw new AuthorityMissingError(
        secret.metadata.namespace,
        'it does not exist',
        `the Secret ${name} does`,
      );
  }
  const pair = await createAuthority({ commonName: 'Koschei etcd', validDays: authorityDays, now });
  log.info({ secret: secret.metadata.name }, 'making the certificate authority of the managed etcd');
  try {
    await client.create(resources.secrets, { ...secret, data: authorityData(pair) } as Secret);
    return pair;
  } catch (error) {
    if (!isAlreadyExists(error)) throw error;
    // Another replica was faster: its authority is the one.
    return keyPairOf(await client.get(resources.secrets, secret.metadata));
  }
}

function keyPairOf(secret: Secret): KeyPair {
  const [cert, key] = [read(secret, caKey.cert), read(secret, caKey.key)];
  if (cert !== undefined && key !== undefined) return { cert, key };
  throw new AuthorityMissingError(
    secret.metadata.namespace,
    `it lacks ${caKey.cert} or ${caKey.key}`,
    'it exists',
  );
}
