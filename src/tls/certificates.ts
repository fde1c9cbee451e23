import 'reflect-metadata';
import {
  createHash,
  createPrivateKey,
  type KeyObject,
  X509Certificate as NodeCertificate,
  randomBytes,
  webcrypto,
} from 'node:crypto';
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  type JsonName,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509';

/** Certificates with ECDSA keys on P-256: small, fast, and taken by Postgres, Node and etcd alike. */
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;

/** A certificate and its private key (PKCS #8), both in PEM. */
export interface KeyPair {
  cert: string;
  key: string;
}

export interface AuthorityRequest {
  /** At most 64 characters (X.520). */
  commonName: string;
  /** More than 0. */
  validDays: number;
  now: Date;
}

export interface CertificateRequest {
  authority: KeyPair;
  /** At most 64 characters (X.520). Who the holder is, for Postgres and etcd. */
  commonName: string;
  /** DNS names that a server is reached by; `*.` as the first label is allowed. */
  dnsNames?: readonly string[];
  ipAddresses?: readonly string[];
  /** What the certificate may be used for; at least one. */
  usages: readonly ('server' | 'client')[];
  /** More than 0; cut to the end of the authority's life. */
  validDays: number;
  now: Date;
}

export interface CertificateInfo {
  commonName: string;
  dnsNames: readonly string[];
  ipAddresses: readonly string[];
  notBefore: Date;
  notAfter: Date;
  /** Whether it may sign others. */
  isAuthority: boolean;
  /** SHA-256 of the certificate, in hexadecimal: changes with every issue. */
  fingerprint: string;
}

/** A certificate, key or request for one is not usable. */
export class CertificateError extends Error {
  constructor(expected: string, found: string, advice: string, cause?: unknown) {
    super(`expected ${expected}, found ${found}; ${advice}`, { cause });
    this.name = 'CertificateError';
  }
}

const dayMs = 86_400_000;
/** Certificates begin to be valid this long before they are issued, because clocks differ. */
const clockSkewMs = 5 * 60_000;

/**
 * Makes a certificate authority that signs itself, and that signs end certificates only (path length 0).
 * @throws {CertificateError} when the request makes no sense.
 */
export async function createAuthority({ commonName, validDays, now }: AuthorityRequest): Promise<KeyPair> {
  checkCommonName(commonName);
  const keys = await generateKeys();
  const certificate = await X509CertificateGenerator.createSelfSigned(
    {
      serialNumber: serialNumber(),
      name: subject(commonName),
      ...validity(now, validDays),
      keys,
      signingAlgorithm: algorithm,
      extensions: [
        new BasicConstraintsExtension(true, 0, true),
        new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
        await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
      ],
    },
    webcrypto,
  );
  return { cert: pem(certificate), key: await exportKey(keys.privateKey) };
}

/**
 * Issues a certificate. It never outlives its authority.
 * @throws {CertificateError} when the authority cannot be read, has ended or is none, or the request makes no sense.
 */
export async function issueCertificate(request: CertificateRequest): Promise<KeyPair> {
  const { authority, commonName, dnsNames = [], ipAddresses = [], usages, validDays, now } = request;
  checkCommonName(commonName);
  if (usages.length === 0) {
    throw new CertificateError(
      'at least one usage',
      'none',
      'say what the certificate is for: server or client',
    );
  }
  const issuer = readAuthority(authority, now);
  const signingKey = await importKey(authority.key);
  const keys = await generateKeys();
  const wanted = validity(now, validDays);
  const names = [
    ...dnsNames.map((value) => ({ type: 'dns' as const, value })),
    ...ipAddresses.map((value) => ({ type: 'ip' as const, value })),
  ];
  const extensions: Extension[] = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension(
      usages.map((usage) => (usage === 'server' ? ExtendedKeyUsage.serverAuth : ExtendedKeyUsage.clientAuth)),
    ),
    ...(names.length === 0 ? [] : [new SubjectAlternativeNameExtension(names)]),
    await SubjectKeyIdentifierExtension.create(keys.publicKey, false, webcrypto),
    await AuthorityKeyIdentifierExtension.create(issuer, false, webcrypto),
  ];
  const certificate = await X509CertificateGenerator.create(
    {
      serialNumber: serialNumber(),
      subject: subject(commonName),
      // The name as encoded there: Go compares bytes.
      issuer: issuer.subjectName,
      notBefore: wanted.notBefore,
      notAfter: new Date(Math.min(issuer.notAfter.getTime(), wanted.notAfter.getTime())),
      publicKey: keys.publicKey,
      signingKey,
      signingAlgorithm: algorithm,
      extensions,
    },
    webcrypto,
  );
  return { cert: pem(certificate), key: await exportKey(keys.privateKey) };
}

/**
 * Reads the first certificate of a PEM text.
 * @throws {CertificateError} when there is none.
 */
export function inspect(text: string): CertificateInfo {
  const certificate = parse(text, 'a certificate in PEM');
  const names = certificate.getExtension(SubjectAlternativeNameExtension)?.names.items ?? [];
  const ofType = (type: string) => names.filter((name) => name.type === type).map((name) => name.value);
  return {
    commonName: certificate.subjectName.getField('CN')[0] ?? '',
    dnsNames: ofType('dns'),
    ipAddresses: ofType('ip'),
    notBefore: certificate.notBefore,
    notAfter: certificate.notAfter,
    isAuthority: certificate.getExtension(BasicConstraintsExtension)?.ca === true,
    fingerprint: createHash('sha256').update(new Uint8Array(certificate.rawData)).digest('hex'),
  };
}

/** Whether two thirds of the life are over: early enough for a third of it to bring help when renewal fails. */
export function needsRenewal(
  { notBefore, notAfter }: Pick<CertificateInfo, 'notBefore' | 'notAfter'>,
  now: Date,
): boolean {
  const life = notAfter.getTime() - notBefore.getTime();
  return now.getTime() >= notBefore.getTime() + (life * 2) / 3;
}

/** Whether the authority signed the certificate; false, too, when either cannot be read. */
export function isIssuedBy(cert: string, authorityCert: string): boolean {
  try {
    const [certificate, authority] = [new NodeCertificate(cert), new NodeCertificate(authorityCert)];
    return certificate.checkIssued(authority) && certificate.verify(authority.publicKey);
  } catch {
    return false;
  }
}

function readAuthority(authority: KeyPair, now: Date): X509Certificate {
  const certificate = parse(authority.cert, 'the certificate of an authority in PEM');
  const advice = 'check the Secret of the authority, or remove it to have a new one made';
  if (certificate.getExtension(BasicConstraintsExtension)?.ca !== true) {
    throw new CertificateError(
      'a certificate that may sign others',
      `that of ${certificate.subject}`,
      advice,
    );
  }
  if (certificate.notAfter <= now) {
    throw new CertificateError(
      'an authority that is still valid',
      `end ${certificate.notAfter.toISOString()}`,
      advice,
    );
  }
  if (!new NodeCertificate(authority.cert).checkPrivateKey(readKey(authority.key))) {
    throw new CertificateError('the key of the authority', 'the key of another certificate', advice);
  }
  return certificate;
}

function parse(text: string, expected: string): X509Certificate {
  const [, block] = /(-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----)/.exec(text) ?? [];
  const advice = 'check the Secret that it comes from';
  if (block === undefined)
    throw new CertificateError(expected, `${text.length} characters without one`, advice);
  try {
    return new X509Certificate(block);
  } catch (cause) {
    throw new CertificateError(expected, 'a damaged one', advice, cause);
  }
}

function readKey(key: string): KeyObject {
  try {
    return createPrivateKey(key);
  } catch (cause) {
    // The text of the key stays out of the message.
    throw new CertificateError(
      'a private key in PEM',
      'something else',
      'check the Secret that it comes from',
      cause,
    );
  }
}

const generateKeys = () => webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);

const importKey = (key: string) =>
  webcrypto.subtle.importKey(
    'pkcs8',
    readKey(key).export({ type: 'pkcs8', format: 'der' }),
    algorithm,
    false,
    ['sign'],
  );

const exportKey = async (key: webcrypto.CryptoKey): Promise<string> =>
  `${PemConverter.encode(await webcrypto.subtle.exportKey('pkcs8', key), PemConverter.PrivateKeyTag)}\n`;

const pem = (certificate: X509Certificate): string => `${certificate.toString('pem')}\n`;

/** 127 random bits: unique without a register, and positive (RFC 5280, 4.1.2.2). */
function serialNumber(): string {
  const bytes = randomBytes(16);
  bytes.writeUInt8((bytes.readUInt8(0) & 0x3f) | 0x40, 0);
  return bytes.toString('hex');
}

const subject = (commonName: string): JsonName => [{ CN: [commonName] }];

function checkCommonName(commonName: string): void {
  if (commonName.length >= 1 && commonName.length <= 64) return;
  throw new CertificateError(
    'a common name of 1 to 64 characters',
    `${commonName.length}`,
    'choose another one',
  );
}

function validity(now: Date, validDays: number): { notBefore: Date; notAfter: Date } {
  if (!(validDays > 0)) {
    throw new CertificateError('a validity of more than 0 days', `${validDays}`, 'ask for a longer one');
  }
  // X.509 times have whole seconds.
  const at = (ms: number) => new Date(Math.floor(ms / 1000) * 1000);
  return { notBefore: at(now.getTime() - clockSkewMs), notAfter: at(now.getTime() + validDays * dayMs) };
}
