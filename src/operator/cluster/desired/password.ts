import { appSecretName } from '../../../api/names.ts';
import type { Secret } from '../../../kube/index.ts';
import { scramVerifier, verifies } from '../../../postgres/scram.ts';
import { type ClusterSnapshot, secretOf } from '../snapshot.ts';
import { read } from './secrets.ts';

/** Objects of a cache never change: the cryptography is done once for each. */
const examined = new WeakMap<Secret, string>();

/**
 * The verifier of the password that the application's Secret holds, for the agents to give to Postgres: the present one
 * as long as it is of this password. Without a Secret the present one, and undefined before there was any.
 */
export function verifierOf(snapshot: ClusterSnapshot): string | undefined {
  const present = snapshot.etcd.known
    ? snapshot.etcd.value.view.config?.value.appPasswordVerifier
    : undefined;
  const secret = secretOf(snapshot, appSecretName(snapshot.cluster.metadata.name));
  const password = read(secret, 'password');
  if (secret === undefined || password === undefined) return present;
  const known = examined.get(secret);
  if (known !== undefined && (present === undefined || known === present)) return known;
  const verifier =
    present !== undefined && verifies(present, password)
      ? present
      : scramVerifier(password, Buffer.from(snapshot.random.salt, 'hex'));
  examined.set(secret, verifier);
  return verifier;
}
