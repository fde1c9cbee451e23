import {
  agentAccountName,
  appSecretName,
  clusterSelector,
  dataClaimName,
  instanceLabels,
  label,
  path,
  port,
  replicationTlsSecretName,
  serverTlsSecretName,
  walClaimName,
} from '../../../api/names.ts';
import type { PgInstance } from '../../../api/pginstance.ts';
import type { StatefulSet } from '../../../kube/index.ts';
import { componentLabel } from '../../labels.ts';

/** What the pods of the init Job and of the StatefulSet have in common, and in what they differ. */
export interface PodOptions {
  readonly instance: PgInstance;
  readonly endpointSliceApi: string;
  /** `init` fills the volume; `run` runs the instance. */
  readonly purpose:
    | { readonly do: 'run'; readonly logLevel: 'debug' | 'info' | 'warn' }
    | { readonly do: 'init'; readonly mode: 'initdb' | 'clone' };
}

export type PodTemplate = NonNullable<StatefulSet['spec']>['template'];
type Container = NonNullable<PodTemplate['spec']>['containers'][number];
type EnvVar = NonNullable<Container['env']>[number];
type Affinity = NonNullable<NonNullable<PodTemplate['spec']>['affinity']>;

/** Where the operator's image keeps what the init container copies into the pod. */
export const programsSource = '/opt/koschei';
const programs = ['node', 'agent', 'proto', 'koschei-init'];

/** Secrets are readable for owner and group: libpq and Postgres refuse keys that others may read. */
const secretMode = 0o440;

/**
 * The pod of an instance, or of its init Job: same volumes, node choice and security, so that a volume which is bound
 * to a node by the Job suits the StatefulSet. It satisfies the Pod Security Standard "restricted".
 */
export function podTemplate(options: PodOptions): PodTemplate {
  const { instance, purpose } = options;
  const { spec } = instance;
  const name = instance.metadata.name;
  const run = purpose.do === 'run';
  const own = instanceLabels(spec.cluster, spec.clusterId, name);
  const annotations = spec.podMetadata?.annotations;
  const mounts = volumeMounts(instance);
  const shared = {
    securityContext: {
      allowPrivilegeEscalation: false,
      readOnlyRootFilesystem: true,
      capabilities: { drop: ['ALL'] },
    },
    ...(spec.imagePullPolicy === undefined ? {} : { imagePullPolicy: spec.imagePullPolicy }),
    // Both containers, because a pod is "guaranteed" only when all of its containers are.
    ...(spec.resources === undefined ? {} : { resources: spec.resources as Container['resources'] & object }),
  };
  return {
    metadata: {
      labels: {
        ...spec.podMetadata?.labels,
        ...own,
        [componentLabel]: run ? 'postgres' : 'init',
      },
      ...(annotations === undefined ? {} : { annotations }),
    },
    spec: {
      initContainers: [
        {
          name: 'programs',
          image: spec.agentImage,
          command: ['cp', '-r', ...programs.map((each) => `${programsSource}/${each}`), path.programs],
          volumeMounts: [{ name: 'programs', mountPath: path.programs }],
          ...shared,
        },
      ],
      containers: [
        {
          name: run ? 'postgres' : 'init',
          image: spec.postgres.image,
          command: run
            ? [`${path.programs}/koschei-init`, '--lock', path.lock, '--', ...agent('run')]
            : agent('init'),
          env: environment(options),
          volumeMounts: mounts,
          terminationMessagePolicy: 'FallbackToLogsOnError',
          ...shared,
          ...(run ? serving() : {}),
        },
      ],
      volumes: volumes(instance),
      serviceAccountName: agentAccountName(spec.cluster),
      automountServiceAccountToken: run,
      enableServiceLinks: false,
      restartPolicy: run ? 'Always' : 'Never',
      // A primary hands over and checkpoints first.
      terminationGracePeriodSeconds: run ? 60 : 10,
      securityContext: {
        runAsNonRoot: true,
        runAsUser: spec.security.runAsUser,
        runAsGroup: spec.security.runAsGroup,
        fsGroup: spec.security.runAsGroup,
        fsGroupChangePolicy: 'OnRootMismatch',
        seccompProfile: { type: 'RuntimeDefault' },
      },
      dnsConfig: {
        options: [
          { name: 'timeout', value: '1' },
          { name: 'attempts', value: '2' },
        ],
      },
      ...placement(instance),
      ...(spec.imagePullSecrets === undefined ? {} : { imagePullSecrets: spec.imagePullSecrets }),
    },
  };
}

const agent = (command: 'run' | 'init'): string[] => [
  `${path.programs}/node`,
  `${path.programs}/agent/main.mjs`,
  command,
];

function serving(): Partial<Container> {
  const probe = (route: string) => ({
    httpGet: { path: route, port: port.agent, scheme: 'HTTPS' },
    timeoutSeconds: 2,
    successThreshold: 1,
  });
  return {
    ports: [
      { name: 'postgres', containerPort: port.postgres, protocol: 'TCP' },
      { name: 'agent', containerPort: port.agent, protocol: 'TCP' },
    ],
    // The agent is alive as soon as its loop runs: a database that recovers for hours does not count as dead.
    startupProbe: { ...probe('/livez'), periodSeconds: 1, failureThreshold: 120 },
    livenessProbe: { ...probe('/livez'), periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6 },
    readinessProbe: { ...probe('/readyz'), periodSeconds: 1, failureThreshold: 2 },
  };
}

function environment({ instance, endpointSliceApi, purpose }: PodOptions): EnvVar[] {
  const { spec } = instance;
  const value = (name: string, text: string): EnvVar => ({ name, value: text });
  const field = (name: string, fieldPath: string): EnvVar => ({
    name,
    valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath } },
  });
  const memoryLimit = spec.resources?.limits?.memory ?? spec.resources?.requests?.memory;
  return [
    field('KOSCHEI_NAMESPACE', 'metadata.namespace'),
    value('KOSCHEI_CLUSTER', spec.cluster),
    value('KOSCHEI_CLUSTER_ID', spec.clusterId),
    value('KOSCHEI_INSTANCE', instance.metadata.name),
    field('KOSCHEI_POD_NAME', 'metadata.name'),
    field('KOSCHEI_POD_UID', 'metadata.uid'),
    field('KOSCHEI_POD_IP', 'status.podIP'),
    field('KOSCHEI_NODE_NAME', 'spec.nodeName'),
    value('KOSCHEI_ETCD_ENDPOINTS', spec.etcd.endpoints.join(',')),
    value('KOSCHEI_POSTGRES_VERSION', String(spec.postgres.version)),
    value('KOSCHEI_ENDPOINTSLICE_API', endpointSliceApi),
    value('KOSCHEI_LOG_LEVEL', purpose.do === 'run' ? purpose.logLevel : spec.logLevel),
    ...(spec.storage.wal === undefined ? [] : [value('KOSCHEI_WAL_VOLUME', path.wal)]),
    ...(memoryLimit === undefined
      ? []
      : [
          {
            name: 'KOSCHEI_MEMORY_BYTES',
            valueFrom: {
              resourceFieldRef: {
                resource: spec.resources?.limits?.memory === undefined ? 'requests.memory' : 'limits.memory',
                divisor: '1',
              },
            },
          },
        ]),
    ...(purpose.do === 'init' ? [value('KOSCHEI_INIT_MODE', purpose.mode)] : []),
    ...(purpose.do === 'init' && purpose.mode === 'initdb'
      ? [
          {
            name: 'KOSCHEI_APP_PASSWORD',
            valueFrom: { secretKeyRef: { name: appSecretName(spec.cluster), key: 'password' } },
          },
        ]
      : []),
  ];
}

function volumeMounts({ spec }: PgInstance): NonNullable<Container['volumeMounts']> {
  return [
    { name: 'data', mountPath: path.data },
    ...(spec.storage.wal === undefined ? [] : [{ name: 'wal', mountPath: path.wal }]),
    { name: 'programs', mountPath: path.programs, readOnly: true },
    { name: 'sockets', mountPath: path.sockets },
    { name: 'tmp', mountPath: '/tmp' },
    { name: 'shared-memory', mountPath: '/dev/shm' },
    { name: 'server-tls', mountPath: path.serverTls, readOnly: true },
    { name: 'replication-tls', mountPath: path.replicationTls, readOnly: true },
    { name: 'etcd-tls', mountPath: path.etcdTls, readOnly: true },
  ];
}

function volumes({
  metadata: { name },
  spec,
}: PgInstance): NonNullable<NonNullable<PodTemplate['spec']>['volumes']> {
  const secret = (volume: string, secretName: string) => ({
    name: volume,
    secret: { secretName, defaultMode: secretMode },
  });
  return [
    { name: 'data', persistentVolumeClaim: { claimName: dataClaimName(name) } },
    ...(spec.storage.wal === undefined
      ? []
      : [{ name: 'wal', persistentVolumeClaim: { claimName: walClaimName(name) } }]),
    { name: 'programs', emptyDir: {} },
    { name: 'sockets', emptyDir: {} },
    { name: 'tmp', emptyDir: {} },
    // Shared memory of parallel queries; it counts towards the container's memory limit.
    { name: 'shared-memory', emptyDir: { medium: 'Memory' } },
    secret('server-tls', serverTlsSecretName(spec.cluster)),
    secret('replication-tls', replicationTlsSecretName(spec.cluster)),
    secret('etcd-tls', spec.etcd.tlsSecret),
  ];
}

function placement({ spec }: PgInstance): Partial<NonNullable<PodTemplate['spec']>> {
  const { placement: wanted } = spec;
  // Pods of init Jobs count, too: they decide where the volume will be.
  const labelSelector = { matchLabels: clusterSelector(spec.cluster) };
  const term = { labelSelector, topologyKey: 'kubernetes.io/hostname' };
  const podAntiAffinity: Affinity['podAntiAffinity'] & object =
    wanted?.antiAffinity === 'required'
      ? { requiredDuringSchedulingIgnoredDuringExecution: [term] }
      : { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 100, podAffinityTerm: term }] };
  return {
    affinity: { podAntiAffinity },
    ...(wanted?.nodeSelector === undefined ? {} : { nodeSelector: wanted.nodeSelector }),
    ...(wanted?.tolerations === undefined
      ? {}
      : { tolerations: wanted.tolerations as NonNullable<NonNullable<PodTemplate['spec']>['tolerations']> }),
    ...(wanted?.topologySpreadConstraints === undefined
      ? {}
      : {
          topologySpreadConstraints: wanted.topologySpreadConstraints.map((constraint) => ({
            ...constraint,
            labelSelector,
          })),
        }),
    ...(wanted?.priorityClassName === undefined ? {} : { priorityClassName: wanted.priorityClassName }),
  };
}

/** The label that the API server's scheduler and Services find an instance's pod by. */
export const instanceSelector = (instance: PgInstance): Record<string, string> => ({
  [label.cluster]: instance.spec.cluster,
  [label.instance]: instance.metadata.name,
  [componentLabel]: 'postgres',
});
