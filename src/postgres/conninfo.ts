import { join } from 'node:path';
import type { PostgresPaths } from './paths.ts';
import type { Upstream } from './settings.ts';

/** The role that standbys, clones and rewinds log in as, by client certificate with this common name. */
export const replicationRole = 'koschei_replication';

/**
 * A libpq connection string to another instance, with the replication certificate. It holds no secret: the key is named
 * by its file. The server's certificate is checked for `host` while `address` is dialled, so no name is resolved.
 */
export function replicationConninfo(
  paths: PostgresPaths,
  upstream: Upstream,
  more: Readonly<Record<string, string>> = {},
): string {
  const certificates = paths.replicationCertificates;
  return conninfo({
    host: upstream.host,
    hostaddr: upstream.address,
    port: String(upstream.port),
    user: replicationRole,
    sslmode: 'verify-full',
    sslcert: join(certificates, 'tls.crt'),
    sslkey: join(certificates, 'tls.key'),
    sslrootcert: join(certificates, 'ca.crt'),
    gssencmode: 'disable',
    // libpq's least timeout is 2 s; a dead peer is found by unanswered data after 5 s or by keepalives after 5 s.
    connect_timeout: '2',
    keepalives_idle: '2',
    keepalives_interval: '1',
    keepalives_count: '3',
    tcp_user_timeout: '5000',
    ...more,
  });
}

function conninfo(fields: Readonly<Record<string, string>>): string {
  return Object.entries(fields)
    .map(
      ([key, value]) =>
        `${key}=${/^[\w./:-]+$/.test(value) ? value : `'${value.replace(/['\\]/g, '\\$&')}'`}`,
    )
    .join(' ');
}
