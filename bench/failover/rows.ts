/*
 * What is measured: a row for each fault. A node fault of Koschei has two: with the leader of etcd on the node that is
 * hit, and on another one.
 */

/** What can be done to an instance, to its node, or to etcd. */
export type Fault =
  | 'switchover'
  | 'kill postgres'
  | 'delete pod'
  | 'lose container'
  | 'freeze node'
  | 'kill node'
  | 'isolate node'
  | 'cut off etcd'
  | 'cut off peers'
  | 'kill etcd leader';

export interface Row {
  /** For `--rows` and in the file of results. */
  readonly id: string;
  readonly title: string;
  readonly fault: Fault;
  /** Whom it hits: the primary, or its synchronous standby. */
  readonly victim: 'primary' | 'standby';
  /** Where the leader of etcd is put before the fault: on the victim's node, or not. */
  readonly etcdLeader: 'here' | 'elsewhere';
  /** Whether the fault stays until it is undone. */
  readonly lasts: boolean;
  /** Whether its effect may come as late as a ttl is over, so that one has to wait to know that there is none. */
  readonly late: boolean;
  /** Whether it is measured without the Kubernetes API, too. */
  readonly withoutApi: boolean;
  /** Runs of the peer; 0: the row has none of its own. */
  readonly peerRuns: number;
}

const row = (id: string, title: string, fault: Fault, more: Partial<Row> = {}): Row => ({
  id,
  title,
  fault,
  victim: 'primary',
  etcdLeader: 'elsewhere',
  lasts: true,
  late: false,
  withoutApi: false,
  peerRuns: 5,
  ...more,
});

/** The same with the leader of etcd on the node that is hit. The peer's runs are those of the row itself. */
const both = (one: Row): Row[] => [
  one,
  {
    ...one,
    id: `${one.id}-etcd`,
    title: `${one.title}, leader of etcd on it`,
    etcdLeader: 'here',
    withoutApi: false,
    peerRuns: 0,
  },
];

const api = { withoutApi: true };
const standby = { victim: 'standby' } as const;
const slow = { peerRuns: 3 };

export const rows: readonly Row[] = [
  row('switchover', 'switchover', 'switchover', { lasts: false }),
  row('postgres-killed', '`kill -9` of postgres', 'kill postgres', { lasts: false, ...api }),
  row('pod-deleted', 'pod deleted without grace', 'delete pod', { lasts: false }),
  row('container-lost', 'container killed, never coming back', 'lose container', api),
  ...both(row('node-frozen', 'node frozen', 'freeze node', { ...api, ...slow })),
  ...both(row('node-killed', 'node killed', 'kill node', api)),
  ...both(row('primary-isolated', 'primary cut off from everything', 'isolate node', { ...api, ...slow })),
  row('primary-without-etcd', 'primary cut off from etcd only', 'cut off etcd', { late: true, ...slow }),
  row('primary-without-peers', 'primary cut off from its peers only', 'cut off peers', {
    late: true,
    ...slow,
  }),
  ...both(row('standby-killed', "synchronous standby's node killed", 'kill node', { ...standby, ...api })),
  ...both(row('standby-frozen', "synchronous standby's node frozen", 'freeze node', { ...standby, ...slow })),
  ...both(
    row('standby-isolated', 'synchronous standby cut off from everything', 'isolate node', {
      ...standby,
      ...slow,
    }),
  ),
  row('etcd-leader-killed', 'leader of etcd killed', 'kill etcd leader', { lasts: false, late: true }),
];

/** @throws {Error} naming all rows, if there is none of that id. */
export function rowOf(id: string): Row {
  const found = rows.find((each) => each.id === id);
  if (found === undefined) {
    throw new Error(`expected rows among ${rows.map((each) => each.id).join(', ')}, found ${id}`);
  }
  return found;
}
