import { join } from 'node:path';

/** A directory with `tls.crt`, `tls.key` and `ca.crt`. */
export type CertificateDirectory = string;

/** Where everything of one Postgres is. Nothing here is checked to exist. */
export interface PostgresPaths {
  /** The data volume. All directories of data below are on it, so that renames are atomic. */
  readonly dataRoot: string;
  readonly pgdata: string;
  /** What initdb or clone is making; worth nothing until `identity.next.json` exists. */
  readonly pgdataNew: string;
  /** The data before the last reclone, kept until the new one has proven itself. */
  readonly pgdataOld: string;
  /** What the agent keeps: identity, promoted term, taint marker, lock. */
  readonly agentDir: string;
  /** The WAL volume, or undefined when WAL is on the data volume. */
  readonly walRoot: string | undefined;
  /** Directory of the Unix socket. */
  readonly socketDir: string;
  /** TCP port; also part of the socket's name. */
  readonly port: number;
  readonly serverCertificates: CertificateDirectory;
  readonly replicationCertificates: CertificateDirectory;
}

/** The paths of the pod, see docs/architecture.md; each can be put elsewhere. */
export function postgresPaths(
  options: {
    dataRoot?: string;
    walRoot?: string | undefined;
    socketDir?: string;
    port?: number;
    certificates?: string;
  } = {},
): PostgresPaths {
  const dataRoot = options.dataRoot ?? '/var/lib/koschei';
  const certificates = options.certificates ?? '/etc/koschei';
  return {
    dataRoot,
    pgdata: join(dataRoot, 'pgdata'),
    pgdataNew: join(dataRoot, 'pgdata.new'),
    pgdataOld: join(dataRoot, 'pgdata.old'),
    agentDir: join(dataRoot, 'agent'),
    walRoot: options.walRoot,
    socketDir: options.socketDir ?? '/run/koschei',
    port: options.port ?? 5432,
    serverCertificates: join(certificates, 'server'),
    replicationCertificates: join(certificates, 'replication'),
  };
}
