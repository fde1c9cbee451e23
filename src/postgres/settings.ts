import { join } from 'node:path';
import { replicationConninfo, replicationRole } from './conninfo.ts';
import type { ControlledSettings } from './control-data.ts';
import { PostgresError } from './errors.ts';
import { logLinePrefix } from './log-parser.ts';
import type { PostgresPaths } from './paths.ts';
import { quoteIdentifier, quoteSetting } from './quote.ts';
import { replicationName, synchronousStandbyNames } from './replication-names.ts';

/** Where a standby streams from. No name is resolved: `address` is dialled, `host` is checked in the certificate. */
export interface Upstream {
  /** DNS name in the server's certificate. */
  readonly host: string;
  /** IP address. */
  readonly address: string;
  readonly port: number;
}

export type ParameterValue = string | number | boolean;
type Parameters = Readonly<Record<string, ParameterValue>>;

/** Everything that decides the content of the settings files. */
export interface SettingsSpec {
  readonly paths: PostgresPaths;
  /** Major version of Postgres: which settings exist. */
  readonly major: number;
  /** Shown in process titles. */
  readonly clusterName: string;
  /** This instance's data id: its `application_name` towards its upstream. */
  readonly dataId: string;
  /** Name of the OS user that runs Postgres and the agent: mapped to the superuser for local connections. */
  readonly osUser: string;
  /** `spec.postgres.parameters`. Owned names are ignored, except as a wish for more (`max_connections`, `wal_level`). */
  readonly parameters: Parameters;
  /** Lines for pg_hba.conf, after Koschei's own; without any, everybody may try a password over TLS. */
  readonly hba: readonly string[];
  /** Memory limit of the container in bytes, for the default of shared_buffers. */
  readonly memoryBytes?: number | undefined;
  /** Size of the volume that holds WAL in bytes, for how much WAL is kept. */
  readonly walVolumeBytes?: number | undefined;
  /** Application names that must all confirm each commit, highest priority first. Empty: asynchronous. */
  readonly synchronousStandbys: readonly string[];
  /** `undefined`: receive no WAL (`primary_conninfo = ''`). */
  readonly upstream: Upstream | undefined;
  /** Slot on the upstream; `undefined`: none. */
  readonly upstreamSlot: string | undefined;
  /** A standby replays each commit this long after it was made, seconds; undefined: at once. */
  readonly applyDelaySeconds?: number | undefined;
  /** The upstream is a standby: it has no failover slots to pass on. */
  readonly cascades?: boolean | undefined;
  /**
   * Physical slots whose instances must have a change before a consumer of a failover slot gets it (Postgres 17). A name
   * that no slot has stops those consumers, and Postgres refuses to load it.
   */
  readonly synchronizedSlots?: readonly string[] | undefined;
  /** There are logical slots: with a lower `wal_level` Postgres would not start. */
  readonly hasLogicalSlots?: boolean | undefined;
  /** Of the control file, for a start as standby: the larger of it and the spec is used. */
  readonly atLeast?: ControlledSettings | undefined;
  /** false: only local and replication connections are let in (after a start as primary, until `sync` is level). */
  readonly acceptClients: boolean;
}

export type SettingsFileName =
  | 'postgresql.conf'
  | 'user.conf'
  | 'koschei.conf'
  | 'pg_hba.conf'
  | 'pg_ident.conf';

export interface RenderedSettings {
  /** Content of each file in the data directory. */
  readonly files: Readonly<Record<SettingsFileName, string>>;
  /** The owned settings, as `current_setting()` must answer once they are in force. */
  readonly owned: Readonly<Record<string, string>>;
}

/** Content of the settings files. Pure. Throws PostgresError `InvalidParameter`, naming all that may not be set. */
export function renderSettings(spec: SettingsSpec): RenderedSettings {
  const parameters = checkParameters(spec.parameters);
  const owned = ownedSettings(spec, parameters);
  const user = { ...defaultSettings(spec), ...parameters };
  const warning = '# Written by Koschei; changes are lost. Use spec.postgres.parameters.\n';
  return {
    owned,
    files: {
      'postgresql.conf': `${warning}include 'user.conf'\n# Last, so that it wins.\ninclude 'koschei.conf'\n`,
      'user.conf':
        warning +
        settingLines(Object.entries(user).filter(([name]) => !(name in owned) && !ignored.has(name))),
      'koschei.conf': warning + settingLines(Object.entries({ ...owned, ...unverified(spec) })),
      'pg_hba.conf': hostBasedAccess(spec),
      'pg_ident.conf': `${warning}koschei ${quoteIdentifier(spec.osUser)} postgres\n`,
    },
  };
}

/** They cannot stand in a settings file that is included, would put files where nothing looks for them, or are ours. */
const ignored: ReadonlySet<string> = new Set([
  'data_directory',
  'config_file',
  'hba_file',
  'ident_file',
  'external_pid_file',
  'synchronized_standby_slots',
]);

function checkParameters(parameters: Parameters): Record<string, string> {
  const checked: Record<string, string> = {};
  const refused: string[] = [];
  for (const [given, value] of Object.entries(parameters)) {
    const name = given.toLowerCase();
    const text = typeof value === 'boolean' ? (value ? 'on' : 'off') : String(value);
    if (!/^[a-z_][a-z0-9_$]*(\.[a-z_][a-z0-9_$]*)?$/.test(name) || name.startsWith('include')) {
      refused.push(`${given} is not the name of a parameter`);
    } else if (text.includes('\0')) {
      refused.push(`${given} holds a zero byte`);
    } else if (name === 'synchronous_commit' && !['on', 'remote_apply'].includes(text)) {
      refused.push('synchronous_commit may only be on or remote_apply');
    } else {
      checked[name] = text;
    }
  }
  if (refused.length > 0) {
    throw new PostgresError('InvalidParameter', {
      expected: 'parameters that Postgres knows and that keep acknowledged commits safe',
      found: refused.join('; '),
      advice: 'correct spec.postgres.parameters',
    });
  }
  return checked;
}

/** The largest cluster that a PgCluster may ask for: a primary, 8 synchronous and 16 asynchronous standbys. */
export const mostInstances = 1 + 8 + 16;
/**
 * Enough in every cluster: each instance streams through one walsender and is cloned through two, and has a slot besides
 * that of the data before; a few are left for others. The same number whatever the size, because a change needs a
 * restart of Postgres, and of all standbys before the primary: it costs about 1 MB of shared memory.
 */
const mostReplication = 2 * mostInstances + 4;

/** What holds whatever the user says; values are written as `current_setting()` shows them. */
function ownedSettings(
  spec: SettingsSpec,
  parameters: Readonly<Record<string, string>>,
): Record<string, string> {
  const { paths, atLeast } = spec;
  const atLeastOf = (name: string, ...floors: number[]): string =>
    String(Math.max(...floors, wholeNumber(parameters[name]) ?? 0));
  // One that replays late would keep its primary from removing rows for as long.
  const isDelayed = spec.applyDelaySeconds !== undefined;
  const failoverSlots = spec.major >= 17 && hasLogicalLevel(spec, parameters) && !isDelayed;
  return {
    listen_addresses: '*',
    port: String(paths.port),
    unix_socket_directories: paths.socketDir,
    unix_socket_permissions: '0700',
    cluster_name: spec.clusterName,
    ssl: 'on',
    ssl_cert_file: join(paths.serverCertificates, 'tls.crt'),
    ssl_key_file: join(paths.serverCertificates, 'tls.key'),
    ssl_ca_file: join(paths.serverCertificates, 'ca.crt'),

    // Committed means on disk.
    fsync: 'on',
    full_page_writes: 'on',
    data_sync_retry: 'off',
    zero_damaged_pages: 'off',
    ignore_checksum_failure: 'off',

    wal_level: hasLogicalLevel(spec, parameters) ? 'logical' : 'replica',
    // pg_rewind must know each page that changed.
    wal_log_hints: 'on',
    hot_standby: 'on',
    max_wal_senders: atLeastOf('max_wal_senders', mostReplication, atLeast?.max_wal_senders ?? 0),
    max_replication_slots: atLeastOf('max_replication_slots', mostReplication),
    max_slot_wal_keep_size: megabytes(slotMegabytes(spec)),
    synchronous_standby_names: synchronousStandbyNames(spec.synchronousStandbys),
    primary_conninfo:
      spec.upstream === undefined
        ? ''
        : replicationConninfo(paths, spec.upstream, {
            application_name: replicationName(spec.dataId),
            // Where the worker that copies failover slots logs in; streaming itself ignores it.
            ...(failoverSlots ? { dbname: 'postgres' } : {}),
          }),
    primary_slot_name: spec.upstreamSlot ?? '',
    recovery_target_timeline: 'latest',
    ...(spec.applyDelaySeconds === undefined
      ? {}
      : { recovery_min_apply_delay: seconds(spec.applyDelaySeconds) }),
    wal_receiver_create_temp_slot: 'off',
    // The default of 5 s makes one promotion in five take 5 s longer for the other standbys.
    wal_retrieve_retry_interval: '100ms',
    wal_receiver_status_interval: '1s',
    wal_receiver_timeout: '5s',
    wal_sender_timeout: '5s',

    // A standby must have at least what the primary had (https://www.postgresql.org/docs/current/hot-standby.html).
    max_connections: atLeastOf(
      'max_connections',
      parameters.max_connections === undefined ? 100 : 1,
      atLeast?.max_connections ?? 0,
    ),
    max_worker_processes: atLeastOf(
      'max_worker_processes',
      parameters.max_worker_processes === undefined ? 8 : 0,
      atLeast?.max_worker_processes ?? 0,
    ),
    max_prepared_transactions: atLeastOf(
      'max_prepared_transactions',
      atLeast?.max_prepared_transactions ?? 0,
    ),
    max_locks_per_transaction: atLeastOf(
      'max_locks_per_transaction',
      parameters.max_locks_per_transaction === undefined ? 64 : 10,
      atLeast?.max_locks_per_transaction ?? 0,
    ),

    // The agent is the parent of the postmaster and decides what follows a crash.
    restart_after_crash: 'off',
    logging_collector: 'off',
    log_destination: 'stderr',
    log_line_prefix: logLinePrefix,
    lc_messages: 'C',
    ...(spec.major >= 17
      ? {
          allow_alter_system: 'off',
          sync_replication_slots: failoverSlots && spec.cascades !== true ? 'on' : 'off',
        }
      : {}),
    // Else the primary would remove rows of the catalogs that the copied slots need.
    ...(failoverSlots ? { hot_standby_feedback: 'on' } : {}),
  };
}

function hasLogicalLevel(spec: SettingsSpec, parameters: Readonly<Record<string, string>>): boolean {
  return parameters.wal_level === 'logical' || spec.hasLogicalSlots === true;
}

/**
 * Ours as well, but not looked for in `pg_settings`: Postgres keeps the old value when a slot in the list has just gone,
 * and no change of the synchronous set may wait for that.
 */
function unverified({ major, synchronizedSlots = [] }: SettingsSpec): Record<string, string> {
  return major < 17 ? {} : { synchronized_standby_slots: synchronizedSlots.join(', ') };
}

/** What holds unless the user says otherwise. */
function defaultSettings({ memoryBytes, walVolumeBytes }: SettingsSpec): Record<string, string> {
  const mebibyte = 1 << 20;
  const walMegabytes = walVolumeBytes === undefined ? undefined : Math.floor(walVolumeBytes / mebibyte);
  return {
    ...(memoryBytes === undefined
      ? {}
      : {
          // https://www.postgresql.org/docs/current/runtime-config-resource.html: a quarter of the memory.
          shared_buffers: megabytes(clamp(Math.floor(memoryBytes / mebibyte / 4), 16, 1 << 20)),
          effective_cache_size: megabytes(clamp(Math.floor((memoryBytes / mebibyte) * 0.75), 16, 1 << 24)),
        }),
    // For pg_rewind, which reads the old primary's WAL back to the checkpoint before the fork.
    wal_keep_size: megabytes(
      walMegabytes === undefined ? 128 : clamp(Math.floor(walMegabytes / 20), 64, 1024),
    ),
    ...(walMegabytes === undefined
      ? {}
      : { max_wal_size: megabytes(clamp(Math.floor(walMegabytes / 6), 128, 16_384)) }),
    tcp_keepalives_idle: '10',
    tcp_keepalives_interval: '2',
    tcp_keepalives_count: '5',
    timezone: 'UTC',
    log_timezone: 'UTC',
    log_lock_waits: 'on',
    log_checkpoints: 'on',
  };
}

/**
 * How much WAL the slots of instances that are away may hold back: a quarter of the WAL's volume, at least 1 GiB, but
 * never more than half of a small volume.
 */
function slotMegabytes({ walVolumeBytes }: SettingsSpec): number {
  if (walVolumeBytes === undefined) return 1024;
  const volume = Math.floor(walVolumeBytes / (1 << 20));
  return Math.min(Math.floor(volume / 2), Math.max(1024, Math.floor(volume / 4)));
}

function hostBasedAccess(spec: SettingsSpec): string {
  const clients =
    spec.hba.length > 0 ? spec.hba : ['hostssl all all all scram-sha-256', 'local all all scram-sha-256'];
  return [
    '# Written by Koschei; changes are lost. Use spec.postgres.hba.',
    '# The agent, over the socket: whoever runs Postgres is its superuser.',
    'local all         postgres peer map=koschei',
    'local replication postgres peer map=koschei',
    '# Standbys, clones and rewinds: by client certificate, and in no other way.',
    `hostssl replication ${replicationRole} all cert clientcert=verify-full`,
    `hostssl postgres    ${replicationRole} all cert clientcert=verify-full`,
    `local all ${replicationRole}     reject`,
    `host  all ${replicationRole} all reject`,
    `host  replication ${replicationRole} all reject`,
    '# No superuser from afar.',
    'host all         postgres all reject',
    'host replication postgres all reject',
    ...(spec.acceptClients
      ? clients
      : [
          '# Closed until the synchronous standbys are level.',
          'host all all all reject',
          'local all all reject',
        ]),
    '',
  ].join('\n');
}

/** Text of a settings file without the lines that set one of `names`; other lines are kept as they are. Pure. */
export function withoutSettings(text: string, names: readonly string[]): string {
  const unwanted = new Set(names.map((name) => name.toLowerCase()));
  return text
    .split('\n')
    .filter((line) => {
      const name = /^\s*([A-Za-z_][\w$.]*)/.exec(line)?.[1];
      return name === undefined || !unwanted.has(name.toLowerCase());
    })
    .join('\n');
}

function settingLines(settings: readonly (readonly [string, string])[]): string {
  return settings.map(([name, value]) => `${name} = ${quoteSetting(value)}\n`).join('');
}

/** A size as Postgres shows it: in the largest unit that divides it. */
function megabytes(count: number): string {
  if (count > 0 && count % (1 << 20) === 0) return `${count >> 20}TB`;
  if (count > 0 && count % 1024 === 0) return `${count / 1024}GB`;
  return `${count}MB`;
}

/** A time as Postgres shows it: in the largest unit that divides it. */
function seconds(count: number): string {
  if (count % 86_400 === 0) return `${count / 86_400}d`;
  if (count % 3_600 === 0) return `${count / 3_600}h`;
  return count % 60 === 0 ? `${count / 60}min` : `${count}s`;
}

function wholeNumber(text: string | undefined): number | undefined {
  return text !== undefined && /^\s*\d+\s*$/.test(text) ? Number(text) : undefined;
}

function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}
