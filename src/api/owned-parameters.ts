/**
 * Postgres parameters that a PgCluster may not set: Koschei sets them, or they would break its promises.
 * A name that ends in `*` stands for every parameter that begins so.
 */
interface Ownership {
  names: readonly string[];
  why: string;
}

const ownerships: readonly Ownership[] = [
  {
    names: [
      'listen_addresses',
      'port',
      'unix_socket_directories',
      'data_directory',
      'config_file',
      'hba_file',
      'ident_file',
      'external_pid_file',
      'cluster_name',
    ],
    why: 'pods, probes and Services rely on the value that Koschei gives it',
  },
  {
    names: [
      'primary_conninfo',
      'primary_slot_name',
      'synchronous_standby_names',
      'hot_standby',
      'wal_log_hints',
      'max_slot_wal_keep_size',
      'wal_receiver_create_temp_slot',
      'wal_receiver_timeout',
      'wal_sender_timeout',
      'wal_retrieve_retry_interval',
      'promote_trigger_file',
      'sync_replication_slots',
      'synchronized_standby_slots',
    ],
    why: 'replication and failover are managed by Koschei (see spec.replicas, spec.durability, spec.failover)',
  },
  {
    names: ['archive_*', 'recovery_*', 'restore_command'],
    why: 'recovery and archiving are managed by Koschei',
  },
  { names: ['ssl', 'ssl_*'], why: 'Koschei issues the certificates and renews them' },
  {
    names: ['log_destination', 'logging_collector'],
    why: 'Postgres logs to standard error, where `kubectl logs` finds it',
  },
  {
    names: ['restart_after_crash', 'allow_alter_system'],
    why: 'the agent decides when Postgres starts and which settings are in force',
  },
  {
    names: [
      'fsync',
      'full_page_writes',
      'data_sync_retry',
      'zero_damaged_pages',
      'ignore_checksum_failure',
      'ignore_invalid_pages',
      'ignore_system_indexes',
    ],
    why: 'any other value than the default can lose or hide the loss of committed data',
  },
  {
    names: ['include', 'include_dir', 'include_if_exists'],
    why: 'it is a directive, not a parameter; name the parameters themselves',
  },
];

/** All owned names, for documentation and for the agent's own settings to be compared with. */
export const ownedParameters: readonly string[] = ownerships.flatMap((entry) => entry.names);

/** Why a parameter may not be set, or undefined when it may. Names are compared without case, as Postgres does. */
export function whyOwned(parameter: string): string | undefined {
  const name = parameter.toLowerCase();
  const matches = (owned: string) =>
    owned.endsWith('*') ? name.startsWith(owned.slice(0, -1)) : name === owned;
  // It begins with `recovery_` but only says how fast recovery reads ahead.
  if (name === 'recovery_prefetch') return undefined;
  return ownerships.find((entry) => entry.names.some(matches))?.why;
}

/** Session defaults under which an acknowledged commit is on the synchronous standbys' disks. */
export const safeSynchronousCommit = ['on', 'remote_apply'] as const;
