import { execFile } from 'node:child_process';
import { mkdtemp, writeFile } from 'node:fs/promises';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  caKey,
  caSecretName,
  etcdTlsSecretName,
  instanceLabels,
  maxClusterNameLength,
  tlsKey,
} from '../api/names.ts';
import type { PgCluster } from '../api/pgcluster.ts';
import { clusterKeys, Etcd } from '../dcs/index.ts';
import { atVersion, resources, type Secret } from '../kube/index.ts';
import { eventually } from '../kube/testing/eventually.ts';
import { freePort } from '../kube/testing/free-ports.ts';
import { createAuthority, inspect, isIssuedBy, issueCertificate } from '../tls/certificates.ts';
import { read } from './cluster/desired/secrets.ts';
import { tlsData } from './etcd/managed.ts';
import { type SecureEtcd, secureEtcd } from './testing/processes.ts';
import { startWorld, type World } from './testing/world.ts';

const repository = join(import.meta.dirname, '../..');
/** An address of this machine that is not loopback, which a spec may not name. */
const ownAddress = (): string => {
  const found = Object.values(networkInterfaces()).flatMap((each) => each ?? []);
  const address = found.find(({ internal, family }) => !internal && family === 'IPv4')?.address;
  if (address === undefined) throw new Error('expected a network interface besides loopback, found none');
  return address;
};
let world: World;
let own: SecureEtcd | undefined;
beforeAll(async () => {
  world = await startWorld();
  await world.startOperator();
});
afterAll(async () => {
  await world?.stop();
  await own?.stop();
});

const small = { storage: { size: '1Gi' } };
const single = { ...small, replicas: { synchronous: 0, asynchronous: 0 } };
const day = 86_400_000;
const three = { ...small, replicas: { synchronous: 1, asynchronous: 2 } };
const phase = (wanted: string) => (cluster: PgCluster) => cluster.status?.phase === wanted;
const condition = (cluster: PgCluster, type: string) =>
  cluster.status?.conditions?.find((each) => each.type === type);
const settled = (cluster: PgCluster) =>
  cluster.status?.phase === 'Running' && cluster.status.observedGeneration === cluster.metadata.generation;
const secretOf = async (name: string, namespace = 'default'): Promise<Secret> =>
  await world.client.get(resources.secrets, { namespace, name });
const certificateOf = async (cluster: string, namespace: string) => {
  const secret = await secretOf(etcdTlsSecretName(cluster), namespace);
  const part = (name: string) => Buffer.from(read(secret, name) ?? '');
  return { cert: part(tlsKey.cert), key: part(tlsKey.key), ca: part(tlsKey.ca) };
};
/** etcd with the rights that the agents of a cluster have. */
const agentOf = async (cluster: string, namespace: string): Promise<Etcd> => {
  const tls = await certificateOf(cluster, namespace);
  return new Etcd({ endpoints: [world.etcdEndpoint], timeoutMs: 2_000, tls });
};
const podUids = async (cluster: string, namespace = 'default') => {
  const pods = await world.client.list(resources.pods, {
    namespace,
    labelSelector: { 'koschei.dev/cluster': cluster },
  });
  return new Map(pods.items.map(({ metadata }) => [metadata.name, metadata.uid]));
};
const annotate = async (name: string, annotations: Record<string, string>) => {
  const ref = { namespace: 'default', name };
  await world.client.mergePatch(resources.pgClusters, ref, { metadata: { annotations } });
};
const eventsOf = async (name: string, namespace = 'default') =>
  (await world.client.list(resources.events, { namespace })).items
    .filter((event) => event.involvedObject.name === name)
    .map((event) => event.reason);

describe('the life of a cluster', () => {
  it('takes a PgCluster to running instances, with everything that belongs to it', async () => {
    await world.apply('shop', three);
    const shop = await world.until('shop', 'shop runs', settled);
    expect(shop.status).toMatchObject({
      primary: 'shop-1',
      ready: '4/4',
      instances: 4,
      timeline: 1,
      term: 1,
      asynchronousReplicas: 2,
    });
    expect(shop.status?.synchronousStandbys).toHaveLength(1);
    expect(condition(shop, 'Ready')).toMatchObject({ status: 'True', reason: 'PrimaryReady' });
    expect(condition(shop, 'Degraded')).toMatchObject({ status: 'False' });
    expect(condition(shop, 'SynchronousReplication')).toMatchObject({ status: 'True', reason: 'InSync' });

    const app = await secretOf('shop-app');
    expect(read(app, 'host')).toBe('shop-rw.default.svc');
    expect(read(app, 'uri-multi-host')).toContain('shop-4-0.shop-pods.default.svc:5432/app?');
    expect(app.metadata.ownerReferences).toBeUndefined();
    expect(await secretOf(caSecretName('shop'))).toBeDefined();

    const namespace = 'default';
    const service = await world.client.get(resources.services, { namespace, name: 'shop-rw' });
    expect(service.spec?.selector).toBeUndefined();
    const role = await world.client.get(resources.roles, { namespace, name: 'shop-agent' });
    expect(role.rules?.map((rule) => rule.resourceNames)).toEqual([
      ['shop-rw-leader'],
      ['shop-1-0', 'shop-2-0', 'shop-3-0', 'shop-4-0'],
    ]);
    await eventually('the init Jobs are gone', async () => {
      const jobs = await world.client.list(resources.jobs, { namespace });
      return jobs.items.length === 0;
    });
  });

  it('knows its objects although another tool marks them as its own', async () => {
    const namespace = 'default';
    const secret = await secretOf('shop-app');
    const labels = { 'app.kubernetes.io/managed-by': 'Helm' };
    const slices = atVersion(resources.endpointSlices, 'discovery.k8s.io/v1beta1');
    for (const name of ['shop-app', 'shop-ca'])
      await world.client.mergePatch(resources.secrets, { namespace, name }, { metadata: { labels } });
    await world.client.mergePatch(slices, { namespace, name: 'shop-rw-leader' }, { metadata: { labels } });
    await eventually('the label of what is applied is restored', async () => {
      const { metadata } = await secretOf('shop-app');
      return metadata.labels?.['app.kubernetes.io/managed-by'] === 'koschei';
    });
    const now = await secretOf('shop-app');
    expect([now.metadata.uid, now.data]).toEqual([secret.metadata.uid, secret.data]);
    expect(condition(await world.cluster('shop'), 'Accepted')?.status).toBe('True');
    await eventually('the operator is at rest', async () => {
      const before = world.writes.length;
      await sleep(2_000);
      return world.writes.length === before;
    });
  });

  it('says so when an object of its own has lost the label that it is known by, and goes on when it is back', async () => {
    const ref = { namespace: 'default', name: 'shop-app' };
    const mark = (value: string | null) =>
      world.client.mergePatch(resources.secrets, ref, {
        metadata: { labels: { 'koschei.dev/cluster': value } },
      });
    const before = await secretOf('shop-app');
    await mark(null);
    const lost = await world.until('shop', 'it is said', (c) => condition(c, 'Accepted')?.status === 'False');
    expect(condition(lost, 'Accepted')).toMatchObject({ reason: 'NameTaken' });
    expect(condition(lost, 'Accepted')?.message).toContain('koschei.dev/cluster=shop');
    await mark('shop');
    await world.until('shop', 'all is well', (c) => condition(c, 'Accepted')?.status === 'True', {
      timeoutMs: 60_000,
    });
    expect((await secretOf('shop-app')).data).toEqual(before.data);
  });

  it('writes nothing while nothing changes, although the primary beats', async () => {
    // Whatever the last test set off has ended when there was no write for a while.
    let quiet = 0;
    await eventually(
      'two seconds without a write',
      async () => {
        const before = world.writes.length;
        await sleep(500);
        quiet = world.writes.length === before ? quiet + 1 : 0;
        return quiet >= 4;
      },
      60_000,
    );
    const before = world.writes.length;
    await sleep(8_000);
    expect(world.writes.slice(before)).toEqual([]);
  });

  it('adds standbys, and removes the least useful ones, but neither the primary nor a synchronous one', async () => {
    await world.apply('shop', { ...small, replicas: { synchronous: 1, asynchronous: 3 } });
    await world.until('shop', 'five instances', (c) => settled(c) && c.status?.ready === '5/5');
    await world.apply('shop', { ...small, replicas: { synchronous: 1, asynchronous: 1 } });
    const shop = await world.until('shop', 'three instances', (c) => settled(c) && c.status?.ready === '3/3');
    const names = (await world.instances('shop')).map(({ metadata }) => metadata.name);
    expect(names).toContain(shop.status?.primary);
    expect(names).toContain(shop.status?.synchronousStandbys?.[0]);
    const claims = await world.client.list(resources.persistentVolumeClaims, { namespace: 'default' });
    expect(claims.items.map(({ metadata }) => metadata.name).sort()).toEqual([
      'shop-1',
      'shop-2',
      'shop-3',
      'shop-4',
      'shop-5',
    ]);
    expect(await eventsOf('shop')).toContain('VolumeKept');
    // The volumes that were kept are used again.
    await world.apply('shop', three);
    await world.until('shop', 'four instances', (c) => settled(c) && c.status?.ready === '4/4');
  });

  it('replaces pods one by one for a new image, the primary last and by a switchover', async () => {
    const before = await world.cluster('shop');
    const old = await podUids('shop');
    await world.apply('shop', { ...three, postgres: { image: 'localhost/postgres:17.minor' } });
    const after = await world.until(
      'shop',
      'every pod is new',
      (c, instances) =>
        settled(c) &&
        c.status?.currentImage === 'localhost/postgres:17.minor' &&
        instances.every(
          ({ status }) => status?.podUid !== undefined && ![...old.values()].includes(status.podUid),
        ),
      { timeoutMs: 60_000 },
    );
    expect(after.status?.primary).not.toBe(before.status?.primary);
    expect(after.status?.term).toBe((before.status?.term ?? 0) + 1);
    await eventually('the events are there', async () => (await eventsOf('shop')).includes('PrimaryChanged'));
    expect(await eventsOf('shop')).toEqual(
      expect.arrayContaining(['PodReplaced', 'SwitchoverRequested', 'PrimaryChanged']),
    );
  });

  it('raises a setting that needs a restart by a switchover, and lowers it in place', async () => {
    const image = { image: 'localhost/postgres:17.minor' };
    const before = await world.cluster('shop');
    const pods = await podUids('shop');
    await world.apply('shop', { ...three, postgres: { ...image, parameters: { max_connections: 200 } } });
    const raised = await world.until(
      'shop',
      'the setting is in force',
      (c) => settled(c) && condition(c, 'SettingsApplied')?.status === 'True',
      { timeoutMs: 60_000 },
    );
    expect(raised.status?.term).toBe((before.status?.term ?? 0) + 1);
    await world.apply('shop', { ...three, postgres: { ...image, parameters: { max_connections: 150 } } });
    const lowered = await world.until(
      'shop',
      'the lower setting is in force',
      (c) => settled(c) && condition(c, 'SettingsApplied')?.status === 'True',
      { timeoutMs: 60_000 },
    );
    expect(lowered.status?.primary).toBe(raised.status?.primary);
    expect(await podUids('shop')).toEqual(pods);
  });

  it('grows volumes', async () => {
    const image = { image: 'localhost/postgres:17.minor' };
    const postgres = { ...image, parameters: { max_connections: 150 } };
    // The API server lets only volumes of growing classes grow.
    await world.apply('shop', { ...three, postgres, storage: { size: '2Gi' } });
    const refused = await world.until(
      'shop',
      'the refusal shows',
      (c) => condition(c, 'VolumesBound')?.reason === 'ResizeRefused',
    );
    expect(condition(refused, 'Ready')?.status).toBe('True');
    await world.apply('shop', { ...three, postgres });
    const shrunk = await world.until(
      'shop',
      'shrinking back is refused',
      (c) => condition(c, 'Accepted')?.status === 'False' && c.status?.phase === 'Running',
    );
    expect(condition(shrunk, 'Accepted')).toMatchObject({ reason: 'StorageShrink' });
    expect(shrunk.status?.acceptedSpec).toMatchObject({ storage: { size: '2Gi' } });
  });

  it('keeps volumes, credentials and state when the PgCluster is deleted, and adopts them', async () => {
    const before = await world.cluster('shop');
    const password = read(await secretOf('shop-app'), 'password');
    await world.client.remove(resources.pgClusters, { namespace: 'default', name: 'shop' });
    await eventually(
      'the PgCluster and its pods are gone',
      async () =>
        (await world.client.find(resources.pgClusters, { namespace: 'default', name: 'shop' })) ===
          undefined && (await podUids('shop')).size === 0,
      60_000,
    );
    expect(read(await secretOf('shop-app'), 'password')).toBe(password);
    await world.apply('shop', { ...three, storage: { size: '2Gi' } });
    const after = await world.until('shop', 'shop runs again', settled, { timeoutMs: 60_000 });
    expect(after.metadata.uid).not.toBe(before.metadata.uid);
    expect(after.status?.clusterId).toBe(before.status?.clusterId);
    expect(after.status?.term).toBeGreaterThanOrEqual(before.status?.term ?? 0);
    expect(read(await secretOf('shop-app'), 'password')).toBe(password);
    expect((await world.instances('shop')).every(({ spec }) => spec.initMode === 'clone')).toBe(true);
  });

  it('keeps the image of the agents when the operator is upgraded', async () => {
    const pods = await podUids('shop');
    await world.stopOperator();
    await world.startOperator({ KOSCHEI_IMAGE: 'localhost/koschei:next' });
    await world.apply('shop', {
      ...small,
      replicas: { synchronous: 1, asynchronous: 3 },
      storage: { size: '2Gi' },
    });
    await world.until('shop', 'a fifth instance', (c) => settled(c) && c.status?.ready === '5/5');
    const images = new Map(
      (await world.instances('shop')).map(({ metadata, spec }) => [metadata.name, spec.agentImage]),
    );
    expect([...images.values()].filter((image) => image === 'localhost/koschei:dev')).toHaveLength(4);
    for (const [name, uid] of pods) expect((await podUids('shop')).get(name)).toBe(uid);
  });

  it("brings every instance the operator's agent when a person asks for it, the primary last", async () => {
    const before = await world.cluster('shop');
    const old = await podUids('shop');
    await annotate('shop', { 'koschei.dev/upgrade-agents': 'now' });
    const after = await world.until(
      'shop',
      'every instance has it',
      (c, instances) =>
        settled(c) &&
        c.status?.ready === '5/5' &&
        condition(c, 'Progressing')?.status === 'False' &&
        instances.every(
          ({ metadata, spec, status }) =>
            spec.agentImage === 'localhost/koschei:next' &&
            // The fifth was made by this operator.
            (status?.podUid !== old.get(`${metadata.name}-0`) || metadata.name === 'shop-5'),
        ),
      { timeoutMs: 90_000 },
    );
    expect(after.status?.term).toBe((before.status?.term ?? 0) + 1);
    expect(after.metadata.annotations ?? {}).not.toHaveProperty(['koschei.dev/upgrade-agents']);
    expect(await eventsOf('shop')).toContain('AgentsUpgrading');
  });

  it('deletes everything with deletionPolicy: Delete', async () => {
    await world.apply('shop', { ...three, storage: { size: '2Gi' }, deletionPolicy: 'Delete' });
    await world.until('shop', 'the policy is in force', settled, { timeoutMs: 60_000 });
    await world.client.remove(resources.pgClusters, { namespace: 'default', name: 'shop' });
    await eventually(
      'nothing is left',
      async () => {
        const [clusters, claims, secrets] = await Promise.all([
          world.client.list(resources.pgClusters, { namespace: 'default' }),
          world.client.list(resources.persistentVolumeClaims, { namespace: 'default' }),
          world.client.list(resources.secrets, {
            namespace: 'default',
            labelSelector: { 'koschei.dev/cluster': 'shop' },
          }),
        ]);
        // Nobody runs the controller that removes the protection of volumes in use.
        const left = claims.items.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
        return clusters.items.length + left.length + secrets.items.length === 0;
      },
      60_000,
    );
  });
});

it.each([
  ['deploy', 'policy/v1', true],
  ['deploy/overlays/kubernetes-1.25', 'policy/v1', false],
  ['deploy/overlays/kubernetes-1.20', 'policy/v1beta1', false],
  ['deploy/overlays/local', 'policy/v1beta1', false],
])('is installed by the manifests of %s', async (folder, policy, rules) => {
  const run = promisify(execFile);
  const manifests = (await run('kubectl', ['kustomize', join(repository, folder)])).stdout;
  expect(manifests.match(/policy\/\w+/g)).toEqual([policy, policy]);
  expect(manifests.includes('x-kubernetes-validations')).toBe(rules);
  const file = join(await mkdtemp(join(tmpdir(), 'koschei-deploy-')), 'all.yaml');
  // This server takes everything but the version of disruption budgets that came after it.
  await writeFile(file, manifests.replaceAll('policy/v1\n', 'policy/v1beta1\n'));
  const dryRun = ['--kubeconfig', world.server.kubeconfig, 'apply', '--dry-run=server', '--validate=false'];
  const { stdout } = await run('kubectl', [...dryRun, '-f', file]);
  for (const name of [
    'deployment.apps/koschei-operator',
    'statefulset.apps/koschei-etcd',
    'poddisruptionbudget.policy/koschei-etcd',
    'networkpolicy.networking.k8s.io/koschei-etcd',
    'pgclusters.koschei.dev',
  ]) {
    expect(stdout).toContain(name);
  }
});

describe('what a person asks for', () => {
  it('tells people of a switchover that cannot be', async () => {
    await world.apply('asked', three);
    const before = await world.until('asked', 'it runs', settled, { timeoutMs: 60_000 });
    await annotate('asked', { 'koschei.dev/switchover': 'asked-9' });
    await eventually('the refusal is told', async () =>
      (await eventsOf('asked')).includes('SwitchoverRefused'),
    );
    // Only a synchronous standby can take over.
    const { primary, synchronousStandbys = [], term } = before.status ?? {};
    const other = (await world.instances('asked'))
      .map(({ metadata }) => metadata.name)
      .find((name) => name !== primary && !synchronousStandbys.includes(name));
    await annotate('asked', { 'koschei.dev/switchover': other ?? '' });
    await eventually('the failure is told', async () => {
      const { items } = await world.client.list(resources.events, { namespace: 'default' });
      const found = items.find(
        (event) => event.reason === 'SwitchoverFailed' && event.involvedObject.name === 'asked',
      );
      return found?.type === 'Warning' && found.message.includes(other ?? '?');
    });
    const after = await world.until(
      'asked',
      'the condition tells',
      (c) => condition(c, 'Progressing')?.reason === 'SwitchoverFailed',
    );
    expect(condition(after, 'Progressing')?.message).toContain(other);
    expect(after.status).toMatchObject({ primary, term, phase: 'Running' });
    expect(after.metadata.annotations ?? {}).not.toHaveProperty(['koschei.dev/switchover']);
  });

  it('has the data of a standby copied anew when a person asks for it, never those of the primary', async () => {
    const dataOf = async (name: string) =>
      (await world.instances('asked')).find(({ metadata }) => metadata.name === name)?.status?.dataId;
    const { primary = '' } = (await world.cluster('asked')).status ?? {};
    const standby = (await world.instances('asked'))
      .map(({ metadata }) => metadata.name)
      .find((name) => name !== primary);
    const before = { primary: await dataOf(primary), standby: await dataOf(standby ?? '') };
    await annotate('asked', { 'koschei.dev/reclone': primary });
    await eventually('the refusal is told', async () => (await eventsOf('asked')).includes('RecloneRefused'));
    await annotate('asked', { 'koschei.dev/reclone': standby ?? '' });
    await eventually('the standby has other data', async () => {
      const now = await dataOf(standby ?? '');
      return now !== undefined && now !== before.standby;
    });
    expect(await dataOf(primary)).toBe(before.primary);
    expect(await eventsOf('asked')).toContain('RecloneOrdered');
    await world.until('asked', 'all is well', settled);
  });
});

describe('bad input', () => {
  it('refuses a spec that cannot work, and creates nothing', async () => {
    await world.apply('bad', { ...small, postgres: { parameters: { fsync: 'off' } } });
    const bad = await world.until(
      'bad',
      'the refusal shows',
      (c) => condition(c, 'Accepted')?.status === 'False',
    );
    expect(condition(bad, 'Accepted')).toMatchObject({ reason: 'InvalidSpec' });
    expect(condition(bad, 'Accepted')?.message).toContain('spec.postgres.parameters[fsync]');
    expect(await world.instances('bad')).toEqual([]);
    expect(bad.metadata.finalizers).toBeUndefined();
  });

  it('touches nothing when a change is refused, and goes on with the accepted spec', async () => {
    await world.apply('fixed', { ...small, replicas: { synchronous: 0, asynchronous: 0 } });
    const before = await world.until('fixed', 'it runs', settled);
    const pods = await podUids('fixed');
    await world.apply('fixed', {
      ...small,
      postgres: { version: 16 },
      replicas: { synchronous: 0, asynchronous: 3 },
    });
    const after = await world.until(
      'fixed',
      'the refusal shows',
      (c) => condition(c, 'Accepted')?.status === 'False',
    );
    expect(condition(after, 'Accepted')).toMatchObject({ reason: 'MajorUpgradeRefused' });
    expect(after.status?.acceptedSpec).toEqual(before.status?.acceptedSpec);
    expect(after.status?.phase).toBe('Running');
    expect(await podUids('fixed')).toEqual(pods);
    expect(await world.instances('fixed')).toHaveLength(1);
  });

  it('says which image cannot be pulled, and goes on when it is corrected', async () => {
    world.kubelet.behaviour.missingImages.add('localhost/postgres:typo');
    await world.apply('typo', { ...small, postgres: { image: 'localhost/postgres:typo' } });
    const typo = await world.until(
      'typo',
      'the reason shows',
      (c) => condition(c, 'Degraded')?.reason === 'ImagePullFailed',
    );
    expect(condition(typo, 'Degraded')?.message).toContain('localhost/postgres:typo');
    await world.apply('typo', { ...small, postgres: { image: 'localhost/postgres:17' } });
    await world.until('typo', 'it runs', settled, { timeoutMs: 60_000 });
  });

  it('repairs a rolling change that went wrong', async () => {
    await world.apply('typo', { ...small, postgres: { image: 'localhost/postgres:typo' } });
    const stuck = await world.until(
      'typo',
      'the reason shows',
      (c) => condition(c, 'Degraded')?.reason === 'ImagePullFailed',
    );
    expect(condition(stuck, 'Ready')?.status).toBe('True');
    expect(stuck.status?.ready).toBe('2/3');
    await world.apply('typo', { ...small, postgres: { image: 'localhost/postgres:17' } });
    await world.until('typo', 'it runs', (c) => settled(c) && c.status?.ready === '3/3', {
      timeoutMs: 60_000,
    });
  });

  it('passes on what the agent says about an image without Postgres', async () => {
    const message = JSON.stringify({ reason: 'NoPostgresInImage', message: 'no Postgres 17 in this image' });
    for (const instance of ['empty-1', 'empty-2', 'empty-3']) {
      world.kubelet.behaviour.initFailures.set(instance, { exitCode: 1, message });
    }
    await world.apply('empty', small);
    await world.until('empty', 'the reason shows', (_, instances) =>
      instances.some((each) =>
        each.status?.conditions?.some(
          ({ reason, message: text }) => reason === 'NoPostgresInImage' && text.includes('no Postgres 17'),
        ),
      ),
    );
  });

  it('says that a volume is not bound', async () => {
    world.kubelet.behaviour.unboundClaims = true;
    try {
      await world.apply('unbound', { storage: { size: '1Gi', storageClassName: 'no-such-class' } });
      await world.until(
        'unbound',
        'the reason shows',
        (c) => condition(c, 'VolumesBound')?.reason === 'VolumeNotBound',
      );
    } finally {
      world.kubelet.behaviour.unboundClaims = false;
    }
  });

  it('takes nothing that belongs to others', async () => {
    const namespace = 'default';
    await world.client.create(resources.services, {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name: 'mine-rw', namespace },
      spec: { ports: [{ port: 80 }] },
    } as never);
    await world.apply('mine', small);
    const mine = await world.until(
      'mine',
      'the reason shows',
      (c) => condition(c, 'Accepted')?.reason === 'NameTaken',
    );
    expect(condition(mine, 'Accepted')?.message).toContain('mine-rw');
    const service = await world.client.get(resources.services, { namespace, name: 'mine-rw' });
    expect(service.spec?.ports?.[0]?.port).toBe(80);
    expect(service.metadata.labels).toBeUndefined();
  });

  it('keeps two clusters of one name in two namespaces apart', async () => {
    await world.client.create(resources.namespaces, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'other' },
    });
    await world.apply('twin', small);
    await world.apply('twin', small, 'other');
    const one = await world.until('twin', 'one runs', settled, { timeoutMs: 60_000 });
    const two = await world.until('twin', 'the other runs', settled, {
      namespace: 'other',
      timeoutMs: 60_000,
    });
    expect(one.status?.clusterId).not.toBe(two.status?.clusterId);
    expect(read(await secretOf('twin-app'), 'password')).not.toBe(
      read(await secretOf('twin-app', 'other'), 'password'),
    );
  });

  it("opens no other cluster's state to one whose volumes carry its id", async () => {
    const twin = await world.until('twin', 'it runs', settled);
    const { clusterId = '' } = twin.status ?? {};
    await world.client.create(resources.persistentVolumeClaims, {
      apiVersion: 'v1',
      kind: 'PersistentVolumeClaim',
      metadata: {
        name: 'thief-1',
        namespace: 'other',
        labels: instanceLabels('thief', clusterId, 'thief-1'),
      },
      spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
    } as never);
    await world.apply('thief', small, 'other');
    const thief = await world.until('thief', 'it runs', settled, { namespace: 'other', timeoutMs: 60_000 });
    expect(thief.status?.clusterId).toBe(clusterId);

    const theirs = clusterKeys('default', 'twin', clusterId).prefix;
    const own = clusterKeys('other', 'thief', clusterId).prefix;
    const rights = await agentOf('thief', 'other');
    try {
      expect((await rights.readPrefix(own)).keys).not.toEqual([]);
      await expect(rights.readPrefix(theirs)).rejects.toThrow(/permission denied/);
      const change = rights.transact([], [{ op: 'put', key: `${theirs}leader`, value: '{}' }]);
      await expect(change).rejects.toThrow(/permission denied/);
    } finally {
      rights.close();
    }

    // Not even when its end is asked for does anything of the other's change.
    await world.apply('thief', { ...small, deletionPolicy: 'Delete' }, 'other');
    await world.until('thief', 'the policy is in force', settled, { namespace: 'other' });
    await world.client.remove(resources.pgClusters, { namespace: 'other', name: 'thief' });
    await eventually(
      'the PgCluster is gone',
      async () =>
        (await world.client.find(resources.pgClusters, { namespace: 'other', name: 'thief' })) === undefined,
      60_000,
    );
    const untouched = await agentOf('twin', 'default');
    try {
      expect((await untouched.readPrefix(theirs)).keys).not.toEqual([]);
    } finally {
      untouched.close();
    }
  });

  it('says that there is no spare for the synchronous standby', async () => {
    await world.apply('tight', { ...small, replicas: { synchronous: 1, asynchronous: 0 } });
    const tight = await world.until('tight', 'it runs', settled);
    expect(condition(tight, 'SynchronousReplication')).toMatchObject({
      status: 'True',
      reason: 'NoSpareForSync',
    });
  });

  it('takes the longest names that it allows', async () => {
    const [name, namespace] = ['a'.repeat(maxClusterNameLength), 'n'.repeat(63)];
    await world.client.create(resources.namespaces, {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace },
    });
    await world.apply(name, small, namespace);
    const longest = await world.until(name, 'it runs', settled, { namespace, timeoutMs: 60_000 });
    expect(longest.status?.ready).toBe('3/3');
  });

  it.each(['1shop', 'a.b', 'a'.repeat(maxClusterNameLength + 1)])('refuses the name %s', async (name) => {
    await expect(world.apply(name, small)).rejects.toThrow(/metadata\.name/);
  });

  it('says that no node takes the pods', async () => {
    world.kubelet.behaviour.unschedulable.add('homeless-1');
    await world.apply('homeless', { ...single, placement: { nodeSelector: { disk: 'golden' } } });
    const homeless = await world.until(
      'homeless',
      'the reason shows',
      (c) => condition(c, 'Degraded')?.reason === 'WaitingForScheduling',
    );
    expect(condition(homeless, 'Degraded')?.message).toContain('spec.placement');
    expect(condition(homeless, 'Ready')).toMatchObject({ status: 'False' });
    world.kubelet.behaviour.unschedulable.delete('homeless-1');
    await world.apply('homeless', single);
    await world.until('homeless', 'it runs', settled, { timeoutMs: 60_000 });
  });

  it("says that an etcd of the user's own does not answer", async () => {
    const root = await secretOf('koschei-etcd-root', 'koschei-system');
    await world.client.create(resources.secrets, {
      apiVersion: 'v1',
      kind: 'Secret',
      metadata: { name: 'silent-etcd', namespace: 'default' },
      data: root.data,
    } as never);
    const endpoint = `https://${ownAddress()}:${await freePort()}`;
    await world.apply('silent', { ...small, etcd: { endpoints: [endpoint], tlsSecret: 'silent-etcd' } });
    const silent = await world.until(
      'silent',
      'the reason shows',
      (c) => condition(c, 'EtcdReachable')?.reason === 'EtcdUnreachable',
    );
    expect(condition(silent, 'EtcdReachable')?.message).toContain(endpoint);
    expect(condition(silent, 'EtcdReachable')?.message).not.toContain('ECONNREFUSED');
    expect(await world.instances('silent')).toEqual([]);
  });

  it("says which Secret of an etcd of the user's own is missing", async () => {
    await world.apply('own', {
      ...small,
      etcd: { endpoints: ['https://etcd.example:2379'], tlsSecret: 'not-there' },
    });
    const own = await world.until(
      'own',
      'the reason shows',
      (c) => condition(c, 'EtcdReachable')?.reason === 'SecretMissing',
    );
    expect(condition(own, 'EtcdReachable')?.message).toContain('not-there');
  });
});

describe('certificates', () => {
  /** Makes the certificate in a Secret one that was issued 61 days ago, and is valid for 29 more. */
  const age = async (name: string, namespace: string, authoritySecret: Secret) => {
    const now = new Date(Date.now() - 61 * day);
    const certificate = read(await secretOf(name, namespace), tlsKey.cert) ?? '';
    const { commonName, dnsNames, ipAddresses } = inspect(certificate);
    const [cert, key] = [caKey.cert, caKey.key].map((part) => read(authoritySecret, part) ?? '');
    if (cert === undefined || key === undefined) throw new Error('no authority');
    const names = { commonName, dnsNames, ipAddresses };
    const order = { ...names, usages: ['server', 'client'] as const, validDays: 90, now };
    const data = tlsData(await issueCertificate({ ...order, authority: { cert, key } }), cert);
    await world.client.mergePatch(resources.secrets, { namespace, name }, { data });
  };
  const isRenewed = async (name: string, namespace: string) => {
    const found = await secretOf(name, namespace);
    const { notAfter } = inspect(read(found, tlsKey.cert) ?? '');
    return notAfter.getTime() > Date.now() + 80 * day && found;
  };

  it('that come near their end are made anew by the authority of before, and no pod is restarted', async () => {
    await world.apply('aged', single);
    const aged = await world.until('aged', 'it runs', settled, { timeoutMs: 60_000 });
    const pods = await podUids('aged');
    const { prefix } = clusterKeys('default', 'aged', aged.status?.clusterId ?? '');
    const rights = await agentOf('aged', 'default');
    const own = await secretOf(caSecretName('aged'));
    const authorities: [string, Secret][] = [
      ['aged-server-tls', own],
      ['aged-replication-tls', own],
      ['aged-etcd-tls', await secretOf('koschei-etcd-ca', 'koschei-system')],
    ];
    for (const [name, secret] of authorities) await age(name, 'default', secret);
    try {
      for (const [name, secret] of authorities) {
        const renewed = await eventually(`${name} is renewed`, () => isRenewed(name, 'default'));
        const authority = read(secret, caKey.cert) ?? '';
        expect(read(renewed, tlsKey.ca)).toBe(authority);
        expect(isIssuedBy(read(renewed, tlsKey.cert) ?? '', authority)).toBe(true);
      }
      expect((await secretOf(caSecretName('aged'))).data).toEqual(own.data);
      // A running agent takes the new one for its connection to etcd.
      rights.useCertificates(await certificateOf('aged', 'default'));
      expect((await rights.readPrefix(prefix)).keys).not.toEqual([]);
    } finally {
      rights.close();
    }
    expect(await podUids('aged')).toEqual(pods);
    expect((await world.cluster('aged')).status?.phase).toBe('Running');
  });

  it('of the managed etcd and of the operator for it are renewed when the operator starts, the authority is not', async () => {
    const system = 'koschei-system';
    const authority = await secretOf('koschei-etcd-ca', system);
    await world.stopOperator();
    const names = ['koschei-etcd-root', 'koschei-etcd-server-tls'];
    for (const name of names) await age(name, system, authority);
    await world.startOperator();
    for (const name of names) await eventually(`${name} is renewed`, () => isRenewed(name, system));
    expect((await secretOf('koschei-etcd-ca', system)).data).toEqual(authority.data);
    // With them it works.
    await world.apply('aged', { ...single, replicas: { synchronous: 0, asynchronous: 1 } });
    await world.until('aged', 'it has grown', (c) => settled(c) && c.status?.ready === '2/2');
  });
});

describe("an etcd of the user's own", () => {
  it("is used with the user's certificate, and no user is made in it", async () => {
    const now = new Date();
    const authority = await createAuthority({ commonName: 'mine', validDays: 1, now });
    const names = { commonName: 'mine', ipAddresses: [ownAddress()] };
    const usages = ['server', 'client'] as const;
    const mine = await issueCertificate({ ...names, authority, usages, validDays: 1, now });
    const secret = {
      ...{ apiVersion: 'v1', kind: 'Secret', metadata: { name: 'my-etcd', namespace: 'default' } },
      data: tlsData(mine, authority.cert),
    } as Secret;
    await world.client.create(resources.secrets, secret);
    const port = await freePort();
    own = await secureEtcd(port, secret, ownAddress());
    const etcd = { endpoints: [`https://${ownAddress()}:${port}`], tlsSecret: 'my-etcd' };
    await world.apply('foreign', { ...small, replicas: { synchronous: 0, asynchronous: 1 }, etcd });
    await world.until('foreign', 'it runs', settled, { timeoutMs: 60_000 });
    const tls = await world.client.find(resources.secrets, {
      namespace: 'default',
      name: 'foreign-etcd-tls',
    });
    expect(tls).toBeUndefined();
  });
});

describe('the Service of the primary', () => {
  it('loses an endpoint whose pod is gone, and keeps a living one', async () => {
    const ref = { namespace: 'default', name: 'foreign-rw-leader' };
    const resource = atVersion(resources.endpointSlices, 'discovery.k8s.io/v1beta1');
    const addresses = async () =>
      ((await world.client.get(resource, ref)).endpoints ?? []).flatMap((each) => each.addresses);
    const point = async (to: Readonly<Record<string, string>>) => {
      const slice = await world.client.get(resource, ref);
      const endpoints = Object.entries(to).map(([ip, uid]) => ({
        addresses: [ip],
        targetRef: { kind: 'Pod', name: 'foreign-1-0', namespace: 'default', uid },
      }));
      await world.client.update(resource, { ...slice, endpoints } as never);
    };
    const pod = await world.client.get(resources.pods, { namespace: 'default', name: 'foreign-1-0' });
    const [uid, ip] = [pod.metadata.uid ?? '', pod.status?.podIP ?? ''];
    const nobody = '00000000-0000-0000-0000-000000000000';
    await point({ [ip]: uid, '192.0.2.1': nobody });
    await eventually('the one to nobody is gone', async () => (await addresses()).length < 2);
    expect(await addresses()).toEqual([ip]);
    await point({ [ip]: nobody });
    await eventually('it is cleared', async () => (await addresses()).length === 0);
  });
});

describe('without etcd', () => {
  it('says so and touches nothing', async () => {
    const before = await world.until('tight', 'it runs', settled);
    const pods = await podUids('tight');
    world.etcd.signal('SIGSTOP');
    try {
      const during = await world.until(
        'tight',
        'the reason shows',
        (c) => condition(c, 'EtcdReachable')?.status === 'False',
        {
          timeoutMs: 60_000,
        },
      );
      expect(during.status).toMatchObject({
        primary: before.status?.primary,
        ready: '2/2',
        phase: 'Running',
      });
      // What follows from the first edit has followed when the operator has dealt with a second one.
      const edit = {
        ...small,
        replicas: { synchronous: 1, asynchronous: 1 },
        resources: { requests: { cpu: '1' } },
      };
      for (const spec of [edit, { ...edit, logLevel: 'debug' }]) {
        await world.apply('tight', spec);
        await world.until('tight', 'the edit is read', ({ metadata, status }, instances) =>
          [{ metadata, status }, ...instances].every(
            (each) => each.status?.observedGeneration === each.metadata.generation,
          ),
        );
      }
      expect(await podUids('tight')).toEqual(pods);
    } finally {
      world.etcd.signal('SIGCONT');
    }
    await world.until(
      'tight',
      'the change is made',
      (c) => settled(c) && c.status?.ready === '3/3' && condition(c, 'EtcdReachable')?.status === 'True',
      {
        timeoutMs: 60_000,
      },
    );
  });

  it('starts nothing when the state is lost, and lists the volumes', async () => {
    const before = await world.cluster('tight');
    await world.client.remove(resources.pgClusters, { namespace: 'default', name: 'tight' });
    await eventually(
      'the PgCluster is gone',
      async () => {
        const found = await world.client.find(resources.pgClusters, { namespace: 'default', name: 'tight' });
        return found === undefined && (await podUids('tight')).size === 0;
      },
      60_000,
    );
    await world.loseState(before);
    await world.apply('tight', small);
    const after = await world.until('tight', 'it waits', phase('WaitingForDecision'), { timeoutMs: 60_000 });
    expect(after.status?.volumes?.map(({ instance, timeline }) => [instance, timeline])).toContainEqual([
      before.status?.primary,
      before.status?.timeline,
    ]);
    expect(condition(after, 'EtcdReachable')).toMatchObject({ status: 'False', reason: 'EtcdStateLost' });
    expect(await world.instances('tight')).toEqual([]);
  });
});
