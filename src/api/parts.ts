import { z } from 'zod';
import { group, reservedLabels } from './names.ts';
import { quantitySchema, sizeSchema } from './quantity.ts';

/** Parts of a spec that a PgCluster has and hands on to its PgInstances. */

const amounts = (what: string) =>
  z
    .object({
      cpu: quantitySchema(`CPU ${what}, in cores: \`2\`, \`500m\`.`).optional(),
      memory: quantitySchema(`Memory ${what}, in bytes: \`512Mi\`, \`8Gi\`.`).optional(),
      'ephemeral-storage': quantitySchema(`Node-local storage ${what}, in bytes.`).optional(),
      'hugepages-2Mi': quantitySchema(`Huge pages of 2 MiB ${what}, in bytes.`).optional(),
      'hugepages-1Gi': quantitySchema(`Huge pages of 1 GiB ${what}, in bytes.`).optional(),
    })
    .optional();

export const Resources = z.object({
  requests: amounts('that the node must have free').meta({ description: 'What the scheduler reserves.' }),
  limits: amounts('that may be used at most').meta({
    description: 'What the container may use at most. Beyond its memory limit it is killed.',
  }),
});
export type Resources = z.infer<typeof Resources>;

const storageClassName = z
  .string()
  .max(253)
  .optional()
  .meta({ description: 'StorageClass of the volumes; the default class if left out. Cannot be changed.' });

export const WalStorage = z.object({
  size: sizeSchema('Size of the WAL volume of each instance, for example `20Gi`. May grow, never shrink.'),
  storageClassName,
});

/** The rules for changing storage that an API server with CEL (Kubernetes 1.29 or newer) enforces itself. */
const keepsItsClass = (scope: string) =>
  `has(self${scope}.storageClassName) == has(oldSelf${scope}.storageClassName) && ` +
  `(!has(self${scope}.storageClassName) || self${scope}.storageClassName == oldSelf${scope}.storageClassName)`;
const doesNotShrink = (scope: string) =>
  `quantity(self${scope}.size).compareTo(quantity(oldSelf${scope}.size)) >= 0`;

export const Storage = z
  .object({
    size: sizeSchema(
      'Size of the data volume of each instance, for example `100Gi`. May grow, never shrink.',
    ),
    storageClassName,
    wal: WalStorage.optional().meta({
      description:
        'A volume of its own for the WAL. Decided at creation: it can be neither added nor removed later.',
    }),
  })
  .meta({
    'x-kubernetes-validations': [
      { rule: keepsItsClass(''), message: 'storageClassName cannot be changed after creation' },
      { rule: doesNotShrink(''), message: 'size can grow, not shrink' },
      {
        rule: 'has(self.wal) == has(oldSelf.wal)',
        message: 'wal can be neither added nor removed after creation',
      },
      {
        rule: `!has(self.wal) || !has(oldSelf.wal) || (${keepsItsClass('.wal')})`,
        message: 'wal.storageClassName cannot be changed after creation',
      },
      {
        rule: `!has(self.wal) || !has(oldSelf.wal) || ${doesNotShrink('.wal')}`,
        message: 'wal.size can grow, not shrink',
      },
    ],
  });
export type Storage = z.infer<typeof Storage>;

const stringMap = (description: string, rules: readonly { rule: string; message: string }[] = []) =>
  z
    .record(z.string(), z.string().max(1024))
    .optional()
    .meta({
      description,
      maxProperties: 64,
      ...(rules.length === 0 ? {} : { 'x-kubernetes-validations': rules }),
    });

export const Toleration = z.object({
  key: z.string().max(317).optional().meta({ description: 'Key of the taint; every taint if left out.' }),
  operator: z
    .enum(['Exists', 'Equal'])
    .optional()
    .meta({ description: 'How the key is compared with the value; `Equal` if left out.' }),
  value: z.string().max(63).optional().meta({ description: 'Value of the taint, with operator `Equal`.' }),
  effect: z
    .enum(['NoSchedule', 'PreferNoSchedule', 'NoExecute'])
    .optional()
    .meta({ description: 'Effect of the taint; every effect if left out.' }),
  tolerationSeconds: z
    .int()
    .optional()
    .meta({ description: 'How long a `NoExecute` taint is tolerated, in seconds.', format: 'int64' }),
});

export const TopologySpreadConstraint = z.object({
  maxSkew: z
    .int()
    .min(1)
    .max(100)
    .default(1)
    .meta({ description: 'By how many instances two domains may differ.' }),
  topologyKey: z
    .string()
    .min(1)
    .max(317)
    .meta({ description: 'Node label that names the domain, for example `topology.kubernetes.io/zone`.' }),
  whenUnsatisfiable: z
    .enum(['DoNotSchedule', 'ScheduleAnyway'])
    .default('ScheduleAnyway')
    .meta({ description: 'What to do with a pod that no node suits.' }),
});

export const Placement = z.object({
  antiAffinity: z.enum(['preferred', 'required']).default('preferred').meta({
    description:
      'Whether instances on different nodes are a wish or a demand. With `required` an instance without a node of its own stays Pending.',
  }),
  nodeSelector: stringMap('Labels that a node must have.'),
  tolerations: z
    .array(Toleration)
    .max(32)
    .optional()
    .meta({ description: 'Taints that the pods tolerate.', 'x-kubernetes-list-type': 'atomic' }),
  topologySpreadConstraints: z.array(TopologySpreadConstraint).max(8).optional().meta({
    description: 'How instances spread over zones and the like; the selector is always this cluster.',
    'x-kubernetes-list-type': 'atomic',
  }),
  priorityClassName: z.string().max(253).optional().meta({ description: 'PriorityClass of the pods.' }),
});
export type Placement = z.infer<typeof Placement>;

export const Etcd = z.object({
  endpoints: z
    .array(
      z
        .string()
        .max(256)
        .regex(/^https:\/\/[^/?#\s]+$/, 'a URL such as https://etcd-0.etcd:2379, without a path'),
    )
    .min(1)
    .max(9)
    .meta({
      description: 'Client URLs of the etcd members, for example `https://etcd-0.etcd:2379`.',
      'x-kubernetes-list-type': 'atomic',
    }),
  tlsSecret: z.string().min(1).max(253).meta({
    description:
      'Secret with `tls.crt`, `tls.key` (client certificate with the right to the prefix of this cluster) and `ca.crt`.',
  }),
});
export type Etcd = z.infer<typeof Etcd>;

export const Security = z.object({
  runAsUser: z
    .int()
    .min(1)
    .max(65535)
    .default(999)
    .meta({ description: 'User id of Postgres; must exist in the image. 999 in the official images.' }),
  runAsGroup: z
    .int()
    .min(1)
    .max(65535)
    .default(999)
    .meta({ description: 'Group id of Postgres and of its files. 999 in the official images.' }),
});
export type Security = z.infer<typeof Security>;

export const PodMetadata = z.object({
  labels: stringMap(
    'Labels to add. Those below `koschei.dev/` and `app.kubernetes.io/name`, `managed-by` and `component` are taken.',
    [
      {
        rule: `self.all(key, !key.startsWith('${group}/') && !(key in [${reservedLabels.map((each) => `'${each}'`).join(', ')}]))`,
        message: 'labels of Koschei cannot be set: Services and the operator find the pods by them',
      },
    ],
  ),
  annotations: stringMap('Annotations to add.'),
});
export type PodMetadata = z.infer<typeof PodMetadata>;

export const imagePullSecrets = z
  .array(
    z.object({
      name: z.string().min(1).max(253).meta({ description: 'Name of a Secret in this namespace.' }),
    }),
  )
  .max(16)
  .optional()
  .meta({ description: 'Secrets for pulling images.', 'x-kubernetes-list-type': 'atomic' });

export const imagePullPolicy = z
  .enum(['Always', 'IfNotPresent', 'Never'])
  .optional()
  .meta({ description: 'When images are pulled; as Kubernetes decides by the tag if left out.' });

export const LogLevel = z.enum(['debug', 'info', 'warn']);
export type LogLevel = z.infer<typeof LogLevel>;
export const logLevel = LogLevel.default('info').meta({ description: 'How much the agents log.' });

export const PostgresVersion = z.int().min(15).max(18);

/** Metadata of a resource as far as we read it; the rest is kept. */
export const ObjectMeta = z.looseObject({
  name: z.string(),
  namespace: z.string(),
  uid: z.string(),
  resourceVersion: z.string().optional(),
  generation: z.int().optional(),
  creationTimestamp: z.string().optional(),
  deletionTimestamp: z.string().optional(),
  labels: z.record(z.string(), z.string()).optional(),
  annotations: z.record(z.string(), z.string()).optional(),
  finalizers: z.array(z.string()).optional(),
});
export type ObjectMeta = z.infer<typeof ObjectMeta>;
