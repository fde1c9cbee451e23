import 'reflect-metadata';
import { createHash, generateKeyPairSync, webcrypto } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as x509 from '@peculiar/x509';
import { stringify } from 'yaml';
import { apiServer, controlPlane, localContext, network, nodes, pkiFolder } from './settings.ts';

x509.cryptoProvider.set(webcrypto);

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
const tenYears = 3650 * 24 * 3600 * 1000;

interface Pair {
  readonly name: string;
  readonly keys: webcrypto.CryptoKeyPair;
  readonly certificate: x509.X509Certificate;
}

const validity = () => ({
  notBefore: new Date(Date.now() - 60_000),
  notAfter: new Date(Date.now() + tenYears),
});

const newKeys = async () =>
  (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair;

async function authority(name: string): Promise<Pair> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
    ...validity(),
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { name, keys, certificate };
}

async function issue(
  issuer: Pair,
  subject: { readonly name: string; readonly group?: string },
  addresses: readonly x509.JsonGeneralName[] = [],
): Promise<Pair> {
  const keys = await newKeys();
  const certificate = await x509.X509CertificateGenerator.create({
    subject: subject.group === undefined ? `CN=${subject.name}` : `O=${subject.group}, CN=${subject.name}`,
    issuer: issuer.certificate.subject,
    publicKey: keys.publicKey,
    signingKey: issuer.keys.privateKey,
    signingAlgorithm: algorithm,
    ...validity(),
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment,
        true,
      ),
      new x509.ExtendedKeyUsageExtension([
        x509.ExtendedKeyUsage.clientAuth,
        x509.ExtendedKeyUsage.serverAuth,
      ]),
      ...(addresses.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension([...addresses])]),
    ],
  });
  return { name: subject.name, keys, certificate };
}

async function keyOf(pair: Pair): Promise<string> {
  return x509.PemConverter.encode(
    await webcrypto.subtle.exportKey('pkcs8', pair.keys.privateKey),
    'PRIVATE KEY',
  );
}

async function kubeconfig(ca: Pair, user: Pair, server: string): Promise<string> {
  const base64 = (text: string) => Buffer.from(text).toString('base64');
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [
      {
        name: localContext,
        cluster: { server, 'certificate-authority-data': base64(ca.certificate.toString('pem')) },
      },
    ],
    users: [
      {
        name: user.name,
        user: {
          'client-certificate-data': base64(user.certificate.toString('pem')),
          'client-key-data': base64(await keyOf(user)),
        },
      },
    ],
    contexts: [{ name: localContext, context: { cluster: localContext, user: user.name } }],
    'current-context': localContext,
  });
}

/** All keys, certificates and kubeconfigs of one cluster: path inside the PKI folder -> content. */
async function generate(): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const ip = (value: string): x509.JsonGeneralName => ({ type: 'ip', value });
  const dns = (value: string): x509.JsonGeneralName => ({ type: 'dns', value });
  const put = async (path: string, pair: Pair) => {
    files.set(`${path}.crt`, pair.certificate.toString('pem'));
    files.set(`${path}.key`, await keyOf(pair));
  };

  const ca = await authority('koschei-local-ca');
  const frontCa = await authority('koschei-local-front-ca');
  const admin = await issue(ca, { name: 'koschei-local-admin', group: 'system:masters' });
  files.set('admin.kubeconfig', await kubeconfig(ca, admin, apiServer));

  const folder = controlPlane.name;
  const local = 'https://127.0.0.1:6443';
  await put(`${folder}/ca`, ca);
  files.set(`${folder}/front-ca.crt`, frontCa.certificate.toString('pem'));
  await put(
    `${folder}/apiserver`,
    await issue(ca, { name: 'kube-apiserver' }, [
      ip(controlPlane.ip),
      ip(network.apiService),
      ip('127.0.0.1'),
      ...['localhost', 'kubernetes', 'kubernetes.default', 'kubernetes.default.svc'].map(dns),
      dns('kubernetes.default.svc.cluster.local'),
    ]),
  );
  await put(
    `${folder}/apiserver-kubelet`,
    await issue(ca, { name: 'kube-apiserver-kubelet-client', group: 'system:masters' }),
  );
  await put(`${folder}/front-proxy`, await issue(frontCa, { name: 'front-proxy-client' }));
  const serviceAccounts = generateKeyPairSync('rsa', { modulusLength: 2048 });
  files.set(
    `${folder}/sa.key`,
    serviceAccounts.privateKey.export({ type: 'pkcs1', format: 'pem' }).toString(),
  );
  files.set(`${folder}/sa.pub`, serviceAccounts.publicKey.export({ type: 'spki', format: 'pem' }).toString());
  const proxy = await issue(ca, { name: 'system:kube-proxy' });
  files.set(`${folder}/kube-proxy.kubeconfig`, await kubeconfig(ca, proxy, local));
  for (const program of ['kube-controller-manager', 'kube-scheduler']) {
    const pair = await issue(ca, { name: `system:${program}` });
    files.set(`${folder}/${program}.kubeconfig`, await kubeconfig(ca, pair, local));
  }

  for (const node of nodes) {
    const kubelet = await issue(ca, { name: `system:node:${node.name}`, group: 'system:nodes' }, [
      dns(node.name),
      ip(node.ip),
    ]);
    const services = await issue(ca, {
      name: `koschei-local:${node.name}`,
      group: 'koschei-local:node-services',
    });
    files.set(`${node.name}/ca.crt`, ca.certificate.toString('pem'));
    await put(`${node.name}/kubelet`, kubelet);
    await put(`${node.name}/node-services`, services);
    files.set(`${node.name}/kubelet.kubeconfig`, await kubeconfig(ca, kubelet, apiServer));
    files.set(`${node.name}/kube-proxy.kubeconfig`, await kubeconfig(ca, proxy, apiServer));
  }
  return files;
}

const madeFor = JSON.stringify({ network, controlPlane, nodes });

/** Whether the keys of the present cluster are there, made for the names and addresses that are configured now. */
export function pkiIsComplete(): boolean {
  const file = join(pkiFolder, 'made-for.json');
  return existsSync(file) && readFileSync(file, 'utf8') === madeFor;
}

/** Makes new keys, certificates and kubeconfigs, and puts them in place all at once. */
export async function makePki(): Promise<void> {
  const partial = `${pkiFolder}.partial`;
  rmSync(partial, { recursive: true, force: true });
  for (const [path, content] of await generate()) {
    mkdirSync(dirname(join(partial, path)), { recursive: true, mode: 0o700 });
    writeFileSync(join(partial, path), content, { mode: 0o600 });
  }
  writeFileSync(join(partial, 'made-for.json'), madeFor);
  rmSync(pkiFolder, { recursive: true, force: true });
  renameSync(partial, pkiFolder);
}

/** The administrator's kubeconfig, in the cache. */
export const adminKubeconfig = join(pkiFolder, 'admin.kubeconfig');

/** Identifies the present keys, without disclosing them. */
export function pkiFingerprint(): string {
  return createHash('sha256').update(readFileSync(adminKubeconfig)).digest('hex').slice(0, 16);
}
