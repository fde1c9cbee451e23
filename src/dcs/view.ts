import type { z } from 'zod';
import type { KeyValue } from './etcd.ts';
import type { ClusterKeys } from './keys.ts';
import {
  type CommandValue,
  type ConfigValue,
  commandValue,
  configValue,
  type HistoryValue,
  historyValue,
  type InitializeValue,
  initializeValue,
  type LeaderValue,
  leaderValue,
  type MemberValue,
  memberValue,
  type RequestValue,
  requestValue,
  type SyncValue,
  syncValue,
} from './schemas.ts';

/** A value with the revision that last modified its key. */
export interface Stamped<T> {
  readonly value: T;
  readonly revision: string;
}

/** Everything stored about one cluster, as of one revision. */
export interface ClusterView {
  readonly revision: string;
  readonly initialize?: Stamped<InitializeValue>;
  readonly config?: Stamped<ConfigValue>;
  readonly leader?: Stamped<LeaderValue>;
  readonly sync?: Stamped<SyncValue>;
  readonly request?: Stamped<RequestValue>;
  readonly members: ReadonlyMap<string, Stamped<MemberValue>>;
  readonly commands: ReadonlyMap<string, Stamped<CommandValue>>;
  readonly history: ReadonlyMap<number, Stamped<HistoryValue>>;
  /** Keys whose value does not fit its schema: they are as good as unknown, never as good as absent. */
  readonly invalid: readonly { readonly key: string; readonly problem: string }[];
}

/** A view of a cluster about which nothing is stored. */
export const emptyView: ClusterView = {
  revision: '0',
  members: new Map(),
  commands: new Map(),
  history: new Map(),
  invalid: [],
};

/** Reads the raw keys of a cluster into a view. Pure; values that do not fit go into `invalid`. */
export function parseView(keys: ClusterKeys, revision: string, raw: Iterable<KeyValue>): ClusterView {
  const members = new Map<string, Stamped<MemberValue>>();
  const commands = new Map<string, Stamped<CommandValue>>();
  const history = new Map<number, Stamped<HistoryValue>>();
  const invalid: { key: string; problem: string }[] = [];
  const single: {
    -readonly [K in 'initialize' | 'config' | 'leader' | 'sync' | 'request']?: ClusterView[K];
  } = {};

  const read = <T>(kv: KeyValue, schema: z.ZodType<T>): Stamped<T> | undefined => {
    const parsed = parseJson(kv.value, schema);
    if (typeof parsed === 'string') {
      invalid.push({ key: kv.key, problem: parsed });
      return undefined;
    }
    return { value: parsed.value, revision: kv.modRevision };
  };

  for (const kv of raw) {
    const path = kv.key.slice(keys.prefix.length);
    const slash = path.indexOf('/');
    const folder = slash < 0 ? path : path.slice(0, slash);
    const rest = slash < 0 ? '' : path.slice(slash + 1);
    switch (folder) {
      case 'initialize':
        assign(single, 'initialize', read(kv, initializeValue));
        break;
      case 'config':
        assign(single, 'config', read(kv, configValue));
        break;
      case 'leader':
        assign(single, 'leader', read(kv, leaderValue));
        break;
      case 'sync':
        assign(single, 'sync', read(kv, syncValue));
        break;
      case 'request':
        assign(single, 'request', read(kv, requestValue));
        break;
      case 'members':
        put(members, rest, read(kv, memberValue));
        break;
      case 'command':
        put(commands, rest, read(kv, commandValue));
        break;
      case 'history':
        put(history, Number(rest), read(kv, historyValue));
        break;
      default:
        break; // Written by a newer version.
    }
  }
  return { revision, ...single, members, commands, history, invalid };
}

/** Parses one JSON value; the answer is a sentence when it does not fit. */
export function parseJson<T>(text: string, schema: z.ZodType<T>): { value: T } | string {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return 'is not JSON';
  }
  const parsed = schema.safeParse(json);
  if (parsed.success) return { value: parsed.data };
  const issue = parsed.error.issues[0];
  return `${issue?.path.join('.') ?? ''}: ${issue?.message ?? 'does not fit the schema'}`;
}

function assign<O extends object, K extends keyof O>(target: O, key: K, value: O[K] | undefined): void {
  if (value !== undefined) target[key] = value;
}

function put<K, T>(map: Map<K, Stamped<T>>, key: K, value: Stamped<T> | undefined): void {
  if (value !== undefined) map.set(key, value);
}
