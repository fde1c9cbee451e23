import { podName } from '../../src/api/names.ts';
import { nodes } from '../cluster/settings.ts';
import {
  apiServerAnswers,
  between,
  clientAddresses,
  cutOff,
  delay,
  deletePod,
  drain,
  drop,
  fillDisk,
  freezeNode,
  holdApiServer,
  holdProgram,
  isolateNode,
  kill,
  killNode,
  type Process,
  slowDisk,
  stallDisk,
  stop,
  stopNode,
  stopOperator,
  switchover,
} from './effects.ts';
import {
  type Effect,
  type EtcdMember,
  type Expectation,
  type Facts,
  type Fault,
  type Instance,
  NotPossible,
} from './fault.ts';

/*
 * All faults, by name. Gaps are about three times what docs/benchmarks.md says of a like fault; where a fault lasts on
 * purpose longer than any standby may wait, the gap shows that somebody took over while it lasted.
 */

const seconds = (count: number) => count * 1000;

/** Nobody may take over, and writes go on. */
const nothing = (gap = seconds(3)): Expectation => ({ failovers: [0, 0], gap });
/** Somebody takes over, once. */
const takeover = (gap = seconds(9)): Expectation => ({ failovers: [1, 1], gap });

const named = (one: Instance): string => `${one.name} on ${one.node}`;

/** The instance of a role. */
function instance(facts: Facts, role: Instance['role']): Instance {
  const found = facts.instances.find((each) => each.role === role);
  if (found === undefined) throw new NotPossible(`expected a ${role} instance, found none`);
  return found;
}
const primary = (facts: Facts) => instance(facts, 'primary');
const synchronous = (facts: Facts) => instance(facts, 'synchronous');
const peersOf = (facts: Facts, one: Instance): string[] =>
  facts.instances.filter(({ name }) => name !== one.name).map(({ address }) => address);
const etcdOf = (facts: Facts): string[] => facts.etcd.map(({ address }) => address);

function etcdLeader({ etcd }: Facts): EtcdMember {
  const found = etcd.find(({ leads }) => leads);
  if (found === undefined) throw new NotPossible('expected a leader of etcd, found none');
  return found;
}

/** A fault that hits one instance. */
function hits(
  choose: (facts: Facts) => Instance,
  name: string,
  description: string,
  holdMs: number,
  expects: Expectation,
  effects: (one: Instance, facts: Facts) => readonly Effect[],
): Fault {
  return {
    ...{ name, description, holdMs, expects },
    plan: (facts) => {
      const one = choose(facts);
      return { target: named(one), effects: effects(one, facts) };
    },
  };
}

/** A fault that hits members of etcd. */
function hitsEtcd(
  name: string,
  description: string,
  holdMs: number,
  expects: Expectation,
  choose: (facts: Facts) => readonly EtcdMember[],
  effects: (member: EtcdMember, facts: Facts) => readonly Effect[],
): Fault {
  return {
    ...{ name, description, holdMs, expects },
    plan: (facts) => {
      const members = choose(facts);
      return {
        target: members.map(({ name, node }) => `${name} on ${node}`).join(', '),
        effects: members.flatMap((member) => effects(member, facts)),
      };
    },
  };
}

const killed = (process: Process) => (one: Instance) => [kill(one, process)];
const stopped =
  (...processes: Process[]) =>
  (one: Instance) =>
    processes.map((process) => stop(one, process));

/** A disk fault of the primary's volume with the data, or with the WAL. */
function onDisk(
  name: string,
  description: string,
  holdMs: number,
  expects: Expectation,
  which: 'data' | 'wal',
  effect: (one: Instance, mount: string) => Effect,
): Fault {
  const fault = hits(primary, name, description, holdMs, expects, (one) => {
    const mount = one.disks[which];
    if (mount === undefined) throw new NotPossible(`${one.name} has no file system of its own for ${which}`);
    return [effect(one, mount)];
  });
  return { ...fault, disks: which };
}

const processes: readonly Fault[] = [
  hits(primary, 'postgres-kill', "kill -9 of the primary's postmaster", 0, takeover(), killed('postmaster')),
  hits(
    primary,
    'backend-kill',
    'kill -9 of one backend, so that Postgres goes down by itself',
    0,
    { failovers: [0, 1], gap: seconds(9) },
    killed('backend'),
  ),
  hits(
    primary,
    'postgres-stop',
    'SIGSTOP of all processes of Postgres on the primary',
    seconds(20),
    takeover(seconds(15)),
    stopped('postgres'),
  ),
  hits(primary, 'agent-kill', "kill -9 of the primary's agent", 0, takeover(), killed('agent')),
  hits(
    primary,
    'agent-stop',
    "SIGSTOP of the primary's agent: koschei-init fences",
    seconds(15),
    takeover(),
    stopped('agent'),
  ),
  hits(
    primary,
    'init-kill',
    "kill -9 of the primary's koschei-init",
    0,
    takeover(seconds(12)),
    killed('init'),
  ),
  hits(
    primary,
    'init-stop',
    "SIGSTOP of the primary's koschei-init, which nobody needs meanwhile",
    seconds(10),
    nothing(),
    stopped('init'),
  ),
  hits(
    primary,
    'agent-init-stop',
    'SIGSTOP of agent and koschei-init: nobody is left to fence Postgres, which runs on',
    seconds(20),
    // It acknowledges nothing, but whoever is still connected to it reads old values until it is continued.
    { ...takeover(), staleFor: seconds(21) },
    stopped('init', 'agent'),
  ),
];

const whole: readonly Fault[] = [
  hits(
    primary,
    'node-kill',
    "the primary's node loses power for 15 s",
    seconds(15),
    takeover(),
    ({ node }) => [killNode(node)],
  ),
  hits(
    primary,
    'node-freeze',
    "the primary's node stands still for 20 s and goes on where it was",
    seconds(20),
    takeover(),
    ({ node }) => [freezeNode(node)],
  ),
  hits(
    primary,
    'node-stop',
    "the primary's node is shut down",
    seconds(15),
    takeover(seconds(20)),
    ({ node }) => [stopNode(node)],
  ),
  hits(
    primary,
    'kubelet-stop',
    "the kubelet of the primary's node is away for 20 s, which is no reason to do anything",
    seconds(20),
    nothing(),
    ({ node }) => [holdProgram(node, 'kubelet')],
  ),
  hits(
    synchronous,
    'sync-node-kill',
    "the synchronous standby's node loses power for 15 s",
    seconds(15),
    nothing(seconds(8)),
    ({ node }) => [killNode(node)],
  ),
  hits(
    synchronous,
    'sync-node-freeze',
    "the synchronous standby's node stands still for 15 s",
    seconds(15),
    nothing(seconds(8)),
    ({ node }) => [freezeNode(node)],
  ),
];

const network: readonly Fault[] = [
  hits(
    primary,
    'primary-isolated',
    'the primary is cut off from everything',
    seconds(15),
    takeover(),
    (one) => [
      drop(one.node, `drop all packets of ${one.name}`, [{ from: one.address }, { to: one.address }]),
    ],
  ),
  hits(
    primary,
    'primary-with-clients',
    'the primary is cut off from etcd, its peers and the API server, but not from clients',
    seconds(15),
    takeover(),
    (one, facts) => [
      drop(one.node, `drop packets between ${one.name} and etcd, peers and API server`, [
        ...between(one, [...etcdOf(facts), ...peersOf(facts, one)]),
        apiServerAnswers(one),
      ]),
    ],
  ),
  hits(
    primary,
    'primary-deaf',
    'nothing that etcd and peers send reaches the primary; what it sends reaches them',
    seconds(15),
    takeover(),
    (one, facts) => [cutOff(one, 'etcd and peers', [...etcdOf(facts), ...peersOf(facts, one)], 'in')],
  ),
  hits(
    primary,
    'primary-mute',
    'nothing that the primary sends reaches etcd and peers; it hears them',
    seconds(15),
    takeover(),
    (one, facts) => [cutOff(one, 'etcd and peers', [...etcdOf(facts), ...peersOf(facts, one)], 'out')],
  ),
  hits(
    primary,
    'primary-from-etcd',
    'the primary is cut off from etcd only',
    seconds(15),
    nothing(),
    (one, facts) => [cutOff(one, 'etcd', etcdOf(facts))],
  ),
  hits(
    primary,
    'primary-from-peers',
    'the primary is cut off from its standbys only: its commits wait, so it has to hand over',
    seconds(20),
    takeover(seconds(15)),
    (one, facts) => [cutOff(one, 'peers', peersOf(facts, one))],
  ),
  hits(
    primary,
    'primary-from-clients',
    'clients cannot reach the primary for 8 s; no standby could serve them better',
    seconds(8),
    nothing(seconds(12)),
    (one) => [
      drop(
        one.node,
        `drop what clients send to ${one.name}`,
        clientAddresses.map((from) => ({ from, to: one.address, port: 5432 })),
      ),
    ],
  ),
  hits(
    synchronous,
    'sync-isolated',
    'the synchronous standby is cut off from everything',
    seconds(15),
    nothing(seconds(8)),
    (one) => [
      drop(one.node, `drop all packets of ${one.name}`, [{ from: one.address }, { to: one.address }]),
    ],
  ),
  hits(
    primary,
    'node-isolated',
    "the primary's node is cut off from all others and the control plane, not from clients",
    seconds(15),
    takeover(),
    ({ node }) => [isolateNode(node)],
  ),
  hits(
    primary,
    'packet-loss',
    'a third of all packets of the primary is lost for 20 s',
    seconds(20),
    { failovers: [0, 1], gap: seconds(15) },
    (one, facts) => [
      drop(
        one.node,
        `drop a third of the packets of ${one.name}`,
        between(one, [...etcdOf(facts), ...peersOf(facts, one)], 'both', 0.3),
      ),
    ],
  ),
  hits(
    primary,
    'etcd-slow',
    'everything between the primary and etcd takes 150 ms longer each way',
    seconds(20),
    nothing(),
    (one, facts) => [delay(one, etcdOf(facts), 2379, 150)],
  ),
  {
    name: 'replication-slow',
    description: 'everything between the synchronous standby and the primary takes 30 ms longer each way',
    holdMs: seconds(20),
    expects: nothing(seconds(8)),
    plan: (facts) => {
      const [leader, standby] = [primary(facts), synchronous(facts)];
      return { target: named(standby), effects: [delay(standby, [leader.address], 5432, 30)] };
    },
  },
];

const disks: readonly Fault[] = [
  onDisk(
    'disk-full',
    "the primary's volume is full for 20 s",
    seconds(20),
    takeover(seconds(15)),
    'data',
    (one, mount) => fillDisk(one.node, mount),
  ),
  onDisk(
    'disk-stall',
    "the primary's volume takes no write for 20 s",
    seconds(20),
    takeover(seconds(15)),
    'data',
    (one, mount) => stallDisk(one.node, mount),
  ),
  onDisk(
    'disk-slow',
    "the primary's volume takes 64 KiB per second for 20 s",
    seconds(20),
    { failovers: [0, 1], gap: seconds(15) },
    'data',
    (one, mount) => slowDisk(one, mount, 64 * 1024),
  ),
  onDisk(
    'wal-disk-full',
    "the primary's WAL volume is full for 20 s",
    seconds(20),
    takeover(seconds(15)),
    'wal',
    (one, mount) => fillDisk(one.node, mount),
  ),
  onDisk(
    'wal-disk-stall',
    "the primary's WAL volume takes no write for 20 s",
    seconds(20),
    takeover(seconds(15)),
    'wal',
    (one, mount) => stallDisk(one.node, mount),
  ),
];

const leaderOfEtcd = (facts: Facts) => [etcdLeader(facts)];
const follower = (facts: Facts) => {
  const found = facts.etcd.find(({ leads }) => !leads);
  if (found === undefined) throw new NotPossible('expected a member of etcd that does not lead');
  return [found];
};
const kills = (member: EtcdMember) => [kill(member, 'etcd')];
const stops = (member: EtcdMember) => [stop(member, 'etcd')];

const etcd: readonly Fault[] = [
  hitsEtcd('etcd-kill', 'kill -9 of a member of etcd that does not lead', 0, nothing(), follower, kills),
  hitsEtcd('etcd-leader-kill', 'kill -9 of the leader of etcd', 0, nothing(), leaderOfEtcd, kills),
  hitsEtcd('etcd-leader-stop', 'SIGSTOP of the leader of etcd', seconds(10), nothing(), leaderOfEtcd, stops),
  hitsEtcd(
    'etcd-leader-isolated',
    'the leader of etcd is cut off from everything',
    seconds(10),
    nothing(),
    leaderOfEtcd,
    (member) => [
      drop(member.node, `drop all packets of ${member.name}`, [
        { from: member.address },
        { to: member.address },
      ]),
    ],
  ),
  hitsEtcd(
    'etcd-outage',
    'SIGSTOP of all members of etcd for 2 s',
    seconds(2),
    nothing(),
    ({ etcd }) => etcd,
    stops,
  ),
  hitsEtcd(
    'etcd-quorum-loss',
    'SIGSTOP of all members of etcd for 20 s: a failsafe leader serves on',
    seconds(20),
    nothing(),
    ({ etcd }) => etcd,
    stops,
  ),
];

/** Whether the operator or the API server is there makes no difference to the database. */
const blind = (...effects: Effect[]): Effect[] => [stopOperator(), holdApiServer(), ...effects];

const kubernetes: readonly Fault[] = [
  {
    name: 'api-server-stop',
    description: 'the API server is away for 20 s',
    holdMs: seconds(20),
    expects: nothing(),
    plan: () => ({ target: 'kube-apiserver', effects: [holdApiServer()] }),
  },
  {
    name: 'operator-stop',
    description: 'there is no operator for 15 s',
    holdMs: seconds(15),
    expects: nothing(),
    plan: () => ({ target: 'koschei-operator', effects: [stopOperator()] }),
  },
  hits(
    primary,
    'blind-postgres-kill',
    "no operator, no API server, and then kill -9 of the primary's koschei-init",
    seconds(15),
    // The -rw Service cannot follow without the API; clients that know all hosts do.
    { ...takeover(), routes: ['multi-host'] },
    (one) => blind(kill(one, 'init')),
  ),
  hits(
    primary,
    'blind-node-freeze',
    "no operator, no API server, and then the primary's node stands still",
    seconds(15),
    { ...takeover(), routes: ['multi-host'] },
    ({ node }) => blind(freezeNode(node)),
  ),
  hits(
    primary,
    'switchover',
    'a switchover is asked for: no fault, for comparison',
    0,
    takeover(),
    (_, facts) => [switchover(facts)],
  ),
  hits(primary, 'pod-delete', "the primary's pod is deleted", 0, takeover(), ({ name }, { namespace }) => [
    deletePod(namespace, podName(name)),
  ]),
  hits(
    primary,
    'pod-delete-now',
    "the primary's pod is deleted without grace",
    0,
    takeover(seconds(12)),
    ({ name }, { namespace }) => [deletePod(namespace, podName(name), 0)],
  ),
  hits(
    synchronous,
    'sync-pod-delete-now',
    "the synchronous standby's pod is deleted without grace",
    0,
    nothing(seconds(8)),
    ({ name }, { namespace }) => [deletePod(namespace, podName(name), 0)],
  ),
  {
    name: 'primary-and-sync-kill',
    description: 'kill -9 of koschei-init of the primary and of every synchronous standby at once',
    holdMs: 0,
    expects: { failovers: [0, 2], gap: seconds(40) },
    plan: (facts) => {
      const both = facts.instances.filter(({ role }) => role !== 'asynchronous');
      return { target: both.map(named).join(', '), effects: both.map((one) => kill(one, 'init')) };
    },
  },
  {
    name: 'all-kill',
    description: 'kill -9 of koschei-init of every instance at once',
    holdMs: 0,
    expects: { failovers: [0, 2], gap: seconds(60) },
    plan: ({ instances }) => ({
      target: instances.map(named).join(', '),
      effects: instances.map((one) => kill(one, 'init')),
    }),
  },
  hits(primary, 'drain', "the primary's node is drained", seconds(1), takeover(seconds(12)), ({ node }) => [
    drain(node),
  ]),
  {
    name: 'nodes-kill',
    description: 'all nodes lose power for 10 s, with all members of etcd and all instances',
    holdMs: seconds(10),
    expects: { failovers: [0, 2], gap: seconds(120), redundant: seconds(240) },
    plan: () => ({ target: 'all nodes', effects: nodes.map(({ name }) => killNode(name)) }),
  },
];

/** Every fault that is known. */
export const faults: readonly Fault[] = [
  ...processes,
  ...whole,
  ...network,
  ...disks,
  ...etcd,
  ...kubernetes,
];

/**
 * The fault of a name, or those of `one+other` at once.
 * @throws {Error} if there is no such fault.
 */
export function faultNamed(name: string): Fault {
  const parts = name.split('+').map((part) => {
    const found = faults.find((each) => each.name === part);
    if (found === undefined)
      throw new Error(`There is no fault ${part}; npm run faults -- --list names them all.`);
    return found;
  });
  const [only] = parts;
  return parts.length === 1 && only !== undefined ? only : together(name, parts);
}

/** Faults that begin one right after the other and end together. */
function together(name: string, parts: readonly Fault[]): Fault {
  const sum = (of: (fault: Fault) => number) => parts.reduce((total, each) => total + of(each), 0);
  const judged = parts.map(({ expects }) => expects.routes).filter((each) => each !== undefined);
  const disks = parts.some((each) => each.disks === 'wal') ? 'wal' : parts.find((each) => each.disks)?.disks;
  return {
    name,
    description: parts.map(({ description }) => description).join('; and '),
    holdMs: Math.max(...parts.map(({ holdMs }) => holdMs)),
    expects: {
      failovers: [
        Math.min(...parts.map(({ expects }) => expects.failovers[0])),
        sum(({ expects }) => expects.failovers[1]),
      ],
      gap: sum(({ expects }) => expects.gap),
      redundant: Math.max(...parts.map(({ expects }) => expects.redundant ?? seconds(120))),
      staleFor: Math.max(...parts.map(({ expects }) => expects.staleFor ?? seconds(7))),
      ...(judged.length === 0
        ? {}
        : { routes: judged.reduce((left, each) => left.filter((route) => each.includes(route))) }),
    },
    ...(disks === undefined ? {} : { disks }),
    plan: (facts) => {
      const plans = parts.map((part) => part.plan(facts));
      return {
        target: [...new Set(plans.map(({ target }) => target))].join('; '),
        effects: plans.flatMap(({ effects }) => effects),
      };
    },
  };
}
