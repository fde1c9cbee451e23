import { fileURLToPath } from 'node:url';
import * as z from 'zod';

/** The first three octets of a subnet whose prefix is /24, such as `10.240.77`. */
const subnet24 = z
  .string()
  .regex(/^(\d{1,3}\.){3}0\/24$/, 'expected a /24 subnet such as 10.240.77.0/24')
  .transform((text) => text.replace(/\.0\/24$/, ''));

/** The first two octets of a subnet whose prefix is /16, such as `10.244`. */
const subnet16 = z
  .string()
  .regex(/^(\d{1,3}\.){2}0\.0\/16$/, 'expected a /16 subnet such as 10.244.0.0/16')
  .transform((text) => text.replace(/\.0\.0\/16$/, ''));

const environment = z.object({
  KOSCHEI_CACHE: z.string().startsWith('/', 'expected an absolute path').default('/var/cache/koschei'),
  KOSCHEI_CONTEXT: z.string().min(1).optional(),
  KOSCHEI_IMAGE_PREFIX: z.string().min(1).default('localhost'),
  KOSCHEI_NODE_SUBNET: subnet24.default('10.240.77'),
  KOSCHEI_POD_SUBNET: subnet16.default('10.244'),
  KOSCHEI_SERVICE_SUBNET: subnet16.default('10.96'),
});

const parsed = environment.safeParse(
  // An empty variable means the same as none.
  Object.fromEntries(Object.entries(process.env).filter(([, value]) => value !== '')),
);
if (!parsed.success) {
  throw new Error(`The environment of the local cluster is not valid:\n${z.prettifyError(parsed.error)}`);
}
const given = parsed.data;

/** The root of the repository. */
export const repository = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '');

/** What is kept outside the repository, so that every clone on this machine shares it. */
export const cache = given.KOSCHEI_CACHE;

/** The context of the user's own kubeconfig to test against, or undefined for the local cluster. */
export const foreignContext: string | undefined = given.KOSCHEI_CONTEXT;

/** What stands before the `/` in the names of all images. */
export const imagePrefix = given.KOSCHEI_IMAGE_PREFIX;

export const kubernetesVersion = '1.20.2';

/** Docker network of the cluster, and the name of its bridge on the host. */
export const network = {
  name: 'koschei',
  bridge: 'br-koschei',
  subnet: `${given.KOSCHEI_NODE_SUBNET}.0/24`,
  gateway: `${given.KOSCHEI_NODE_SUBNET}.1`,
  pods: `${given.KOSCHEI_POD_SUBNET}.0.0/16`,
  services: `${given.KOSCHEI_SERVICE_SUBNET}.0.0/16`,
  /** ClusterIP of the Service `kubernetes`: always the first of the subnet. */
  apiService: `${given.KOSCHEI_SERVICE_SUBNET}.0.1`,
} as const;

export interface Member {
  /** Name of the container and, for a node, of the Kubernetes node. */
  readonly name: string;
  readonly ip: string;
}

export interface Node extends Member {
  /** Subnet of the pods on this node. */
  readonly podSubnet: string;
  readonly zone: string;
}

export const controlPlane: Member = {
  name: 'koschei-control-plane',
  ip: `${given.KOSCHEI_NODE_SUBNET}.10`,
};

export const nodes: readonly Node[] = [1, 2, 3].map((number) => ({
  name: `koschei-node-${number}`,
  ip: `${given.KOSCHEI_NODE_SUBNET}.${10 + number}`,
  podSubnet: `${given.KOSCHEI_POD_SUBNET}.${number}.0/24`,
  zone: `zone-${number}`,
}));

/** Name of the context that `npm run cluster:up` writes. */
export const localContext = 'koschei-local';

export const apiServer = `https://${controlPlane.ip}:6443`;

/** Where `npm run cluster:up` leaves the administrator's kubeconfig of the local cluster. */
export const localKubeconfig = `${repository}/.state/kubeconfig`;

/** Keys and certificates of the cluster that is up; removed by `npm run cluster:down`. */
export const pkiFolder = `${cache}/state/pki`;

/** Where image archives are passed to the nodes: folder on this machine, and the same folder in every node. */
export const archives = { here: `${cache}/state/archives`, there: '/opt/archives' } as const;
