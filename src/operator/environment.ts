import { z } from 'zod';
import { managedEtcd } from './etcd/managed.ts';

const list = z.string().transform((text) =>
  text
    .split(',')
    .map((part) => part.trim())
    .filter((part) => part !== ''),
);

const schema = z.object({
  /** The operator's own namespace: its Lease, and the Secrets of the managed etcd. */
  KOSCHEI_NAMESPACE: z.string().min(1).default('koschei-system'),
  /** Name of this replica in the Lease. */
  KOSCHEI_POD_NAME: z.string().min(1).default('koschei-operator'),
  /** Image that new instances get as that of their agent. */
  KOSCHEI_IMAGE: z.string().min(1).optional(),
  /** Image of Postgres for clusters that name none; `{version}` is replaced by the major version. */
  KOSCHEI_POSTGRES_IMAGE_TEMPLATE: z
    .string()
    .refine((text) => text.includes('{version}'), 'expected an image name with {version} in it')
    .default('docker.io/library/postgres:{version}'),
  /** Client URLs of the managed etcd, separated by commas. */
  KOSCHEI_ETCD_ENDPOINTS: list.pipe(z.array(z.url({ protocol: /^https?$/ })).min(1)).optional(),
  /** Port of `/healthz`, `/readyz` and `/metrics`. */
  KOSCHEI_HTTP_PORT: z.coerce.number().int().min(1).max(65535).default(8080),
  KOSCHEI_LOG_LEVEL: z.enum(['debug', 'info', 'warn']).default('info'),
});

export interface Environment {
  readonly namespace: string;
  readonly identity: string;
  /** Undefined: the image that the operator itself runs from. */
  readonly agentImage: string | undefined;
  readonly postgresImageTemplate: string;
  readonly etcdEndpoints: readonly string[];
  readonly httpPort: number;
  readonly logLevel: 'debug' | 'info' | 'warn';
}

/** Reads the operator's environment. Throws an Error that names each variable that is missing or wrong. */
export function readEnvironment(env: Readonly<Record<string, string | undefined>>): Environment {
  // An empty variable means the same as none.
  const parsed = schema.safeParse(
    Object.fromEntries(Object.entries(env).filter(([, value]) => value !== '')),
  );
  if (!parsed.success) {
    throw new Error(`the operator's environment is not complete:\n${z.prettifyError(parsed.error)}`);
  }
  const found = parsed.data;
  return {
    namespace: found.KOSCHEI_NAMESPACE,
    identity: found.KOSCHEI_POD_NAME,
    agentImage: found.KOSCHEI_IMAGE,
    postgresImageTemplate: found.KOSCHEI_POSTGRES_IMAGE_TEMPLATE,
    etcdEndpoints: found.KOSCHEI_ETCD_ENDPOINTS ?? installedEndpoints(found.KOSCHEI_NAMESPACE),
    httpPort: found.KOSCHEI_HTTP_PORT,
    logLevel: found.KOSCHEI_LOG_LEVEL,
  };
}

/** The etcd that `deploy/` installs beside the operator. */
const installedEndpoints = (namespace: string): string[] =>
  Array.from(
    { length: managedEtcd.members },
    (_, n) => `https://${managedEtcd.name}-${n}.${managedEtcd.name}.${namespace}.svc:2379`,
  );
