import { readFileSync } from 'node:fs';
import { context, controlPlaneContainer, kubeconfig } from '../cluster/cluster.ts';
import { controlPlane, type Node, nodes } from '../cluster/settings.ts';
import { type Command, type Effect, type Facts, NotPossible, type Place } from './fault.ts';

/*
 * The commands that faults are made of. They run in the containers that are the nodes, from where every process and
 * every packet of a pod can be reached, also when the Kubernetes API is away.
 */

/** A shell script in the container of a node, or in the control plane's. */
export const onNode = (node: string, what: string, script: string): Command => ({
  what: `${what} (${node})`,
  program: 'docker',
  args: ['exec', node, 'sh', '-c', script],
});

/** A shell script on this machine; `$KUBECTL` is kubectl with its options. */
const here = (what: string, script: string): Command => ({
  what,
  program: 'sh',
  args: ['-c', `KUBECTL="kubectl --kubeconfig ${kubeconfig} --context ${context}"\n${script}`],
});

const docker = (what: string, ...args: string[]): Command => ({ what, program: 'docker', args });

const nodeOf = (name: string): Node => {
  const found = nodes.find((each) => each.name === name);
  if (found === undefined) throw new NotPossible(`${name} is no node of the local cluster`);
  return found;
};

// --- processes -----------------------------------------------------------------------------------------------------

/** Processes of a pod: koschei-init, its child the agent, the postmaster, all of Postgres, or etcd. */
export type Process = 'init' | 'agent' | 'postmaster' | 'postgres' | 'backend' | 'etcd';

/** Prints nothing and sends a signal to the processes of a pod; fails when there is none. */
function signalScript({ uid }: Place, process: Process | 'all', signal: string): string {
  const chosen: Record<Process | 'all', string> = {
    init: '[ "$name" = koschei-init ]',
    agent: '[ "$name" != postgres ] && [ "$parent" = koschei-init ]',
    postmaster: '[ "$name" = postgres ] && [ "$parent" != postgres ]',
    postgres: '[ "$name" = postgres ]',
    backend: '[ "$name" = postgres ] && tr "\\0" " " < /proc/$pid/cmdline | grep -q " app app "',
    etcd: '[ "$name" = etcd ]',
    all: 'true',
  };
  return `pids=
for pid in $(grep -l ${uid} /proc/[0-9]*/cgroup 2>/dev/null | cut -d/ -f3); do
  name=$(cat /proc/$pid/comm 2>/dev/null) || continue
  parent=$(cat /proc/$(sed -n 's/^PPid:\\t//p' /proc/$pid/status)/comm 2>/dev/null)
  if ${chosen[process]}; then pids="$pids $pid"; fi
done
${process === 'backend' ? 'pids=$(echo $pids | cut -d" " -f1)' : ''}
if [ -z "$pids" ]; then echo "no such process: ${process} of the pod ${uid}" >&2; exit 1; fi
kill -${signal} $pids`;
}

/** `kill -9`. What is killed is started again by whoever watches over it. */
export function kill(place: Place & { name: string }, process: Process): Effect {
  return {
    apply: onNode(place.node, `kill -9 ${process} of ${place.name}`, signalScript(place, process, 'KILL')),
  };
}

/** SIGSTOP; SIGCONT goes to everything in the pod. */
export function stop(place: Place & { name: string }, process: Process): Effect {
  return {
    apply: onNode(place.node, `stop ${process} of ${place.name}`, signalScript(place, process, 'STOP')),
    undo: onNode(place.node, `continue ${place.name}`, `(${signalScript(place, 'all', 'CONT')}) || true`),
  };
}

/** Ends a program of a node, such as the kubelet, and keeps it away. */
export function holdProgram(node: string, program: string): Effect {
  const file = `/run/koschei/${program}`;
  const script = `touch ${file}.hold; kill -9 "$(cat ${file}.pid)" 2>/dev/null || true`;
  return {
    apply: onNode(node, `kill ${program}, and keep it away`, script),
    undo: onNode(node, `let ${program} run`, `rm -f ${file}.hold`),
  };
}

/** Kills the API server and keeps it away; the end waits until it answers again. */
export function holdApiServer(): Effect {
  const { apply, undo } = holdProgram(controlPlaneContainer, 'kube-apiserver');
  const script = `docker ${(undo?.args ?? []).map((each) => `'${each}'`).join(' ')}
for try in $(seq 120); do $KUBECTL --request-timeout=3s get --raw /readyz >/dev/null 2>&1 && exit 0; sleep 0.5; done
echo "the API server is not ready after a minute" >&2; exit 1`;
  return { apply, undo: here('let the API server run, and wait for it', script) };
}

// --- nodes ---------------------------------------------------------------------------------------------------------

/** Where volumes.ts keeps file systems of their own on a node, one `<name>.img` for each folder `<name>`. */
export const diskFolder = '/var/lib/koschei-volumes/faults';

/** A script that mounts whatever belongs there and is not mounted. Loop devices are made by hand: /dev is docker's. */
export const mountScript = `cd ${diskFolder} 2>/dev/null || exit 0
[ -e /dev/loop-control ] || mknod /dev/loop-control c 10 237
for number in $(seq 0 63); do [ -e /dev/loop$number ] || mknod /dev/loop$number b 7 $number; done
for image in *.img; do
  [ -e "$image" ] || continue
  folder=\${image%.img}
  mkdir -p "$folder"
  mountpoint -q "$folder" || mount -o loop "$image" "$folder"
done`;

const startNode = (node: string): Command =>
  here(
    `start ${node}`,
    `docker start ${node} >/dev/null
for try in $(seq 20); do docker exec ${node} sh -c '${mountScript}' && exit 0; sleep 0.2; done; exit 1`,
  );

/** Power off, and on again. */
export const killNode = (node: string): Effect => ({
  apply: docker(`kill ${node}`, 'kill', node),
  undo: startNode(node),
});

/** An orderly shutdown of a node's container, as docker does it: SIGTERM to its programs, SIGKILL after 10 s. */
export const stopNode = (node: string): Effect => ({
  apply: docker(`stop ${node}`, 'stop', '-t', '10', node),
  undo: startNode(node),
});

/** Freezes everything on a node, as a stopped virtual machine. */
export const freezeNode = (node: string): Effect => ({
  apply: docker(`pause ${node}`, 'pause', node),
  undo: here(
    `unpause ${node}`,
    `[ "$(docker container inspect -f '{{.State.Status}}' ${node})" != paused ] || docker unpause ${node}`,
  ),
});

// --- network -------------------------------------------------------------------------------------------------------

/** Packets that a node drops. Everything to and from its pods, but for the node's own programs, passes `PREROUTING`. */
export interface Drop {
  readonly chain?: 'PREROUTING' | 'OUTPUT';
  readonly from?: string;
  readonly to?: string;
  /** Only TCP to this port. */
  readonly port?: number;
  /** Only TCP from this port. */
  readonly sourcePort?: number;
  /** How many of the packets, from 0 to 1; all by default. */
  readonly probability?: number;
}

/** A rule of iptables, without `-I` or `-D`. */
export function ruleOf({ chain = 'PREROUTING', from, to, port, sourcePort, probability }: Drop): string {
  return [
    chain,
    ...(from === undefined ? [] : ['-s', from]),
    ...(to === undefined ? [] : ['-d', to]),
    ...(port === undefined ? [] : ['-p tcp --dport', port]),
    ...(sourcePort === undefined ? [] : ['-p tcp --sport', sourcePort]),
    ...(probability === undefined ? [] : ['-m statistic --mode random --probability', probability]),
    '-j DROP',
  ].join(' ');
}

/** Drops packets on a node. */
export function drop(node: string, what: string, drops: readonly Drop[]): Effect {
  const rules = drops.map(ruleOf);
  return {
    apply: onNode(node, what, rules.map((rule) => `iptables -w -t raw -I ${rule}`).join(' && ')),
    undo: onNode(
      node,
      `no longer: ${what}`,
      rules.map((rule) => `while iptables -w -t raw -D ${rule} 2>/dev/null; do :; done`).join('\n'),
    ),
  };
}

/** Which packets between two are lost: all, those that the first one sends, or those that it is sent. */
export type Direction = 'both' | 'out' | 'in';

/** Packets between a pod and others. */
export function between(
  place: Place,
  others: readonly string[],
  direction: Direction = 'both',
  probability?: number,
): Drop[] {
  const share = probability === undefined ? {} : { probability };
  return others.flatMap((other) => [
    ...(direction === 'in' ? [] : [{ from: place.address, to: other, ...share }]),
    ...(direction === 'out' ? [] : [{ from: other, to: place.address, ...share }]),
  ]);
}

/** Cuts a pod off from addresses. */
export function cutOff(
  place: Place & { name: string },
  from: string,
  others: readonly string[],
  direction: Direction = 'both',
): Effect {
  if (others.length === 0) throw new NotPossible(`there is nobody to cut ${place.name} off from`);
  const which = { both: 'between', out: 'from', in: 'to' }[direction];
  return drop(
    place.node,
    `drop packets ${which} ${place.name} and ${from}`,
    between(place, others, direction),
  );
}

/** Cuts a whole node off from all other nodes and the control plane, but not from this machine's clients. */
export function isolateNode(name: string): Effect {
  nodeOf(name);
  const others = [
    controlPlane.ip,
    ...nodes.filter((each) => each.name !== name).flatMap(({ ip, podSubnet }) => [ip, podSubnet]),
  ];
  return drop(
    name,
    'drop packets between the node and all others',
    others.flatMap((other) => [{ from: other }, { to: other }, { chain: 'OUTPUT' as const, to: other }]),
  );
}

/** Where clients of this machine come from: its bridge, and the control plane that forwards to Services. */
export const clientAddresses: readonly string[] = [`${controlPlane.ip.replace(/\.\d+$/, '')}.0/24`];

/** What the API server answers to a pod. Not everything of the control plane: it forwards clients to Services, too. */
export const apiServerAnswers = ({ address }: Place): Drop => ({
  ...{ from: controlPlane.ip, sourcePort: 6443, to: address },
});

/** Node runs it as it is. */
const proxyProgram = () => readFileSync(new URL('delay-proxy.ts', import.meta.url)).toString('base64');

/**
 * Delays what a pod exchanges with others at a port, in both directions: its connections are led through a proxy on its
 * node (delay-proxy.ts). Open ones are broken, once at the start and once at the end.
 */
export function delay(
  place: Place & { name: string },
  others: readonly string[],
  port: number,
  milliseconds: number,
): Effect {
  if (others.length === 0) throw new NotPossible(`there is nobody that ${place.name} talks to`);
  const { ip } = nodeOf(place.node);
  const folder = '/run/koschei/delay';
  // One port of the proxy for each of the others, above those that kubelets and pods use.
  const ways = others.map((to, index) => ({ listen: 17_000 + (port % 1_000) * 10 + index, to, port }));
  const rules = ways.map(
    ({ listen, to }) =>
      `PREROUTING -s ${place.address} -d ${to} -p tcp --dport ${port} -j DNAT --to-destination ${ip}:${listen}`,
  );
  // Connections are tracked: only new ones are led elsewhere.
  const forget = others.map((to) => `conntrack -D -s ${place.address} -d ${to} >/dev/null 2>&1`).join('; ');
  const settings = JSON.stringify({ milliseconds, ways });
  return {
    apply: onNode(
      place.node,
      `delay what ${place.name} exchanges with port ${port} of ${others.join(', ')} by ${milliseconds} ms`,
      `mkdir -p ${folder} && echo ${proxyProgram()} | base64 -d > ${folder}/proxy.mts &&
(setsid node ${folder}/proxy.mts '${settings}' >${folder}/${port}.log 2>&1 & echo $! > ${folder}/${port}.pid) &&
for try in $(seq 50); do grep -q ready ${folder}/${port}.log && break; sleep 0.1; done; grep -q ready ${folder}/${port}.log || { cat ${folder}/${port}.log >&2; exit 1; }
${rules.map((rule) => `iptables -w -t nat -I ${rule}`).join(' && ')} && { ${forget}; true; }`,
    ),
    undo: onNode(
      place.node,
      `no longer delay what ${place.name} exchanges with port ${port}`,
      `${rules.map((rule) => `while iptables -w -t nat -D ${rule} 2>/dev/null; do :; done`).join('\n')}
${forget}
if [ -e ${folder}/${port}.pid ]; then kill -9 "$(cat ${folder}/${port}.pid)" 2>/dev/null; rm -f ${folder}/${port}.pid; fi; true`,
    ),
  };
}

// --- disks ---------------------------------------------------------------------------------------------------------

/** Fills a file system to the last block. */
export function fillDisk(node: string, mount: string): Effect {
  const file = `${mount}/ballast`;
  return {
    apply: onNode(
      node,
      `fill ${mount}`,
      // Not all at once: some blocks are needed to note down which ones it has.
      `fallocate -l "$(($(df --output=avail -B1 ${mount} | tail -n 1) / 100 * 98))" ${file}
dd if=/dev/zero of=${file}.rest bs=4k 2>/dev/null; mountpoint -q ${mount}`,
    ),
    undo: onNode(node, `empty ${mount}`, `rm -f ${file} ${file}.rest`),
  };
}

/** Every write and fsync to a file system waits from now on, uninterruptibly; what is cached can still be read. */
export const stallDisk = (node: string, mount: string): Effect => ({
  apply: onNode(node, `freeze ${mount}`, `fsfreeze --freeze ${mount}`),
  // An error means that it is not frozen.
  undo: onNode(node, `thaw ${mount}`, `fsfreeze --unfreeze ${mount} 2>/dev/null || true`),
});

/** Writes and fsyncs of a pod to a file system get this many bytes per second. */
export function slowDisk(place: Place & { name: string }, mount: string, bytesPerSecond: number): Effect {
  const script = (limit: number) =>
    `device=$(mountpoint -d ${mount}) && for file in $(find /sys/fs/cgroup/blkio -path '*pod${place.uid}/*' \\
  -name blkio.throttle.write_bps_device); do echo "$device ${limit}" > $file && found=1; done`;
  return {
    apply: onNode(
      place.node,
      `${bytesPerSecond} bytes per second for ${place.name} on ${mount}`,
      `${script(bytesPerSecond)}; [ -n "$found" ]`,
    ),
    // A mount that is gone has no limit any more.
    undo: onNode(place.node, `no limit for ${place.name} on ${mount}`, `${script(0)}; true`),
  };
}

// --- Kubernetes ----------------------------------------------------------------------------------------------------

const operator = '-n koschei-system deployment/koschei-operator';

/** No operator from now on. Killed, not asked: it gets no chance to do anything more. */
export const stopOperator = (): Effect => ({
  apply: here(
    'stop the operator',
    `$KUBECTL scale ${operator} --replicas=0 &&
$KUBECTL -n koschei-system delete pods -l app.kubernetes.io/name=koschei-operator --grace-period=0 --force --timeout=60s`,
  ),
  undo: here(
    'start the operator',
    `$KUBECTL scale ${operator} --replicas=2 && $KUBECTL rollout status ${operator} --timeout=120s`,
  ),
});

/** Deletes a pod; with a grace of 0 its containers are killed at once. */
export function deletePod(namespace: string, pod: string, grace?: number): Effect {
  const how = grace === 0 ? '--grace-period=0 --force' : '';
  return {
    apply: here(
      `delete the pod ${pod} ${how}`,
      `$KUBECTL -n ${namespace} delete pod ${pod} ${how} --wait=false`,
    ),
  };
}

/** `kubectl drain`, and `uncordon` at the end. */
export const drain = (node: string): Effect => ({
  apply: here(
    `drain ${node}`,
    `$KUBECTL drain ${node} --ignore-daemonsets --delete-emptydir-data --timeout=120s`,
  ),
  undo: here(`uncordon ${node}`, `$KUBECTL uncordon ${node}`),
});

/** Asks for a switchover to the best standby. */
export const switchover = ({ namespace, cluster }: Facts): Effect => ({
  apply: here(
    'ask for a switchover',
    `$KUBECTL -n ${namespace} annotate pgcluster ${cluster} koschei.dev/switchover=any --overwrite`,
  ),
});
