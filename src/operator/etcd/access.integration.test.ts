import { Writable } from 'node:stream';
import { afterAll, beforeAll, expect, it, vi } from 'vitest';
import { caKey } from '../../api/names.ts';
import { clusterKeys, Etcd } from '../../dcs/index.ts';
import { type KubeClient, resources, type Secret, systemClock } from '../../kube/index.ts';
import { type ApiServer, startApiServer } from '../../kube/testing/apiserver.ts';
import { eventually } from '../../kube/testing/eventually.ts';
import { freePort } from '../../kube/testing/free-ports.ts';
import { createLogger } from '../../log/logger.ts';
import { issueCertificate } from '../../tls/certificates.ts';
import { type SecureEtcd, secureEtcd } from '../testing/processes.ts';
import { EtcdAccess, type Tenant } from './access.ts';
import { AuthorityMissingError, ensureEtcdCredentials, managedEtcd, tlsData } from './managed.ts';

/* The operator's side of the managed etcd, with a real kube-apiserver and a real etcd with TLS. */

const namespace = 'koschei-system';
const lines: string[] = [];
const log = createLogger({
  name: 'test',
  level: 'info',
  destination: new Writable({
    write: (chunk, _encoding, done) => {
      lines.push(String(chunk));
      done();
    },
  }),
});
let server: ApiServer;
let client: KubeClient;
let port: number;
let etcd: SecureEtcd | undefined;

beforeAll(async () => {
  server = await startApiServer();
  client = server.client();
  await client.create(resources.namespaces, {
    apiVersion: 'v1',
    kind: 'Namespace',
    metadata: { name: namespace },
  });
  port = await freePort();
});
afterAll(async () => {
  await etcd?.stop();
  await client?.close();
  await server?.stop();
});

const ensure = () => ensureEtcdCredentials(client, namespace, new Date(), log);
const startManaged = async () => {
  await ensure();
  const ref = { namespace, name: managedEtcd.serverSecret };
  return await secureEtcd(port, await client.get(resources.secrets, ref));
};
const tenant = (name: string): Tenant => ({
  ...{ namespace: 'default', name, clusterId: `id-of-${name}`, etcd: undefined, ttlMs: 5_000 },
});
const connectAs = async (commonName: string): Promise<Etcd> => {
  const { authority } = await ensure();
  const pair = await issueCertificate({
    ...{ commonName, dnsNames: [], ipAddresses: [], usages: ['client'] },
    ...{ authority, validDays: 1, now: new Date() },
  });
  const tls = { ca: Buffer.from(authority.cert), cert: Buffer.from(pair.cert), key: Buffer.from(pair.key) };
  return new Etcd({ endpoints: [`https://127.0.0.1:${port}`], timeoutMs: 2_000, tls });
};

it('turns authentication on again and says whose user is gone, whatever was done to etcd', async () => {
  etcd = await startManaged();
  const changed = new Set<string>();
  const access = new EtcdAccess({
    ...{ client, namespace, endpoints: [`https://127.0.0.1:${port}`], clock: systemClock, log, checkMs: 300 },
    onChange: (key) => changed.add(key),
  });
  access.start();
  const shop = tenant('shop');
  const { prefix, user } = clusterKeys('default', 'shop', shop.clusterId);
  const root = await connectAs('root');
  const agent = await connectAs(user);
  const stranger = await connectAs('stranger');
  const granted = async (wanted: boolean) =>
    await eventually(`granted: ${wanted}`, async () => {
      const facts = await access.observe(shop);
      return facts.known && facts.value.granted === wanted;
    });
  const worksAsItShould = async () => {
    await eventually('the agent may', () => agent.readPrefix(prefix));
    await eventually('a stranger may not', async () =>
      stranger.readPrefix(prefix).then(
        () => false,
        (error: Error) => /permission denied|user name not found|auth/.test(error.message),
      ),
    );
  };
  try {
    await eventually('the first look', async () => (await access.observe(shop)).known);
    await access.grant(shop);
    await granted(true);
    await worksAsItShould();

    // Nothing is written while all is well.
    const before = await root.readPrefix('/');
    await new Promise((resolve) => setTimeout(resolve, 1_500));
    expect((await root.readPrefix('/')).revision).toBe(before.revision);

    await root.administration.auth.authDisable();
    await worksAsItShould();
    await granted(true);

    changed.clear();
    await root.administration.auth.userDelete({ name: user });
    await granted(false);
    expect([...changed]).toContain('default/shop');
    await access.grant(shop);
    await worksAsItShould();

    await etcd.stop();
    etcd = await startManaged();
    await granted(false);
    await access.grant(shop);
    await worksAsItShould();
  } finally {
    await access.stop();
    for (const each of [root, agent, stranger]) each.close();
  }
  // Debian's etcd in these tests is an old one.
  expect(lines.filter((line) => line.includes('does not keep the clusters'))).toHaveLength(1);
});

it('says that etcd has no space while the alarm is raised', async () => {
  const access = new EtcdAccess({
    ...{ client, namespace, endpoints: [`https://127.0.0.1:${port}`], clock: systemClock, log, checkMs: 300 },
    onChange: () => undefined,
  });
  access.start();
  const root = await connectAs('root');
  const { maintenance } = root.administration;
  const noSpace = async (wanted: boolean) =>
    await eventually(`noSpace: ${wanted}`, async () => {
      const facts = await access.observe(tenant('full'));
      return facts.known && facts.value.noSpace === wanted;
    });
  try {
    await noSpace(false);
    const { header } = await maintenance.status();
    const alarm = { memberID: header.member_id, alarm: 'Nospace' } as const;
    await maintenance.alarm({ action: 'Activate', ...alarm });
    await noSpace(true);
    await maintenance.alarm({ action: 'Deactivate', ...alarm });
    await noSpace(false);
  } finally {
    await access.stop();
    root.close();
  }
});

it("closes the connection to an etcd of the user's own when its cluster is gone", async () => {
  const { authority } = await ensure();
  const ref = { namespace, name: 'mine' };
  const pair = await issueCertificate({
    ...{ commonName: 'root', usages: ['client'], authority, validDays: 1, now: new Date() },
  });
  const data = tlsData(pair, authority.cert);
  await client.create(resources.secrets, {
    ...{ apiVersion: 'v1', kind: 'Secret', metadata: ref, data },
  } as Secret);
  const endpoint = `https://127.0.0.1:${port}`;
  const mine: Tenant = {
    ...{ namespace, name: 'mine', clusterId: 'id-of-mine', ttlMs: 5_000 },
    etcd: { endpoints: [endpoint], tlsSecret: 'mine' },
  };
  const access = new EtcdAccess({
    ...{ client, namespace, endpoints: [endpoint], clock: systemClock, log, onChange: () => undefined },
  });
  const closed = vi.spyOn(Etcd.prototype, 'close');
  try {
    await eventually('it answers', async () => (await access.observe(mine)).known);
    expect(closed).not.toHaveBeenCalled();
    access.untrack(`${namespace}/mine`);
    expect(closed).toHaveBeenCalledOnce();
  } finally {
    closed.mockRestore();
    await access.stop();
  }
});

it('makes no second authority when the first one is gone or incomplete', async () => {
  const ref = { namespace, name: managedEtcd.authoritySecret };
  const refs = [managedEtcd.serverSecret, managedEtcd.rootSecret].map((name) => ({ namespace, name }));
  await ensure();
  const before = await client.get(resources.secrets, ref);
  const restore = async () =>
    await client.apply(
      resources.secrets,
      { apiVersion: 'v1', kind: 'Secret', metadata: ref, type: 'Opaque', data: before.data } as Secret,
      { force: true },
    );
  const refused = async () => {
    await expect(ensure()).rejects.toThrow(AuthorityMissingError);
    await expect(ensure()).rejects.toThrow(/koschei-system\/koschei-etcd-ca.*restore the Secret/s);
  };

  await client.remove(resources.secrets, ref);
  await refused();
  const [serverRef, rootRef] = refs;
  if (serverRef !== undefined) await client.remove(resources.secrets, serverRef);
  await refused();
  expect(await client.find(resources.secrets, ref)).toBeUndefined();

  await restore();
  await client.mergePatch(resources.secrets, ref, { data: { [caKey.key]: null } });
  await refused();

  await restore();
  expect((await ensure()).authority.cert).toBe(
    Buffer.from(before.data?.[caKey.cert] ?? '', 'base64').toString(),
  );

  // Where nothing was ever issued, one is made.
  await client.remove(resources.secrets, ref);
  if (serverRef !== undefined) await client.remove(resources.secrets, serverRef);
  if (rootRef !== undefined) await client.remove(resources.secrets, rootRef);
  const { authority } = await ensure();
  expect(authority.cert).not.toBe(Buffer.from(before.data?.[caKey.cert] ?? '', 'base64').toString());
});
