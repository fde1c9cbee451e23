import type { ControlledSettings } from './control-data.ts';
import type { PostgresPaths } from './paths.ts';

/** Where a standby streams from. No name is resolved: `address` is dialled, `host` is checked in the certificate. */
export interface Upstream {
  /** DNS name in the server's certificate. */
  readonly host: string;
  /** IP address. */
  readonly address: string;
  readonly port: number;
}

export type ParameterValue = string | number | boolean;

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
  /** `spec.postgres.parameters`; refused ones (see `refusedParameters`) are an error. */
  readonly parameters: Readonly<Record<string, ParameterValue>>;
  /** Lines for pg_hba.conf, before the general ones. */
  readonly hba: readonly string[];
  /** Memory limit of the container in bytes, for the default of shared_buffers. */
  readonly memoryBytes?: number | undefined;
  /** Size of the volume that holds WAL in bytes, for max_slot_wal_keep_size. */
  readonly walVolumeBytes?: number | undefined;
  /** Application names that must all confirm each commit, highest priority first. Empty: asynchronous. */
  readonly synchronousStandbys: readonly string[];
  /** `undefined`: receive no WAL (`primary_conninfo = ''`). */
  readonly upstream: Upstream | undefined;
  /** Slot on the upstream; `undefined`: none. */
  readonly upstreamSlot: string | undefined;
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

/** A name for `synchronous_standby_names` that no standby has: commits wait. */
export const blockingPlaceholder = 'koschei_nobody';

/** `application_name` and slot name of an instance: `k_` + its data id. */
export function applicationName(dataId: string): string {
  return `k_${dataId}`;
}

/** The user's parameters that may not be set, each with the reason; empty when all is well. Pure. */
export function refusedParameters(
  _parameters: Readonly<Record<string, ParameterValue>>,
): { name: string; reason: string }[] {
  throw new Error('not written yet');
}

/** The content of all settings files. Pure. Throws PostgresError `InvalidParameter` for refused parameters. */
export function renderSettings(_spec: SettingsSpec): RenderedSettings {
  throw new Error('not written yet');
}
