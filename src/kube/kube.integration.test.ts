import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pino } from 'pino';
import { Registry } from 'prom-client';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import {
  ApiError,
  type ConfigMap,
  Controller,
  CredentialsError,
  chooseApis,
  createAgentKubeClient,
  createKubeconfigClient,
  discover,
  Elector,
  EventRecorder,
  isAlreadyExists,
  isConflict,
  isForbidden,
  isGone,
  isInvalid,
  isNotFound,
  type KubeClient,
  type KubeClientOptions,
  KubeMetrics,
  type KubeObject,
  Manager,
  NoAnswerError,
  needsApply,
  type Reflector,
  type RequestInfo,
  type Resource,
  reflect,
  resources,
  withAppliedHash,
} from './index.ts';
import { type ApiServer, startApiServer } from './testing/apiserver.ts';
import { eventually } from './testing/eventually.ts';

const log = pino({ level: 'silent' });
let server: ApiServer;
let client: KubeClient;
let namespaces = 0;

beforeAll(async () => {
  server = await startApiServer();
  client = server.client();
});
afterAll(async () => {
  await client?.close();
  await server?.stop();
});

/** A namespace of the test's own. */
async function newNamespace(): Promise<string> {
  namespaces += 1;
  const name = `test-${namespaces}`;
  await client.create(resources.namespaces, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } });
  return name;
}

const configMap = (
  namespace: string,
  name: string,
  data: Record<string, string> = {},
  labels: Record<string, string> = {},
): ConfigMap => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { namespace, name, labels }, data });

const caught = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

function started<T extends KubeObject>(reflector: Reflector<T>): Reflector<T> {
  reflector.start();
  onTestFinished(() => reflector.stop());
  return reflector;
}

describe('objects', () => {
  it('are created, read, replaced, patched and deleted', async () => {
    const namespace = await newNamespace();
    const ref = { namespace, name: 'a' };
    const created = await client.create(resources.configMaps, configMap(namespace, 'a', { x: '1' }));
    expect(created.metadata.uid).toMatch(/^[0-9a-f-]{36}$/);
    expect(isAlreadyExists(await caught(client.create(resources.configMaps, created)))).toBe(false);
    expect(
      isAlreadyExists(await caught(client.create(resources.configMaps, configMap(namespace, 'a')))),
    ).toBe(true);

    const updated = await client.update(resources.configMaps, { ...created, data: { x: '2' } } as ConfigMap);
    const stale = await caught(client.update(resources.configMaps, created));
    expect(isConflict(stale)).toBe(true);
    expect(isAlreadyExists(stale)).toBe(false);
    expect(updated.data).toEqual({ x: '2' });

    await client.mergePatch(resources.configMaps, ref, { data: { y: '3', x: null } });
    expect((await client.get(resources.configMaps, ref)).data).toEqual({ y: '3' });
    const failedTest = await caught(
      client.jsonPatch(resources.configMaps, ref, [
        { op: 'test', path: '/data/y', value: 'other' },
        { op: 'remove', path: '/data/y' },
      ]),
    );
    expect(isInvalid(failedTest)).toBe(true);
    await client.jsonPatch(resources.configMaps, ref, [{ op: 'add', path: '/data/z', value: '4' }]);
    expect((await client.get(resources.configMaps, ref)).data).toEqual({ y: '3', z: '4' });

    const other = { uid: '00000000-0000-0000-0000-000000000000' };
    expect(isConflict(await caught(client.remove(resources.configMaps, ref, other)))).toBe(true);
    const { uid = '' } = created.metadata;
    expect(await client.remove(resources.configMaps, ref, { uid })).toBe(true);
    expect(await client.remove(resources.configMaps, ref)).toBe(false);
    expect(await client.find(resources.configMaps, ref)).toBeUndefined();
    expect(isNotFound(await caught(client.get(resources.configMaps, ref)))).toBe(true);
  });

  it('are listed over several pages, by label, with kind and apiVersion', async () => {
    const namespace = await newNamespace();
    for (let i = 0; i < 7; i += 1) {
      const labels = { parity: i % 2 === 0 ? 'even' : 'odd' };
      await client.create(resources.configMaps, configMap(namespace, `c${i}`, {}, labels));
    }
    const all = await client.list(resources.configMaps, { namespace, pageSize: 3 });
    expect(all.items.map((item) => item.metadata.name)).toEqual(['c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6']);
    expect(all.items[0]).toMatchObject({ apiVersion: 'v1', kind: 'ConfigMap' });
    const odd = await client.list(resources.configMaps, { namespace, labelSelector: { parity: 'odd' } });
    expect(odd.items).toHaveLength(3);
    const named = await client.list(resources.configMaps, { namespace, fieldSelector: 'metadata.name=c4' });
    expect(named.items).toHaveLength(1);
    const everywhere = await client.list(resources.configMaps);
    expect(everywhere.items.length).toBeGreaterThanOrEqual(7);
  });

  it('are only checked in a dry run', async () => {
    const namespace = await newNamespace();
    await client.create(resources.configMaps, configMap(namespace, 'a'), { dryRun: true });
    expect(await client.find(resources.configMaps, { namespace, name: 'a' })).toBeUndefined();
  });
});

describe('server-side apply', () => {
  it('creates, changes, gives up what is left out and leaves the rest alone', async () => {
    const namespace = await newNamespace();
    await client.apply(resources.configMaps, configMap(namespace, 'a', { ours: '1', gone: '1' }));
    await client.mergePatch(resources.configMaps, { namespace, name: 'a' }, { data: { theirs: '1' } });
    const applied = await client.apply(resources.configMaps, configMap(namespace, 'a', { ours: '2' }));
    expect(applied.data).toEqual({ ours: '2', theirs: '1' });
  });

  it('conflicts with another manager unless forced', async () => {
    const namespace = await newNamespace();
    await client.apply(resources.configMaps, configMap(namespace, 'a', { x: 'person' }), {
      fieldManager: 'kubectl',
    });
    const mine = configMap(namespace, 'a', { x: 'mine' });
    const error = await caught(client.apply(resources.configMaps, mine));
    expect(isConflict(error)).toBe(true);
    expect(String(error)).toContain('kubectl');
    const forced = await client.apply(resources.configMaps, mine, { force: true });
    expect(forced.data).toEqual({ x: 'mine' });
  });

  it('writes the status apart from the rest, and never creates an object for it', async () => {
    const namespace = await newNamespace();
    const ref = { namespace, name: 'web' };
    const ports = [{ port: 80, protocol: 'TCP' }];
    const spec = { type: 'LoadBalancer', ports };
    await client.apply(resources.services, {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: ref },
      ...{ spec },
    });
    const status = { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } };
    await client.applyStatus(resources.services, ref, status);
    await client.patchStatus(resources.services, ref, { conditions: [] });
    const found = await client.get(resources.services, ref);
    expect(found.status?.loadBalancer).toEqual(status.loadBalancer);
    expect(found.spec?.ports?.[0]?.port).toBe(80);
    const { resourceVersion = '' } = found.metadata;
    await client.mergePatch(resources.services, ref, { metadata: { labels: { a: 'b' } } });
    const stale = await caught(client.patchStatus(resources.services, ref, status, { resourceVersion }));
    expect(isConflict(stale)).toBe(true);
    const missing = client.applyStatus(resources.statefulSets, { namespace, name: 'none' }, { replicas: 1 });
    expect(isNotFound(await caught(missing))).toBe(true);
  });
});

/** Applies as the operator does: only when the cached object shows that something would change. */
async function applyIfChanged<T extends KubeObject>(
  through: KubeClient,
  resource: Resource<T>,
  rendered: KubeObject,
  cached: T | undefined,
): Promise<{ outcome: 'unchanged' | 'applied'; object: T }> {
  const object = withAppliedHash(rendered);
  if (cached !== undefined && !needsApply(object, cached)) return { outcome: 'unchanged', object: cached };
  return { outcome: 'applied', object: await through.apply(resource, object, { force: true }) };
}

describe('what is applied', () => {
  const rendered = (namespace: string): [Resource, KubeObject & Record<string, unknown>][] => {
    const labels = { app: 'shop' };
    const metadata = { namespace, name: 'shop', labels };
    const container = {
      name: 'postgres',
      image: 'postgres:17',
      command: ['/koschei/koschei-init', '--'],
      env: [
        { name: 'EMPTY', value: '' },
        { name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
      ],
      ports: [{ name: 'postgres', containerPort: 5432, protocol: 'TCP' }],
      resources: { requests: { cpu: '0.5', memory: '1024Mi' }, limits: { memory: '1.5Gi' } },
      volumeMounts: [{ name: 'data', mountPath: '/data' }],
      readinessProbe: { httpGet: { path: '/ready', port: 8008, scheme: 'HTTPS' }, periodSeconds: 5 },
      securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } },
    };
    const template = {
      metadata: { labels },
      spec: {
        terminationGracePeriodSeconds: 60,
        containers: [container],
        tolerations: [],
        volumes: [
          { name: 'run', emptyDir: {} },
          { name: 'tmp', emptyDir: { sizeLimit: '1024Ki' } },
        ],
      },
    };
    const claim = {
      metadata: { name: 'data' },
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '2048Mi' } } },
    };
    const rule = { apiGroups: [''], resources: ['pods'], verbs: ['get'] };
    const objects: [Resource, object][] = [
      [resources.configMaps, { data: { a: 'b' } }],
      [resources.secrets, { type: 'Opaque', data: { password: 'aHVudGVy' } }],
      [resources.serviceAccounts, {}],
      [resources.roles, { rules: [rule, { ...rule, resources: ['secrets'], resourceNames: ['x'] }] }],
      [
        resources.roleBindings,
        {
          roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'shop' },
          subjects: [{ kind: 'ServiceAccount', name: 'shop', namespace }],
        },
      ],
      [
        resources.services,
        {
          spec: {
            ...{ clusterIP: 'None', publishNotReadyAddresses: true, selector: labels },
            ports: [{ name: 'postgres', port: 5432, targetPort: 5432, protocol: 'TCP' }],
          },
        },
      ],
      [resources.persistentVolumeClaims, { spec: claim.spec }],
      [
        resources.statefulSets,
        {
          spec: {
            ...{ replicas: 1, serviceName: 'shop', selector: { matchLabels: labels } },
            ...{ template, volumeClaimTemplates: [claim] },
          },
        },
      ],
      [
        resources.jobs,
        {
          spec: {
            backoffLimit: 0,
            template: { spec: { restartPolicy: 'Never', containers: [{ name: 'a', image: 'b' }] } },
          },
        },
      ],
      [
        { ...resources.podDisruptionBudgets, version: 'v1beta1' },
        { spec: { maxUnavailable: 1, selector: { matchLabels: labels } } },
      ],
      [
        { ...resources.endpointSlices, version: 'v1beta1' },
        {
          addressType: 'IPv4',
          endpoints: [{ addresses: ['10.0.0.1'], conditions: { ready: true } }],
          ports: [{ name: 'postgres', port: 5432, protocol: 'TCP' }],
        },
      ],
    ];
    return objects.map(([resource, content]) => [
      resource,
      {
        apiVersion: resource.group === '' ? resource.version : `${resource.group}/${resource.version}`,
        kind: resource.kind,
        metadata,
        ...content,
      },
    ]);
  };

  it('writes every kind of object once, and then nothing until something differs', async () => {
    const namespace = await newNamespace();
    const writes: string[] = [];
    const counting = server.client({
      onRequest: ({ verb, resource }) => {
        if (!['get', 'list', 'watch'].includes(verb)) writes.push(`${verb} ${resource}`);
      },
    });
    onTestFinished(() => counting.close());
    for (const [resource, object] of rendered(namespace)) {
      const first = await applyIfChanged(counting, resource, object, undefined);
      expect(first.outcome).toBe('applied');
      const read = await counting.get(resource, object.metadata);
      const second = await applyIfChanged(counting, resource, object, read);
      expect(`${resource.kind} ${second.outcome}`).toBe(`${resource.kind} unchanged`);
    }
    expect(writes).toHaveLength(rendered(namespace).length);
  });

  it('repairs what somebody changed, and leaves alone what somebody added', async () => {
    const namespace = await newNamespace();
    const ref = { namespace, name: 'a' };
    const object = configMap(namespace, 'a', { x: '1' });
    await applyIfChanged(client, resources.configMaps, object, undefined);
    const added = await client.mergePatch(resources.configMaps, ref, {
      metadata: { labels: { team: 'blue' } },
    });
    expect((await applyIfChanged(client, resources.configMaps, object, added)).outcome).toBe('unchanged');
    const changed = await client.mergePatch(resources.configMaps, ref, { data: { x: '2' } });
    const repaired = await applyIfChanged(client, resources.configMaps, object, changed);
    expect(repaired.outcome).toBe('applied');
    expect(repaired.object).toMatchObject({ data: { x: '1' }, metadata: { labels: { team: 'blue' } } });
    const less = configMap(namespace, 'a', {});
    const emptied = await applyIfChanged(client, resources.configMaps, less, repaired.object);
    expect(emptied.object.data).toBeUndefined();
  });
});

describe('the client', () => {
  it('gives up at its deadline when the server hangs, and works on when it wakes', async () => {
    const namespace = await newNamespace();
    server.signal('SIGSTOP');
    try {
      const startedAt = performance.now();
      const error = await caught(client.get(resources.namespaces, { name: namespace }, { timeoutMs: 500 }));
      expect(performance.now() - startedAt).toBeLessThan(2_000);
      expect(error).toBeInstanceOf(NoAnswerError);
      expect(error).toMatchObject({ timedOut: true });
    } finally {
      server.signal('SIGCONT');
    }
    expect((await client.get(resources.namespaces, { name: namespace })).metadata.name).toBe(namespace);
  });

  it('throws what the caller aborted with', async () => {
    const stop = new AbortController();
    const reason = new Error('not needed any more');
    server.signal('SIGSTOP');
    try {
      const pending = caught(client.list(resources.pods, { signal: stop.signal }));
      stop.abort(reason);
      expect(await pending).toBe(reason);
    } finally {
      server.signal('SIGCONT');
    }
  });

  it('says what is forbidden', async () => {
    const restricted = server.clientWithToken(server.restrictedToken);
    onTestFinished(() => restricted.close());
    const error = await caught(restricted.list(resources.secrets, { namespace: 'default' }));
    expect(isForbidden(error)).toBe(true);
    expect(String(error)).toContain('secrets');
  });

  it('has no trouble with a server that is not there', async () => {
    const connection = { server: 'https://127.0.0.1:1', tls: {}, headers: {} };
    const options: Partial<KubeClientOptions> = {
      credentials: { namespace: 'x', connection: async () => connection },
    };
    const lost = server.client(options);
    onTestFinished(() => lost.close());
    const error = await caught(lost.raw('/version'));
    expect(error).toBeInstanceOf(NoAnswerError);
    expect(String(error)).toContain('ECONNREFUSED');
  });

  it('uses a service account, and reads its token again when the server refuses it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'koschei-sa-'));
    onTestFinished(() => rm(dir, { recursive: true }));
    const { hostname, port } = new URL(server.url);
    const environment = { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port };
    const options = { fieldManager: 'koschei-agent', environment, serviceAccountDir: dir };
    expect(await caught(createAgentKubeClient(options))).toBeInstanceOf(CredentialsError);
    await writeFile(join(dir, 'namespace'), 'shop\n');
    await writeFile(join(dir, 'ca.crt'), server.ca);
    await writeFile(join(dir, 'token'), 'expired\n');
    const agent = await createAgentKubeClient(options);
    onTestFinished(() => agent.close());
    expect(agent.namespace).toBe('shop');
    expect(await caught(agent.raw('/apis'))).toMatchObject({ status: 401 });
    await writeFile(join(dir, 'token'), `${server.adminToken}\n`);
    expect(await agent.find(resources.namespaces, { name: 'default' })).toBeDefined();
  });

  it('uses a kubeconfig', async () => {
    const person = await createKubeconfigClient({ fieldManager: 'test', file: server.kubeconfig });
    onTestFinished(() => person.close());
    expect(await person.find(resources.namespaces, { name: 'default' })).toBeDefined();
    const wrong = createKubeconfigClient({ fieldManager: 'x', file: server.kubeconfig, context: 'other' });
    expect(String(await caught(wrong))).toContain('it has: test');
  });

  it('tells which APIs the server has', async () => {
    const chosen = chooseApis(await discover(client));
    expect(chosen.serverVersion.major).toBe(1);
    expect(chosen.groupVersions.has('coordination.k8s.io/v1')).toBe(true);
    if (chosen.serverVersion.minor === 20) {
      expect(chosen).toMatchObject({
        endpointSlice: 'discovery.k8s.io/v1beta1',
        podDisruptionBudget: 'policy/v1beta1',
        hasCelQuantities: false,
      });
    }
  });

  it('reports its requests', async () => {
    const seen: RequestInfo[] = [];
    const reporting = server.client({ onRequest: (request) => seen.push(request) });
    onTestFinished(() => reporting.close());
    await reporting.find(resources.pods, { namespace: 'default', name: 'none' });
    expect(seen).toMatchObject([{ verb: 'get', resource: 'pods', code: '404' }]);
  });
});

describe('a reflector', () => {
  const options = { log, inactivityMs: 60_000 };

  it('follows one namespace and label', async () => {
    const namespace = await newNamespace();
    const labels = { app: 'shop' };
    await client.create(resources.configMaps, configMap(namespace, 'a', {}, labels));
    const reflector = started(
      reflect(client, resources.configMaps, { ...options, namespace, labelSelector: labels }),
    );
    await reflector.synced;
    expect([...reflector.store.keys()]).toEqual([`${namespace}/a`]);
    expect(reflector.store.get(`${namespace}/a`)?.metadata).not.toHaveProperty('managedFields');
    await client.create(resources.configMaps, configMap(namespace, 'b', {}, labels));
    await client.create(resources.configMaps, configMap(namespace, 'c'));
    await eventually('b is seen', () => reflector.store.get(`${namespace}/b`) !== undefined);
    // An object that loses the label is gone for this cache.
    await client.mergePatch(
      resources.configMaps,
      { namespace, name: 'a' },
      { metadata: { labels: { app: 'x' } } },
    );
    await client.remove(resources.configMaps, { namespace, name: 'b' });
    await eventually('a and b are gone', () => reflector.store.size === 0);
  });

  it('misses nothing while the server is killed and started again under writes', {
    timeout: 300_000,
  }, async () => {
    const namespace = await newNamespace();
    const seen = new Set<string>();
    const reflector = started(reflect(client, resources.configMaps, { ...options, namespace }));
    reflector.subscribe((change) => seen.add(`${change.type} ${change.key}`));
    await reflector.synced;
    let writing = true;
    const written: string[] = [];
    const writer = (async () => {
      for (let i = 0; writing; i += 1) {
        const name = `w${i}`;
        // As a writer that does not know whether a write took effect: try until it exists.
        await eventually(`${name} exists`, async () => {
          const error = await caught(client.create(resources.configMaps, configMap(namespace, name)));
          return error === undefined || isAlreadyExists(error);
        });
        written.push(`${namespace}/${name}`);
        if (i % 3 === 0) await caught(client.remove(resources.configMaps, { namespace, name }));
      }
    })();
    for (let round = 0; round < 2; round += 1) {
      await eventually('some are written', () => written.length > 20 * (round + 1));
      await server.kill();
      await server.restart();
    }
    await eventually('more are written', () => written.length > 80);
    writing = false;
    await writer;
    const { items } = await client.list(resources.configMaps, { namespace });
    const expected = items.map((item) => `${item.metadata.namespace}/${item.metadata.name}`).sort();
    await eventually(
      'the cache is what the server has',
      () => JSON.stringify([...reflector.store.keys()].sort()) === JSON.stringify(expected),
    );
    expect(expected.filter((key) => !seen.has(`set ${key}`))).toEqual([]);
    for (const key of written) {
      const reported = !seen.has(`set ${key}`) || expected.includes(key) || seen.has(`delete ${key}`);
      expect(reported, `${key} was seen, is gone, and its deletion was not reported`).toBe(true);
    }
  });

  it('lists again when the server has forgotten its version, and reports what was deleted meanwhile', async () => {
    const namespace = await newNamespace();
    for (const name of ['kept', 'lost']) {
      await client.create(resources.configMaps, configMap(namespace, name));
    }
    const before = await client.list(resources.configMaps, { namespace });
    const changes: string[] = [];
    const metrics = new KubeMetrics(new Registry());
    const reflector = started(reflect(client, resources.configMaps, { ...options, namespace, metrics }));
    reflector.subscribe((change) => changes.push(`${change.type} ${change.key}`));
    await reflector.synced;
    await server.kill();
    const deleted = await etcd('kv/deleterange', {
      key: base64(`/registry/configmaps/${namespace}/lost`),
    });
    const { revision } = (deleted as { header: { revision: string } }).header;
    await etcd('kv/compaction', { revision, physical: true });
    await server.restart();

    const watch = { namespace, resourceVersion: before.resourceVersion, timeoutSeconds: 5 };
    const old = async () => {
      const signal = new AbortController().signal;
      const events = await client.watch(resources.configMaps, { ...watch, signal, inactivityMs: 5_000 });
      for await (const event of events) return event;
      return undefined;
    };
    expect(isGone(await caught(old()))).toBe(true);
    await eventually('the deletion is reported', () => changes.includes(`delete ${namespace}/lost`));
    expect([...reflector.store.keys()]).toEqual([`${namespace}/kept`]);
    expect((await metrics.cacheRelists.get()).values[0]?.value).toBe(2);
  });

  it('leaves a silent stream and goes on when the server wakes', async () => {
    const namespace = await newNamespace();
    const hasty = server.client({ timeoutMs: 1_000 });
    onTestFinished(() => hasty.close());
    const reflector = started(reflect(hasty, resources.configMaps, { log, namespace, inactivityMs: 1_000 }));
    await reflector.synced;
    server.signal('SIGSTOP');
    try {
      await eventually('nothing was heard for 3 s', () => reflector.silentMs > 3_000);
      expect(reflector.stuckMs).toBeLessThan(3_000);
    } finally {
      server.signal('SIGCONT');
    }
    await eventually('it is heard of again', () => reflector.silentMs < 1_000);
    await client.create(resources.configMaps, configMap(namespace, 'after'));
    await eventually('the event arrives', () => reflector.store.size === 1);
  });
});

const base64 = (text: string): string => Buffer.from(text).toString('base64');

async function etcd(call: string, body: object): Promise<unknown> {
  const response = await fetch(`${server.etcdUrl}/v3/${call}`, {
    method: 'POST',
    body: JSON.stringify(body),
  });
  expect(response.status).toBe(200);
  return await response.json();
}

describe('an election', () => {
  const timing = { leaseMs: 8_000, renewDeadlineMs: 5_000, retryMs: 400 };
  const elector = (identity: string, namespace: string, by: KubeClient = client): Elector => {
    const one = new Elector({ client: by, namespace, name: 'operator', identity, log, timing });
    one.start();
    onTestFinished(() => one.release());
    return one;
  };
  const holder = async (namespace: string): Promise<string | undefined> =>
    (await client.find(resources.leases, { namespace, name: 'operator' }))?.spec?.holderIdentity;

  it('has one winner; the next one follows at once when the lease is given up', async () => {
    const namespace = await newNamespace();
    const a = elector('a', namespace);
    await a.acquired;
    const b = elector('b', namespace);
    await eventually('a has renewed', async () => {
      const lease = await client.get(resources.leases, { namespace, name: 'operator' });
      return lease.spec?.renewTime !== lease.spec?.acquireTime;
    });
    expect([a.isLeader, b.isLeader, await holder(namespace)]).toEqual([true, false, 'a']);
    const releasedAt = performance.now();
    await a.release();
    expect(a.isLeader).toBe(false);
    await b.acquired;
    expect(performance.now() - releasedAt).toBeLessThan(5_000);
    const lease = await client.get(resources.leases, { namespace, name: 'operator' });
    expect(lease.spec).toMatchObject({ holderIdentity: 'b', leaseTransitions: 1 });
  });

  it('a leader that cannot reach the server stops before the next one starts', async () => {
    const namespace = await newNamespace();
    let cutOff = false;
    const { url, ca, adminToken } = server;
    const connection = { server: url, tls: { ca }, headers: { authorization: `Bearer ${adminToken}` } };
    const cut = server.client({
      credentials: {
        namespace: 'default',
        connection: () => (cutOff ? new Promise(() => {}) : Promise.resolve(connection)),
      },
    });
    onTestFinished(() => cut.close());
    const a = elector('a', namespace, cut);
    await a.acquired;
    const b = elector('b', namespace);
    cutOff = true;
    const order = await Promise.all([
      a.lost.then((error) => ({ at: performance.now(), error })),
      b.acquired.then(() => ({ at: performance.now(), leaderA: a.isLeader })),
    ]);
    expect(order[0].error.name).toBe('LeadershipLostError');
    expect(order[0].at).toBeLessThan(order[1].at);
    expect(order[1].leaderA).toBe(false);
    expect(await holder(namespace)).toBe('b');
  });

  it('a leader whose lease somebody took stops', async () => {
    const namespace = await newNamespace();
    const a = elector('a', namespace);
    await a.acquired;
    await client.mergePatch(
      resources.leases,
      { namespace, name: 'operator' },
      { spec: { holderIdentity: 'thief' } },
    );
    expect((await a.lost).message).toContain('thief');
  });
});

it('events are written once, and repeats are only counted', async () => {
  const namespace = await newNamespace();
  const object = await client.create(resources.configMaps, configMap(namespace, 'a'));
  const recorder = new EventRecorder({ client, component: 'koschei-operator', instance: 'op-1', log });
  for (let i = 0; i < 3; i += 1) {
    recorder.record(object, { type: 'Normal', reason: 'FailedOver', message: 'shop-2 is the primary' });
  }
  for (let i = 0; i < 100; i += 1)
    recorder.record(object, { type: 'Warning', reason: 'Loop', message: `${i}` });
  await recorder.flush();
  const { items } = await client.list(resources.events, { namespace });
  expect(items.filter((event) => event.reason === 'FailedOver')).toMatchObject([
    {
      type: 'Normal',
      message: 'shop-2 is the primary',
      involvedObject: { kind: 'ConfigMap', name: 'a', uid: object.metadata.uid },
      source: { component: 'koschei-operator' },
    },
  ]);
  // However many Warnings there are, there is room for other news.
  expect(items).toHaveLength(1 + 25);
});

it('a manager runs a controller that brings objects to what they should be, and then writes nothing', async () => {
  const namespace = await newNamespace();
  const registry = new Registry();
  const metrics = new KubeMetrics(registry);
  const writes: string[] = [];
  const operator = server.client({
    onRequest: (request) => {
      metrics.onRequest(request);
      const { verb, resource } = request;
      if (!['get', 'list', 'watch'].includes(verb) && resource !== 'leases') writes.push(verb);
    },
  });
  const sources = reflect(operator, resources.configMaps, { log, namespace, metrics });
  const secrets = reflect(operator, resources.secrets, { log, namespace, metrics });
  // Copies every ConfigMap into a Secret of the same name.
  const controller = new Controller({
    name: 'copies',
    log,
    metrics,
    reconcile: async ({ name }) => {
      const source = sources.store.get(`${namespace}/${name}`);
      if (source === undefined) {
        await operator.remove(resources.secrets, { namespace, name });
        return {};
      }
      const data = Object.fromEntries(
        Object.entries(source.data ?? {}).map(([key, value]) => [key, base64(String(value))]),
      );
      const copy = { apiVersion: 'v1', kind: 'Secret', metadata: { namespace, name }, data };
      await applyIfChanged(operator, resources.secrets, copy, secrets.store.get(`${namespace}/${name}`));
      return {};
    },
  });
  sources.subscribe((change) => controller.enqueue(change.key));
  secrets.subscribe((change) => controller.enqueue(change.key));
  const elector = new Elector({ client: operator, namespace, name: 'copies', identity: 'one', log, metrics });
  const manager = new Manager({
    ...{ log, registry, elector, sources: [sources, secrets], workers: [controller] },
    http: { host: '127.0.0.1', port: 0 },
    close: () => operator.close(),
  });
  const stop = new AbortController();
  const running = manager.run(stop.signal);
  await client.create(resources.configMaps, configMap(namespace, 'a', { x: '1' }));
  const copied = (value: string) => async () =>
    (await client.find(resources.secrets, { namespace, name: 'a' }))?.data?.x === base64(value);
  await eventually('a is copied', copied('1'));
  await client.mergePatch(resources.secrets, { namespace, name: 'a' }, { data: { x: base64('tampered') } });
  await eventually('the copy is repaired', copied('1'));

  // The cache catches up with the last write, everything is reconciled once more, and nothing is written.
  await eventually('the cache has the repaired copy', () => {
    return secrets.store.get(`${namespace}/a`)?.data?.x === base64('1') && controller.backlog === 0;
  });
  const writesBefore = writes.length;
  for (let i = 0; i < 10; i += 1) {
    controller.enqueue(`${namespace}/a`);
    await eventually('it is reconciled', () => controller.backlog === 0);
  }
  expect(writes.length).toBe(writesBefore);

  const scraped = await (await fetch(`http://127.0.0.1:${manager.port}/metrics`)).text();
  expect(scraped).toContain('koschei_leader 1');
  expect(scraped).toMatch(/koschei_cache_objects\{cache="configmaps"\} \d/);
  expect(scraped).toMatch(/koschei_reconcile_total\{controller="copies",result="success"\} \d+/);
  stop.abort();
  await running;
  const lease = await client.get(resources.leases, { namespace, name: 'copies' });
  expect(lease.spec?.holderIdentity).toBeUndefined();
});

it('errors carry what the API said', async () => {
  const error = await caught(client.create(resources.configMaps, configMap('no-such-namespace', 'a')));
  expect(error).toBeInstanceOf(ApiError);
  expect(error).toMatchObject({ status: 404, reason: 'NotFound' });
  expect(String(error)).toContain('no-such-namespace');
});
