import { once } from 'node:events';
import { mkdir, mkdtemp, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TLSSocket } from 'node:tls';
import { expect, it, onTestFinished } from 'vitest';
import { createAuthority, issueCertificate, type KeyPair } from '../tls/certificates.ts';
import { createApi } from './api.ts';
import { type Certificates, readCertificates, sameCertificates } from './certificates.ts';

const now = new Date();
const authority = await createAuthority({ commonName: 'test', validDays: 3650, now });
const issue = (validDays: number) =>
  issueCertificate({
    authority,
    commonName: 'shop',
    dnsNames: ['localhost'],
    usages: ['server', 'client'],
    validDays,
    now,
  });

/** A mounted Secret: the kubelet changes all of its files at once, by renaming a link to their folder. */
async function mountedSecret(): Promise<{ directory: string; put: (pair: KeyPair) => Promise<void> }> {
  const directory = await mkdtemp(join(tmpdir(), 'koschei-secret-'));
  onTestFinished(() => rm(directory, { recursive: true }));
  for (const name of ['tls.crt', 'tls.key', 'ca.crt']) await symlink(`..data/${name}`, join(directory, name));
  let version = 0;
  const put = async ({ cert, key }: KeyPair) => {
    version += 1;
    const folder = join(directory, `..${version}`);
    await mkdir(folder);
    await writeFile(join(folder, 'tls.crt'), cert);
    await writeFile(join(folder, 'tls.key'), key);
    await writeFile(join(folder, 'ca.crt'), authority.cert);
    await symlink(`..${version}`, join(directory, '..new'));
    await rename(join(directory, '..new'), join(directory, '..data'));
  };
  return { directory, put };
}

it('are found changed when the kubelet has changed them', async () => {
  const { directory, put } = await mountedSecret();
  await put(await issue(30));
  const before = await readCertificates(directory);
  expect(sameCertificates(before, await readCertificates(directory))).toBe(true);
  const renewed = await issue(90);
  await put(renewed);
  const after = await readCertificates(directory);
  expect(sameCertificates(before, after)).toBe(false);
  expect(after.cert.toString()).toBe(renewed.cert);
  expect(after.ca.equals(before.ca)).toBe(true);
});

it('are served by the running API when they are renewed, which goes on asking for those of peers', async () => {
  const { directory, put } = await mountedSecret();
  await put(await issue(30));
  const fine = () => ({ ok: true, why: 'fine' });
  const server = createApi(
    {
      state: () => {
        throw new Error('nobody asks');
      },
      look: () => Promise.reject(new Error('nobody asks')),
      live: fine,
      ready: fine,
      status: () => ({}),
      metrics: async () => '',
      heard: () => undefined,
      promise: () => {
        throw new Error('nobody asks');
      },
    },
    await readCertificates(directory),
  );
  server.listen(0, '127.0.0.1');
  onTestFinished(() => {
    server.closeAllConnections();
    server.close();
  });
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const ask = (path: string, own?: Certificates): Promise<{ code: number; validTo: string }> =>
    new Promise((resolve, reject) => {
      const tls = { ca: authority.cert, servername: 'localhost', ...own };
      request({ host: '127.0.0.1', port, path, agent: false, ...tls }, (response) => {
        const { socket } = response;
        const validTo = socket instanceof TLSSocket ? socket.getPeerCertificate().valid_to : '';
        response.resume().on('end', () => resolve({ code: response.statusCode ?? 0, validTo }));
      })
        .on('error', reject)
        .end();
    });
  const former = await ask('/livez');

  await put(await issue(90));
  const renewed = await readCertificates(directory);
  server.setSecureContext(renewed);
  const present = await ask('/livez');
  expect(present.code).toBe(200);
  expect(Date.parse(present.validTo) - Date.parse(former.validTo)).toBe(60 * 86_400_000);
  expect((await ask('/v1/status')).code).toBe(403);
  expect((await ask('/v1/status', renewed)).code).toBe(200);
});
