import {
  EtcdRoleExistsError,
  EtcdRoleNotFoundError,
  EtcdUserExistsError,
  EtcdUserNotFoundError,
} from 'etcd3';
import type { ClusterKeys, Etcd } from '../../dcs/index.ts';

/**
 * Users of the managed etcd. Each is known by the common name of its client certificate; there are no passwords,
 * because the tokens that etcd gives for them expire in the middle of things.
 */

/** The user that may do everything; the name is etcd's own. */
export const rootUser = 'root';

const timeoutMs = 5_000;
const limit = () => ({ deadline: Date.now() + timeoutMs });

/** The end of the range of all keys that begin with `prefix` (etcd API: range_end = prefix + 1). */
function prefixEnd(prefix: string): Buffer {
  const end = Buffer.from(prefix);
  end.writeUInt8(end.readUInt8(end.length - 1) + 1, end.length - 1);
  return end;
}

/**
 * Turns authentication on, with the user `root`, and says whether it was off. Writes nothing when it is on. Without it
 * every holder of a certificate could change the state of every cluster.
 */
export async function enableAuthentication(etcd: Etcd): Promise<{ wasOff: boolean }> {
  const { auth } = etcd.administration;
  const roles = await rolesOf(etcd, rootUser);
  if (roles === undefined) {
    await unless(
      auth.userAdd({ name: rootUser, options: { no_password: true } }, limit()),
      EtcdUserExistsError,
    );
  }
  if (roles?.includes(rootUser) !== true)
    await auth.userGrantRole({ user: rootUser, role: rootUser }, limit());
  const wasOn = await auth.authStatus(limit()).then(
    ({ enabled }) => enabled,
    (error: unknown) => {
      // etcd before 3.5 cannot be asked; to turn on what is on does nothing there.
      if (/unimplemented|unknown method/i.test(String(error))) return undefined;
      throw error;
    },
  );
  if (wasOn !== true) await auth.authEnable(limit());
  return { wasOff: roles === undefined || wasOn === false };
}

/** The names that are both users and roles, as those are that `grantPrefix` made. Two reads, however many there are. */
export async function grantedUsers(etcd: Etcd): Promise<ReadonlySet<string>> {
  const { auth } = etcd.administration;
  const [{ users }, { roles }] = await Promise.all([auth.userList(limit()), auth.roleList(limit())]);
  const known = new Set(roles);
  return new Set(users.filter((user) => known.has(user)));
}

/** The version of the member that answers, such as `3.6.16`. */
export async function versionOf(etcd: Etcd): Promise<string> {
  return (await etcd.administration.maintenance.status(limit())).version;
}

/** Whether a member has raised the alarm that its database is full: then none takes writes. */
export async function hasNoSpace(etcd: Etcd): Promise<boolean> {
  const { alarms } = await etcd.administration.maintenance.alarm({ action: 'Get' }, limit());
  return alarms.some(({ alarm }) => alarm === 'Nospace');
}

/**
 * Gives a cluster's user the right to read and write the cluster's keys, and no other. Writes nothing when it has it:
 * each change of users makes requests in flight fail with "auth: old revision".
 */
export async function grantPrefix(
  etcd: Etcd,
  { user, prefix }: Pick<ClusterKeys, 'user' | 'prefix'>,
): Promise<void> {
  const { auth } = etcd.administration;
  const permissions = await auth.roleGet({ role: user }, limit()).then(
    (answer) => answer.perm,
    (error: unknown) => ifMissing(error, EtcdRoleNotFoundError),
  );
  if (permissions === undefined) {
    await unless(auth.roleAdd({ name: user }, limit()), EtcdRoleExistsError);
  }
  const key = Buffer.from(prefix);
  if (permissions?.some((permission) => key.equals(permission.key)) !== true) {
    await auth.roleGrantPermission(
      { name: user, perm: { permType: 'Readwrite', key, range_end: prefixEnd(prefix) } },
      limit(),
    );
  }
  const roles = await rolesOf(etcd, user);
  if (roles === undefined) {
    await unless(auth.userAdd({ name: user, options: { no_password: true } }, limit()), EtcdUserExistsError);
  }
  if (roles?.includes(user) !== true) await auth.userGrantRole({ user, role: user }, limit());
}

/** Removes everything below `prefix`. */
export async function forgetPrefix(etcd: Etcd, prefix: string): Promise<void> {
  await etcd.transact([], [{ op: 'deletePrefix', key: prefix }]);
}

/** Removes a cluster's user and role. */
export async function forgetUser(etcd: Etcd, user: string): Promise<void> {
  const { auth } = etcd.administration;
  await unless(auth.userDelete({ name: user }, limit()), EtcdUserNotFoundError);
  await unless(auth.roleDelete({ role: user }, limit()), EtcdRoleNotFoundError);
}

async function rolesOf(etcd: Etcd, user: string): Promise<string[] | undefined> {
  try {
    return (await etcd.administration.auth.userGet({ name: user }, limit())).roles;
  } catch (error) {
    return ifMissing(error, EtcdUserNotFoundError);
  }
}

// biome-ignore lint/suspicious/noExplicitAny: any class of errors
type ErrorClass = new (...args: any[]) => Error;

function ifMissing(error: unknown, missing: ErrorClass): undefined {
  if (error instanceof missing) return undefined;
  throw error;
}

async function unless(work: Promise<unknown>, expected: ErrorClass): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof expected)) throw error;
  }
}
