import { readFile } from 'node:fs/promises';
import { join } from 'node:path';

/** A certificate, its key and the authority it is checked against. */
export interface Certificates {
  readonly cert: Buffer;
  readonly key: Buffer;
  readonly ca: Buffer;
}

/** Reads `tls.crt`, `tls.key` and `ca.crt` of a mounted Secret. */
export async function readCertificates(directory: string): Promise<Certificates> {
  const [cert, key, ca] = await Promise.all(
    ['tls.crt', 'tls.key', 'ca.crt'].map((name) => readFile(join(directory, name))),
  );
  if (cert === undefined || key === undefined || ca === undefined)
    throw new Error(`${directory} is not complete`);
  return { cert, key, ca };
}

export function sameCertificates(a: Certificates, b: Certificates): boolean {
  return a.cert.equals(b.cert) && a.key.equals(b.key) && a.ca.equals(b.ca);
}
