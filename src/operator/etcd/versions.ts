/**
 * The oldest release of each minor version of etcd that keeps one user's keys from another's, as far as is known:
 * - 3.6.9 refuses nested transactions and foreign alarms, leases and compactions (GHSA-rfx7-8w68-q57q, GHSA-q8m4-xhhv-38mg);
 * - 3.6.11 checks previous values and leases in transactions (GHSA-x35m-3gp4-4fh5);
 * - 3.6.14 and 3.7.1 check watches without an end (GHSA-xg4h-6gfc-h4m8).
 * No 3.5 is in the list: a user who fills the database to its quota gets past the checks of deletions and of the
 * administration of users there (etcd-io/etcd#22386), which 3.6 never did.
 */
const oldestSafe: readonly (readonly [number, number, number])[] = [
  [3, 6, 14],
  [3, 7, 1],
];

/** Whether clusters that share an etcd of this version (`major.minor.patch`) cannot read or write each other's state. */
export function isolatesUsers(version: string): boolean {
  const found = /^v?(\d+)\.(\d+)\.(\d+)/.exec(version);
  if (found === null) return false;
  const [major = 0, minor = 0, patch = 0] = found.slice(1).map(Number);
  const safe = oldestSafe.find(([a, b]) => a === major && b === minor);
  if (safe !== undefined) return patch >= safe[2];
  const [newestMajor, newestMinor] = oldestSafe.at(-1) ?? [0, 0];
  return major > newestMajor || (major === newestMajor && minor > newestMinor);
}
