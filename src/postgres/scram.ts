import { createHash, createHmac, pbkdf2Sync } from 'node:crypto';

const iterations = 4096;

/**
 * What Postgres stores for a password (RFC 5803 with SCRAM-SHA-256), so that the password itself never reaches Postgres
 * or its log. `salt` must be random, 16 bytes. Passwords are normalised with NFKC, which equals SASLprep for printable
 * text.
 */
export function scramVerifier(password: string, salt: Uint8Array): string {
  // A few milliseconds.
  const salted = pbkdf2Sync(password.normalize('NFKC'), salt, iterations, 32, 'sha256');
  const keyed = (text: string): Buffer => createHmac('sha256', salted).update(text).digest();
  const storedKey = createHash('sha256').update(keyed('Client Key')).digest('base64');
  const serverKey = keyed('Server Key').toString('base64');
  return `SCRAM-SHA-256$${iterations}:${Buffer.from(salt).toString('base64')}$${storedKey}:${serverKey}`;
}

/** Whether a verifier that `scramVerifier` made is of this password. */
export function verifies(verifier: string, password: string): boolean {
  const salt = /^SCRAM-SHA-256\$\d+:([^$]+)\$/.exec(verifier)?.[1];
  return salt !== undefined && scramVerifier(password, Buffer.from(salt, 'base64')) === verifier;
}
