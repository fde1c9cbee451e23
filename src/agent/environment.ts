import { z } from 'zod';

const list = z.string().transform((text) =>
  text
    .split(',')
    .map((s) => s.trim())
    .filter((s) => s !== ''),
);

/** The agent's environment, as the operator writes it into the pod. */
const schema = z.object({
  KOSCHEI_NAMESPACE: z.string().min(1),
  KOSCHEI_CLUSTER: z.string().min(1),
  KOSCHEI_CLUSTER_ID: z.string().min(1),
  KOSCHEI_INSTANCE: z.string().min(1),
  KOSCHEI_POD_NAME: z.string().min(1),
  KOSCHEI_POD_UID: z.string().min(1),
  KOSCHEI_POD_IP: z.union([z.ipv4(), z.ipv6()]),
  KOSCHEI_NODE_NAME: z.string().min(1),
  KOSCHEI_ETCD_ENDPOINTS: list,
  KOSCHEI_POSTGRES_VERSION: z.coerce.number().int().min(15).max(18),
  KOSCHEI_LOG_LEVEL: z.enum(['debug', 'info', 'warn']).default('info'),
  KOSCHEI_ENDPOINTSLICE_API: z.string().default('discovery.k8s.io/v1'),
  KOSCHEI_INIT_MODE: z.enum(['initdb', 'clone']).optional(),
  KOSCHEI_APP_PASSWORD: z.string().min(1).optional(),
  KOSCHEI_WAL_VOLUME: z.string().optional(),
  KOSCHEI_MEMORY_BYTES: z.coerce.number().int().positive().optional(),
  /** Counts the agents that koschei-init has started in this container. */
  KOSCHEI_BOOT: z.coerce.number().int().min(0).default(0),
});

export type Environment = z.infer<typeof schema>;

/** Reads the environment. Throws an Error that names each variable that is missing or wrong. */
export function readEnvironment(env: NodeJS.ProcessEnv): Environment {
  const parsed = schema.safeParse(env);
  if (parsed.success) return parsed.data;
  throw new Error(`the agent's environment is not complete:\n${z.prettifyError(parsed.error)}`);
}
