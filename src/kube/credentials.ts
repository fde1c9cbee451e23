import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { CredentialsError } from './errors.ts';

/** Where the API is and what proves who we are, at one moment. */
export interface Connection {
  /** Base URL without a path. */
  readonly server: string;
  readonly tls: Tls;
  readonly headers: Readonly<Record<string, string>>;
  /** HTTP proxy, as kubeconfig's `proxy-url`. */
  readonly proxy?: string | undefined;
}

/** PEM texts and checks, named as in node:tls. */
export interface Tls {
  readonly ca?: string;
  readonly cert?: string;
  readonly key?: string;
  readonly servername?: string;
  readonly rejectUnauthorized?: boolean;
}

/** A source of credentials that notices when they change. */
export interface Credentials {
  /** The namespace of the service account or of the kubeconfig context; `default` if there is none. */
  readonly namespace: string;
  /** The credentials to use now. `fresh` (the server just refused the last ones) skips any cache. */
  connection(fresh: boolean): Promise<Connection>;
}

export const serviceAccountDir = '/var/run/secrets/kubernetes.io/serviceaccount';
/** The kubelet replaces projected tokens at 80 % of their life of an hour or more. */
const rereadAfterMs = 10_000;

/**
 * Credentials of the pod's service account. Token and CA are read again when they are older than ten seconds and
 * whenever the server refuses the token, because the kubelet replaces both while the pod runs.
 * @param environment needs KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT
 */
export async function inClusterCredentials(
  environment: Readonly<Record<string, string | undefined>>,
  dir = serviceAccountDir,
): Promise<Credentials> {
  const host = environment.KUBERNETES_SERVICE_HOST;
  const port = environment.KUBERNETES_SERVICE_PORT;
  if (host === undefined || port === undefined) {
    throw new CredentialsError(
      'expected KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT in the environment: not in a pod?',
    );
  }
  const server = `https://${host.includes(':') ? `[${host}]` : host}:${port}`;
  const read = async (file: string): Promise<string> => {
    try {
      return (await readFile(join(dir, file), 'utf8')).trim();
    } catch (cause) {
      throw new CredentialsError(
        `cannot read ${join(dir, file)}: the pod needs a service account with automountServiceAccountToken`,
        { cause },
      );
    }
  };
  let cached: { connection: Connection; at: number } | undefined;
  return {
    namespace: await read('namespace'),
    connection: async (fresh) => {
      const at = performance.now();
      if (cached === undefined || fresh || at - cached.at > rereadAfterMs) {
        const [token, ca] = await Promise.all([read('token'), read('ca.crt')]);
        cached = { connection: { server, tls: { ca }, headers: { authorization: `Bearer ${token}` } }, at };
      }
      return cached.connection;
    },
  };
}

export interface KubeconfigOptions {
  /** Path; by default KUBECONFIG or `~/.kube/config`. */
  readonly file?: string | undefined;
  /** Context; by default the current one. */
  readonly context?: string | undefined;
}

/**
 * Credentials of a kubeconfig: certificates, tokens, exec plugins, OIDC. Asks again every ten seconds, and whenever
 * the server refuses them. client-node does the reading; it is loaded only here because it takes 90 MB of memory.
 */
export async function kubeconfigCredentials(options: KubeconfigOptions = {}): Promise<Credentials> {
  const { KubeConfig } = await import('@kubernetes/client-node');
  const config = new KubeConfig();
  try {
    if (options.file === undefined) config.loadFromDefault();
    else config.loadFromFile(options.file);
  } catch (cause) {
    throw new CredentialsError(`cannot read the kubeconfig ${options.file ?? ''}: ${String(cause)}`, {
      cause,
    });
  }
  if (options.context !== undefined) config.setCurrentContext(options.context);
  const cluster = config.getCurrentCluster();
  if (cluster === null) {
    const known = config.getContexts().map((context) => context.name);
    throw new CredentialsError(
      `the kubeconfig has no context "${config.getCurrentContext()}"; it has: ${known.join(', ') || 'none'}`,
    );
  }
  const { server, proxyUrl } = cluster;
  if (proxyUrl !== undefined && !/^https?:/.test(proxyUrl)) {
    throw new CredentialsError(`expected an http or https proxy-url in the kubeconfig, found ${proxyUrl}`);
  }
  let cached: { connection: Connection; at: number } | undefined;
  return {
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? 'default',
    connection: async (fresh) => {
      const at = performance.now();
      if (cached === undefined || fresh || at - cached.at > rereadAfterMs) {
        const opts: RequestSecrets = { headers: {} };
        await config.applyToHTTPSOptions(opts);
        const headers: Record<string, string> = {};
        for (const [name, value] of Object.entries(opts.headers)) headers[name.toLowerCase()] = String(value);
        if (opts.auth !== undefined) {
          headers.authorization = `Basic ${Buffer.from(opts.auth).toString('base64')}`;
        }
        const tls: Tls = {
          ...(opts.ca === undefined ? {} : { ca: pem(opts.ca) }),
          ...(opts.cert === undefined ? {} : { cert: pem(opts.cert) }),
          ...(opts.key === undefined ? {} : { key: pem(opts.key) }),
          ...(opts.servername === undefined ? {} : { servername: opts.servername }),
          ...(opts.rejectUnauthorized === undefined ? {} : { rejectUnauthorized: opts.rejectUnauthorized }),
        };
        cached = { connection: { server, tls, headers, proxy: proxyUrl }, at };
      }
      return cached.connection;
    },
  };
}

/** What client-node puts into its argument; its own type promises less. */
interface RequestSecrets {
  headers: Record<string, unknown>;
  auth?: string;
  ca?: string | Buffer;
  cert?: string | Buffer;
  key?: string | Buffer;
  servername?: string;
  rejectUnauthorized?: boolean;
}

const pem = (material: string | Buffer): string => material.toString();
