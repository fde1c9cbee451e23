import { execFile } from 'node:child_process';
import { createPrivateKey, X509Certificate } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect, createServer, type TLSSocket } from 'node:tls';
import { promisify } from 'node:util';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import {
  CertificateError,
  type CertificateRequest,
  createAuthority,
  inspect,
  isIssuedBy,
  issueCertificate,
  type KeyPair,
  needsRenewal,
} from './certificates.ts';

const now = new Date();
const day = 86_400_000;
const inDays = (days: number) => new Date(now.getTime() + days * day);

let authority: KeyPair;
let server: KeyPair;
let client: KeyPair;

const serverRequest = (): CertificateRequest => ({
  authority,
  commonName: 'shop',
  dnsNames: ['shop-rw', 'shop-rw.ns.svc', '*.shop-pods.ns.svc', 'localhost'],
  ipAddresses: ['127.0.0.1', 'fd00::17'],
  usages: ['server'],
  validDays: 90,
  now,
});

beforeAll(async () => {
  authority = await createAuthority({ commonName: 'shop Koschei CA', validDays: 3650, now });
  server = await issueCertificate(serverRequest());
  client = await issueCertificate({
    authority,
    commonName: 'koschei_replication',
    usages: ['client'],
    validDays: 90,
    now,
  });
});

describe('what is issued', () => {
  it('has the names, the life and the kind asked for', () => {
    expect(inspect(server.cert)).toMatchObject({
      commonName: 'shop',
      dnsNames: ['shop-rw', 'shop-rw.ns.svc', '*.shop-pods.ns.svc', 'localhost'],
      ipAddresses: ['127.0.0.1', 'fd00::17'],
      isAuthority: false,
      fingerprint: expect.stringMatching(/^[0-9a-f]{64}$/),
    });
    const { notBefore, notAfter } = inspect(server.cert);
    expect(notBefore.getTime()).toBeLessThan(now.getTime());
    expect(Math.abs(notAfter.getTime() - inDays(90).getTime())).toBeLessThanOrEqual(1000);
    expect(inspect(authority.cert)).toMatchObject({ commonName: 'shop Koschei CA', isAuthority: true });
  });

  it('has PKCS #8 keys on P-256 that belong to the certificates', () => {
    for (const pair of [authority, server, client]) {
      expect(pair.key).toMatch(/^-----BEGIN PRIVATE KEY-----\n[\s\S]+\n-----END PRIVATE KEY-----\n$/);
      const key = createPrivateKey(pair.key);
      expect(key.asymmetricKeyDetails?.namedCurve).toBe('prime256v1');
      expect(new X509Certificate(pair.cert).checkPrivateKey(key)).toBe(true);
    }
  });

  it('is recognized as issued by this authority and no other of the same name', async () => {
    const twin = await createAuthority({ commonName: 'shop Koschei CA', validDays: 3650, now });
    expect(isIssuedBy(server.cert, authority.cert)).toBe(true);
    expect(isIssuedBy(server.cert, twin.cert)).toBe(false);
    expect(isIssuedBy('nonsense', authority.cert)).toBe(false);
  });

  it('differs each time', async () => {
    const again = await issueCertificate(serverRequest());
    expect(inspect(again.cert).fingerprint).not.toBe(inspect(server.cert).fingerprint);
    expect(new X509Certificate(again.cert).serialNumber).not.toBe(
      new X509Certificate(server.cert).serialNumber,
    );
  });

  it('does not outlive its authority', async () => {
    const short = await createAuthority({ commonName: 'ca', validDays: 10, now });
    const pair = await issueCertificate({ ...serverRequest(), authority: short });
    expect(inspect(pair.cert).notAfter).toEqual(inspect(short.cert).notAfter);
  });

  it('may end after 2049, where X.509 changes its way of writing dates', async () => {
    const long = await createAuthority({ commonName: 'ca', validDays: 365 * 40, now });
    expect(new X509Certificate(long.cert).validToDate.getUTCFullYear()).toBeGreaterThan(2049);
  });
});

describe('openssl verify', () => {
  const run = promisify(execFile);
  let folder: string;
  afterEach(() => rm(folder, { recursive: true, force: true }));

  const verify = async (...options: string[]) => {
    folder = await mkdtemp(join(tmpdir(), 'koschei-tls-'));
    await writeFile(join(folder, 'ca.crt'), authority.cert);
    await writeFile(join(folder, 'server.crt'), server.cert);
    await writeFile(join(folder, 'client.crt'), client.cert);
    const { stdout } = await run('openssl', ['verify', '-x509_strict', '-CAfile', 'ca.crt', ...options], {
      cwd: folder,
    });
    return stdout.trim();
  };

  it.each([
    ['-purpose', 'sslserver', '-verify_hostname', 'shop-rw.ns.svc', 'server.crt'],
    ['-purpose', 'sslserver', '-verify_hostname', 'shop-1-0.shop-pods.ns.svc', 'server.crt'],
    ['-purpose', 'sslserver', '-verify_ip', '127.0.0.1', 'server.crt'],
    ['-purpose', 'sslserver', '-verify_ip', 'fd00::17', 'server.crt'],
    ['-purpose', 'sslclient', 'client.crt'],
  ])('accepts %s %s %s %s %s', async (...options) => {
    expect(await verify(...options.filter((option) => option !== undefined))).toBe(`${options.at(-1)}: OK`);
  });

  it.each([
    ['another host', ['-purpose', 'sslserver', '-verify_hostname', 'shop-rw.other.svc', 'server.crt']],
    ['a client as server', ['-purpose', 'sslserver', 'client.crt']],
    ['a server as client', ['-purpose', 'sslclient', 'server.crt']],
  ])('refuses %s', async (_, options) => {
    await expect(verify(...options)).rejects.toThrow(/verification failed/);
  });
});

describe('a TLS handshake where both sides verify', () => {
  const handshake = async (clientPair: KeyPair, trusted: string, servername: string) => {
    const listener = createServer({
      cert: server.cert,
      key: server.key,
      ca: authority.cert,
      requestCert: true,
      rejectUnauthorized: true,
    });
    // With TLS 1.3 a client may not notice that it was refused: its own half of the handshake is done by then.
    let refusal = new Error('the server said nothing');
    listener.on('tlsClientError', (error) => {
      refusal = error;
    });
    listener.on('secureConnection', (socket: TLSSocket) => {
      socket.on('error', () => {});
      socket.end(`hello ${socket.getPeerCertificate().subject.CN}`);
    });
    listener.listen(0, '127.0.0.1');
    await once(listener, 'listening');
    const { port } = listener.address() as AddressInfo;
    const socket = connect({
      port,
      host: '127.0.0.1',
      servername,
      ca: trusted,
      cert: clientPair.cert,
      key: clientPair.key,
    });
    try {
      let text = '';
      for await (const chunk of socket) text += chunk;
      if (text === '') throw refusal;
      return text;
    } finally {
      socket.destroy();
      listener.close();
      await once(listener, 'close');
    }
  };

  it('works, and tells the server who the client is', async () => {
    expect(await handshake(client, authority.cert, 'shop-1-0.shop-pods.ns.svc')).toBe(
      'hello koschei_replication',
    );
  });

  it('fails for another name, another authority, and a client of another authority', async () => {
    const other = await createAuthority({ commonName: 'other', validDays: 1, now });
    const stranger = await issueCertificate({
      authority: other,
      commonName: 'koschei_replication',
      usages: ['client'],
      validDays: 1,
      now,
    });
    await expect(handshake(client, authority.cert, 'elsewhere')).rejects.toThrow(/altnames/);
    await expect(handshake(client, other.cert, 'shop-rw')).rejects.toThrow(/self-signed|unable to verify/);
    await expect(handshake(stranger, authority.cert, 'shop-rw')).rejects.toThrow();
  });
});

describe('needsRenewal', () => {
  it('says so after two thirds of the life', () => {
    const life = { notBefore: now, notAfter: inDays(90) };
    expect([0, 59.9, 60, 89, 91].map((days) => needsRenewal(life, inDays(days)))).toEqual([
      false,
      false,
      true,
      true,
      true,
    ]);
  });

  it('does not say so of what was just issued', () => {
    expect(needsRenewal(inspect(server.cert), now)).toBe(false);
    expect(needsRenewal(inspect(server.cert), inDays(61))).toBe(true);
  });
});

describe('what cannot be', () => {
  it.each<[string, () => Promise<KeyPair> | unknown, RegExp]>([
    ['a text without certificate', () => inspect('nothing'), /expected a certificate in PEM/],
    [
      'a damaged certificate',
      () => inspect('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----'),
      /damaged/,
    ],
    ['no usage', () => issueCertificate({ ...serverRequest(), usages: [] }), /at least one usage/],
    ['no time', () => issueCertificate({ ...serverRequest(), validDays: 0 }), /more than 0 days/],
    ['a long name', () => issueCertificate({ ...serverRequest(), commonName: 'x'.repeat(65) }), /1 to 64/],
    [
      'an authority that is none',
      () => issueCertificate({ ...serverRequest(), authority: server }),
      /sign others/,
    ],
    [
      'an authority with the key of another',
      () => issueCertificate({ ...serverRequest(), authority: { ...authority, key: server.key } }),
      /key of another/,
    ],
    [
      'an authority without a key',
      () => issueCertificate({ ...serverRequest(), authority: { ...authority, key: 'x' } }),
      /expected a private key/,
    ],
    ['an ended authority', () => issueCertificate({ ...serverRequest(), now: inDays(4000) }), /still valid/],
  ])('is refused: %s', async (_, attempt, message) => {
    const failure = await (async () => attempt())().catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(CertificateError);
    expect(String(failure)).toMatch(message);
  });
});
