import { randomBytes } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { appUser, path, podHost, port } from '../api/names.ts';
import { clusterKeys, type Etcd, parseView } from '../dcs/index.ts';
import type { Logger } from '../log/logger.ts';
import {
  clone,
  findBinaries,
  initdb,
  PostgresError,
  postgresPaths,
  prepareVolume,
} from '../postgres/index.ts';
import { readCertificates } from './certificates.ts';
import type { Environment } from './environment.ts';
import { provesLeadership } from './ha/index.ts';
import { Peers } from './peers.ts';

/** The volume could not be initialised; `reason` becomes the condition's reason. */
export class InitError extends Error {
  override readonly name = 'InitError';
  readonly reason: string;
  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

/** How long a clone waits for a primary before the Job's pod gives up (and is tried again), ms. */
const primaryWithinMs = 300_000;

/**
 * `agent init`: fills an empty volume, by initdb or by a copy of the primary. A volume that is filled already is left
 * as it is. Throws InitError.
 */
export async function initialise(
  environment: Environment,
  { log, etcd, now }: { log: Logger; etcd: Etcd; now: () => number },
): Promise<void> {
  try {
    const binaries = await findBinaries(environment.KOSCHEI_POSTGRES_VERSION);
    const paths = postgresPaths({ walRoot: environment.KOSCHEI_WAL_VOLUME });
    const found = await prepareVolume(paths);
    if (found.kind !== 'empty') {
      if (found.identity.clusterId !== environment.KOSCHEI_CLUSTER_ID)
        throw new InitError(
          'ForeignVolume',
          `the volume belongs to cluster ${found.identity.clusterId}; use another one, or an empty one`,
        );
      return log.info('the volume is initialised already');
    }
    const installation = { paths, binaries };
    const dataId = randomBytes(8).toString('hex');
    const clusterId = environment.KOSCHEI_CLUSTER_ID;
    if (environment.KOSCHEI_INIT_MODE === 'initdb') {
      const password = environment.KOSCHEI_APP_PASSWORD;
      if (password === undefined)
        throw new InitError(
          'SecretMissing',
          'the password of the application user is not in the environment',
        );
      await initdb(installation, {
        dataId,
        clusterId,
        application: { database: appUser, user: appUser, password },
        salt: randomBytes(16),
      });
      return log.info({ dataId }, 'a new database was made');
    }
    const source = await primary(environment, etcd, now, log);
    await clone(installation, { source, dataId, clusterId, systemIdentifier: source.systemIdentifier });
    log.info({ dataId, from: source.host }, 'the primary was cloned');
  } catch (error) {
    if (error instanceof PostgresError) throw new InitError(error.code, error.message);
    throw error;
  }
}

/** Waits until a primary proves that it leads, and says where it is. */
async function primary(environment: Environment, etcd: Etcd, now: () => number, log: Logger) {
  const { KOSCHEI_NAMESPACE: namespace, KOSCHEI_CLUSTER: cluster } = environment;
  const keys = clusterKeys(namespace, cluster, environment.KOSCHEI_CLUSTER_ID);
  const certificates = await readCertificates(path.replicationTls);
  const peers = new Peers({
    port: port.agent,
    now,
    timeoutMs: 500,
    certificates: () => certificates,
    onAnswer: () => undefined,
  });
  peers.start();
  const deadline = now() + primaryWithinMs;
  let said = '';
  try {
    while (now() < deadline) {
      const view = await etcd.readPrefix(keys.prefix).then(
        (r) => parseView(keys, r.revision, r.keys),
        () => undefined,
      );
      const leader = view?.leader?.value;
      const waitingFor =
        view === undefined ? 'etcd' : leader === undefined ? 'a leader' : `${leader.instance} to be primary`;
      if (leader !== undefined) {
        const host = podHost(cluster, leader.instance, namespace);
        peers.watch([{ instance: leader.instance, address: leader.address, host, everyMs: 200 }]);
        const peer = peers.facts.get(leader.instance);
        if (peer !== undefined && provesLeadership(peer, leader))
          return {
            host,
            address: leader.address,
            port: port.postgres,
            systemIdentifier: view?.initialize?.value.systemIdentifier,
          };
      }
      if (waitingFor !== said) log.info(`waiting for ${waitingFor}`);
      said = waitingFor;
      await sleep(200);
    }
  } finally {
    peers.stop();
  }
  throw new InitError(
    'NoPrimary',
    `no primary to clone from within ${primaryWithinMs / 1000} s; last waited for ${said}`,
  );
}

/** Leaves the reason where the kubelet puts it into the pod's status. */
export async function reportTermination(error: InitError): Promise<void> {
  await writeFile(
    '/dev/termination-log',
    JSON.stringify({ reason: error.reason, message: error.message.slice(0, 2000) }),
  ).catch(() => undefined);
}
