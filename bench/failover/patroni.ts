import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import { buildImage } from '../../e2e/cluster/images.ts';
import { network, repository } from '../../e2e/cluster/settings.ts';
import { docker, report, succeeds } from '../../e2e/cluster/shell.ts';
import { now } from '../../e2e/faults.ts';
import { bringUp } from '../../e2e/install.ts';
import { eventually } from '../../e2e/kubernetes.ts';
import { messageOf, type Target } from '../../e2e/ledger/connection.ts';
import type { Route } from '../../e2e/ledger/history.ts';
import { type FirstAcks, type Phases, patroniPhases } from './phases.ts';
import type { Fault, Row } from './rows.ts';
import type { Injected, Instance, Stack } from './stack.ts';

/** Seconds. */
export interface Timing {
  readonly ttl: number;
  readonly loop_wait: number;
  readonly retry_timeout: number;
}

/** What Patroni has by default, and the least that its documentation allows. */
export const timings = {
  'patroni-default': { ttl: 30, loop_wait: 10, retry_timeout: 10 },
  'patroni-minimum': { ttl: 20, loop_wait: 1, retry_timeout: 3 },
} as const satisfies Record<string, Timing>;

const address = (last: number) => network.gateway.replace(/\.\d+$/, `.${last}`);
const machines = [1, 2, 3].map((number) => ({ name: `bench-peer-${number}`, ip: address(20 + number) }));
const proxy = { name: 'bench-peer-haproxy', ip: address(24) };
const volumeOf = (name: string) => `${name}-data`;
type Machine = (typeof machines)[number];

const user = 'app';
const password = 'bench';

/** The configuration of Patroni on a machine: its defaults but for the times, strict synchronous mode and pg_rewind. */
export function patroniConfiguration(machine: Machine, timing: Timing): object {
  return {
    scope: 'bench',
    name: machine.name,
    restapi: { listen: '0.0.0.0:8008', connect_address: `${machine.ip}:8008` },
    etcd3: { hosts: machines.map(({ ip }) => `${ip}:2379`) },
    bootstrap: {
      dcs: {
        ...timing,
        synchronous_mode: true,
        synchronous_mode_strict: true,
        synchronous_node_count: 1,
        postgresql: {
          use_pg_rewind: true,
          // Koschei's cluster has the same.
          parameters: { shared_buffers: '64MB', max_connections: 50 },
        },
      },
      initdb: [{ encoding: 'UTF8' }, 'data-checksums'],
    },
    postgresql: {
      listen: '0.0.0.0:5432',
      connect_address: `${machine.ip}:5432`,
      data_dir: '/data/postgres/data',
      bin_dir: '/usr/lib/postgresql/17/bin',
      pgpass: '/data/postgres/pgpass',
      authentication: {
        superuser: { username: 'postgres', password },
        replication: { username: 'replicator', password },
      },
      pg_hba: [
        'local all all trust',
        'host replication replicator 0.0.0.0/0 scram-sha-256',
        'host all all 0.0.0.0/0 scram-sha-256',
      ],
    },
  };
}

/** As in Patroni's documentation: the machine whose Patroni says that it is the primary. */
function haproxyConfiguration(): string {
  const servers = machines.map(({ name, ip }) => `  server ${name} ${ip}:5432 maxconn 100 check port 8008`);
  return `global
  maxconn 100
defaults
  mode tcp
  retries 2
  timeout client 30m
  timeout connect 4s
  timeout server 30m
  timeout check 5s
listen primary
  bind *:5432
  option httpchk
  http-check expect status 200
  default-server inter 3s fall 3 rise 2 on-marked-down shutdown-sessions
${servers.join('\n')}
`;
}

const Members = z.object({
  members: z.array(
    z.object({ name: z.string(), role: z.string(), state: z.string(), timeline: z.number().optional() }),
  ),
});
const EtcdStatus = z.object({ header: z.object({ member_id: z.string() }), leader: z.string() });

/** Patroni with an etcd of its own, one container for each machine, on the network of the local cluster. */
export class Patroni implements Stack {
  readonly version: string;
  readonly routes: readonly Route[] = ['service', 'multi-host', 'direct'];
  readonly lateMs: number;
  readonly patienceMs: number;
  readonly #timing: Timing;
  readonly #image: string;

  private constructor(version: string, image: string, timing: Timing) {
    this.version = version;
    this.#image = image;
    this.#timing = timing;
    this.lateMs = (timing.ttl + timing.loop_wait + 5) * 1000;
    this.patienceMs = (2 * timing.ttl + 20) * 1000;
  }

  /** Builds its image. */
  static async install(subject: keyof typeof timings): Promise<Patroni> {
    await bringUp();
    const image = await buildImage({ name: 'bench-patroni:local', context: `${repository}/bench/patroni` });
    const version = await docker(['run', '--rm', '--entrypoint', 'patroni', image, '--version']);
    const timing = timings[subject];
    const { ttl, loop_wait: loop, retry_timeout: retry } = timing;
    return new Patroni(
      `${version.replace('patroni', 'Patroni')}, ttl ${ttl}, loop_wait ${loop}, retry_timeout ${retry}`,
      image,
      timing,
    );
  }

  async start(): Promise<void> {
    await this.close();
    report(`starting ${this.version} ...`);
    const common = {
      ETCD_MEMBERS: machines.map(({ name, ip }) => `${name}=http://${ip}:2380`).join(','),
    };
    for (const machine of machines) {
      const configuration = JSON.stringify(patroniConfiguration(machine, this.#timing));
      await this.#run(
        machine,
        {
          ...common,
          ROLE: 'machine',
          NAME: machine.name,
          IP: machine.ip,
          PATRONI_CONFIGURATION: configuration,
        },
        ['-v', `${volumeOf(machine.name)}:/data`],
      );
    }
    await this.#run(proxy, { ROLE: 'haproxy', HAPROXY: haproxyConfiguration() }, []);
    await this.waitHealthy(180_000);
    const primary = await this.primary();
    await this.#psql(primary, 'postgres', `CREATE ROLE ${user} LOGIN PASSWORD '${password}'`);
    await this.#psql(primary, 'postgres', `CREATE DATABASE app OWNER ${user}`);
  }

  async #run(
    { name, ip }: Machine,
    environment: Readonly<Record<string, string>>,
    more: readonly string[],
  ): Promise<void> {
    await docker([
      ...['run', '-d', '--init', '--name', name, '--hostname', name, '--network', network.name, '--ip', ip],
      ...['--cap-add=NET_ADMIN', ...more],
      ...Object.entries(environment).flatMap(([key, value]) => ['-e', `${key}=${value}`]),
      this.#image,
    ]);
  }

  async close(): Promise<void> {
    await removePeer();
  }

  async target(): Promise<Target> {
    return {
      serviceHost: proxy.ip,
      podsHost: machines.map(({ ip }) => ip).join(','),
      port: 5432,
      nameServers: [],
      user,
      password,
      database: 'app',
      tls: false,
    };
  }

  async primary(): Promise<Instance> {
    return this.#inRole('leader');
  }

  async synchronousStandby(): Promise<Instance> {
    return this.#inRole('sync_standby');
  }

  async #inRole(role: string): Promise<Instance> {
    const member = (await this.#members()).find((each) => each.role === role);
    const machine = machines.find(({ name }) => name === member?.name);
    if (machine === undefined) throw new Error(`expected a member with the role ${role}, found none`);
    return { name: machine.name, address: machine.ip, node: machine.name };
  }

  async #members(): Promise<z.infer<typeof Members>['members']> {
    let last: unknown = new Error('no machine answers');
    for (const { ip } of machines) {
      try {
        const answer = await fetch(`http://${ip}:8008/cluster`, { signal: AbortSignal.timeout(2_000) });
        return Members.parse(await answer.json()).members;
      } catch (error) {
        last = error;
      }
    }
    throw last;
  }

  async waitHealthy(deadline: number): Promise<void> {
    let found = 'nothing';
    await eventually('Patroni to be healthy', deadline, async () => {
      const members = await this.#members();
      found = members
        .map(({ name, role, state, timeline }) => `${name} ${role} ${state} ${timeline}`)
        .join(', ');
      const with_ = (role: string, state: string) =>
        members.filter((each) => each.role === role && each.state === state).length;
      return (
        with_('leader', 'running') === 1 &&
        with_('sync_standby', 'streaming') === 1 &&
        with_('replica', 'streaming') === 1 &&
        new Set(members.map(({ timeline }) => timeline)).size === 1
      );
    }).catch((error: unknown) => {
      throw new Error(`${messageOf(error)}; found ${found}`, { cause: error });
    });
  }

  async placeEtcdLeader(node: string, where: Row['etcdLeader']): Promise<void> {
    const target = machines.find(({ name }) => (name === node) === (where === 'here'));
    const leader = await this.#etcdLeader();
    if (target === undefined || (leader.name === node) === (where === 'here')) return;
    const { header } = await etcd(target, 'status', {});
    await etcd(leader, 'transfer-leadership', { targetID: header.member_id });
    await eventually(`${target.name} to lead etcd`, 10_000, async () => {
      return (await this.#etcdLeader()).name === target.name;
    });
  }

  async #etcdLeader(): Promise<Machine> {
    return eventually('a leader of etcd', 15_000, async () => {
      for (const machine of machines) {
        const status = await etcd(machine, 'status', {}).catch(() => undefined);
        if (status !== undefined && status.leader === status.header.member_id) return machine;
      }
      return undefined;
    });
  }

  async inject(fault: Fault, victim: Instance): Promise<Injected> {
    const { node } = victim;
    const others = machines.filter(({ name }) => name !== node);
    const shell = async (script: string, on = node) => {
      const at = now();
      await docker(['exec', on, 'sh', '-c', script]);
      return at;
    };
    const undoNetwork = async () => {
      await shell('iptables -w -F INPUT && iptables -w -F OUTPUT');
    };
    const drop = (match: (from: 's' | 'd') => string) =>
      `iptables -w -I INPUT ${match('s')} -j DROP && iptables -w -I OUTPUT ${match('d')} -j DROP`;
    switch (fault) {
      case 'switchover': {
        const at = now();
        const answer = await fetch(`http://${victim.address}:8008/switchover`, {
          method: 'POST',
          body: JSON.stringify({ leader: victim.name }),
        });
        if (!answer.ok) throw new Error(`the switchover was refused: ${await answer.text()}`);
        return { at };
      }
      case 'kill postgres':
        return { at: await shell('kill -9 "$(head -n 1 /data/postgres/data/postmaster.pid)"') };
      case 'delete pod': {
        // What a kubelet does: it asks, kills 2 s later, and the container is made again.
        const at = await shell('touch /run/peer/patroni.hold; pkill -TERM -u postgres -x patroni');
        await sleep(2_000);
        await shell('pkill -KILL -u postgres; rm /run/peer/patroni.hold');
        return { at };
      }
      case 'lose container':
        return {
          at: await shell('touch /run/peer/patroni.hold && pkill -KILL -u postgres'),
          undo: async () => {
            await shell('rm /run/peer/patroni.hold');
          },
        };
      case 'freeze node': {
        const at = now();
        await docker(['pause', node]);
        return {
          at,
          undo: async () => {
            await docker(['unpause', node]);
          },
        };
      }
      case 'kill node': {
        const at = now();
        await docker(['kill', node]);
        return {
          at,
          undo: async () => {
            await docker(['start', node]);
          },
        };
      }
      case 'isolate node':
        return {
          at: await shell(others.map(({ ip }) => drop((from) => `-${from} ${ip}`)).join(' && ')),
          undo: undoNetwork,
        };
      case 'cut off etcd':
        // Its clients on this machine; the member itself still talks with the others.
        return {
          at: await shell(
            'iptables -w -I OUTPUT -p tcp --dport 2379 -j DROP && iptables -w -I INPUT -p tcp --sport 2379 -j DROP',
          ),
          undo: undoNetwork,
        };
      case 'cut off peers':
        return {
          at: await shell(
            others
              .map(({ ip }) => drop((from) => `-${from} ${ip} -p tcp -m multiport --ports 5432,8008`))
              .join(' && '),
          ),
          undo: undoNetwork,
        };
      case 'kill etcd leader':
        return { at: await shell('pkill -KILL -x etcd', (await this.#etcdLeader()).name) };
    }
  }

  async sql(instance: Instance, sql: string): Promise<string> {
    return this.#psql(instance, 'app', sql);
  }

  async #psql({ node }: Instance, database: string, sql: string): Promise<string> {
    const psql = ['psql', '-U', 'postgres', '-d', database, '-XAtq', '-v', 'ON_ERROR_STOP=1', '-c', sql];
    return docker(['exec', node, ...psql]);
  }

  async log(): Promise<string> {
    return docker(['exec', (await this.primary()).node, 'cat', '/var/log/patroni.log']);
  }

  phases(log: string, _: Row, faultAt: number, acks: FirstAcks): Phases {
    return patroniPhases(log, faultAt, acks);
  }

  async explain(name: string): Promise<string> {
    const folder = `${repository}/.state/diagnostics/${name}`;
    for (const machine of machines) {
      await succeeds('sh', [
        '-c',
        'mkdir -p "$0" && docker exec "$1" tail -n 2000 /var/log/patroni.log > "$0/$1.log" 2>&1',
        folder,
        machine.name,
      ]);
    }
    return folder;
  }
}

/** Removes the containers of the peer, also those of a measurement that was broken off, with their data. */
export async function removePeer(): Promise<void> {
  for (const { name } of [...machines, proxy]) {
    await succeeds('docker', ['rm', '-f', '-v', name]);
    await succeeds('docker', ['volume', 'rm', '-f', volumeOf(name)]);
  }
}

/** Asks a member of the peer's etcd something about its maintenance. */
async function etcd(
  { ip }: Machine,
  what: 'status' | 'transfer-leadership',
  question: object,
): Promise<z.infer<typeof EtcdStatus>> {
  const answer = await fetch(`http://${ip}:2379/v3/maintenance/${what}`, {
    method: 'POST',
    body: JSON.stringify(question),
    signal: AbortSignal.timeout(2_000),
  });
  if (!answer.ok) throw new Error(`etcd on ${ip} answered ${answer.status}: ${await answer.text()}`);
  return what === 'status'
    ? EtcdStatus.parse(await answer.json())
    : { header: { member_id: '' }, leader: '' };
}
