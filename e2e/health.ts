import * as z from 'zod';

/** What a cluster should look like when all is well. */
export interface Wanted {
  /** The primary and all its standbys. */
  readonly instances: number;
  /** Standbys that confirm every commit. */
  readonly synchronous: number;
}

/** One pod, as Kubernetes says. */
export interface PodFacts {
  readonly instance: string;
  readonly uid: string;
  readonly address: string | undefined;
  readonly node: string | undefined;
  readonly ready: boolean;
  readonly terminating: boolean;
  /** The role label. */
  readonly role: string | undefined;
}

/** What a Postgres says about itself; {@link serverQuery} is the question. */
export const ServerFacts = z.object({
  inRecovery: z.boolean(),
  timeline: z.int().nullable(),
  /** Status of the WAL receiver; null when there is none. */
  receiver: z.string().nullable(),
  walsenders: z.array(z.object({ address: z.string(), state: z.string(), sync: z.string() })),
});
export type ServerFacts = z.infer<typeof ServerFacts>;

/** Answers with one line of JSON that {@link ServerFacts} reads. For a superuser. */
export const serverQuery = `
  SELECT json_build_object(
    'inRecovery', pg_is_in_recovery(),
    'timeline', CASE WHEN pg_is_in_recovery() THEN (SELECT received_tli FROM pg_stat_wal_receiver)
      ELSE ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::int END,
    'receiver', (SELECT status FROM pg_stat_wal_receiver),
    'walsenders', (SELECT coalesce(json_agg(json_build_object('address', host(client_addr), 'state', state,
      'sync', sync_state)), '[]') FROM pg_stat_replication WHERE application_name LIKE 'k\\_%'))`;

/** The part of a PgCluster's status that is judged. */
export interface StatusFacts {
  readonly generation: number | undefined;
  readonly observedGeneration: number | undefined;
  readonly primary: string | undefined;
  readonly phase: string | undefined;
  readonly ready: string | undefined;
  readonly readyCondition: string | undefined;
}

export interface ClusterFacts {
  readonly pods: readonly PodFacts[];
  /** By instance: what its Postgres says, or why it says nothing. */
  readonly servers: ReadonlyMap<string, ServerFacts | string>;
  /** Where the `-rw` Service leads. */
  readonly endpoints: readonly { readonly address: string; readonly podUid: string | undefined }[];
  readonly status: StatusFacts;
}

/**
 * What is not well, as sentences; none: exactly one primary, every standby streams on its timeline, the synchronous set
 * is full, the `-rw` Service leads to the primary's pod, and the status says so.
 */
export function healthProblems(facts: ClusterFacts, wanted: Wanted): string[] {
  const { pods, servers, endpoints } = facts;
  const problems: string[] = [];
  const complain = (when: boolean, problem: string) => when && problems.push(problem);

  complain(pods.length !== wanted.instances, `${pods.length} pods instead of ${wanted.instances}`);
  for (const pod of pods) {
    complain(pod.terminating, `the pod of ${pod.instance} is being deleted`);
    complain(!pod.ready, `the pod of ${pod.instance} is not ready`);
    const server = servers.get(pod.instance);
    if (server === undefined || typeof server === 'string') {
      problems.push(`the Postgres of ${pod.instance} does not answer: ${server ?? 'not asked'}`);
    }
  }
  const said = pods.flatMap((pod) => {
    const server = servers.get(pod.instance);
    return server === undefined || typeof server === 'string' ? [] : [{ pod, server }];
  });
  const primaries = said.filter(({ server }) => !server.inRecovery);
  const [primary] = primaries;
  if (primary === undefined || primaries.length > 1) {
    const names = primaries.map(({ pod }) => pod.instance).join(', ');
    return [...problems, `expected one primary, found ${names === '' ? 'none' : names}`];
  }
  const { walsenders, timeline } = primary.server;
  for (const { pod, server } of said) {
    if (pod === primary.pod) {
      complain(pod.role !== 'primary', `the pod of ${pod.instance} has the role ${pod.role}`);
      continue;
    }
    complain(pod.role !== 'standby', `the pod of ${pod.instance} has the role ${pod.role}`);
    complain(server.receiver !== 'streaming', `${pod.instance} does not stream: ${server.receiver}`);
    complain(
      server.timeline !== timeline,
      `${pod.instance} is on timeline ${server.timeline}, its primary on ${timeline}`,
    );
    complain(
      !walsenders.some((each) => each.address === pod.address && each.state === 'streaming'),
      `the primary does not stream to ${pod.instance}`,
    );
  }
  const synchronous = walsenders.filter((each) => each.sync === 'sync').length;
  complain(
    synchronous !== wanted.synchronous,
    `${synchronous} synchronous standbys instead of ${wanted.synchronous}`,
  );
  complain(
    endpoints.length !== 1 ||
      endpoints[0]?.address !== primary.pod.address ||
      endpoints[0]?.podUid !== primary.pod.uid,
    `the -rw Service leads to ${endpoints.map(({ address }) => address).join(', ') || 'nobody'} ` +
      `instead of ${primary.pod.address}, pod ${primary.pod.uid}`,
  );
  return [...problems, ...statusProblems(facts.status, primary.pod.instance, wanted)];
}

function statusProblems(status: StatusFacts, primary: string, wanted: Wanted): string[] {
  const problems: string[] = [];
  const expect = (field: string, found: unknown, expected: unknown) =>
    found !== expected && problems.push(`the status says ${field} ${found} instead of ${expected}`);
  expect('observedGeneration', status.observedGeneration, status.generation);
  expect('primary', status.primary, primary);
  expect('phase', status.phase, 'Running');
  expect('ready', status.ready, `${wanted.instances}/${wanted.instances}`);
  expect('Ready', status.readyCondition, 'True');
  return problems;
}
