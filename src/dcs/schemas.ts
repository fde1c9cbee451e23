import { z } from 'zod';

/**
 * What is stored in etcd under `/koschei/<namespace>/<cluster>/<clusterId>/`. Every value is JSON. Readers accept
 * unknown fields, so that an agent and an operator one version apart understand each other.
 */

/** An LSN in Postgres's notation, e.g. `0/3000060`. */
const lsnText = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i);
const name = z.string().min(1).max(253);
const dataId = z.string().regex(/^[0-9a-f]{16}$/);
const term = z.int().min(1);
/** A Postgres timeline id: 32 bits, starting at 1. */
const timeline = z.int().min(1).max(0xffff_ffff);

/** An instance together with its data id: names outlive data, so decisions always compare both. */
export const memberRef = z.object({ instance: name, dataId });
export type MemberRef = z.infer<typeof memberRef>;

/** `initialize`: created once, by the agent that bootstraps the cluster. */
export const initializeValue = z.object({ systemIdentifier: z.string().regex(/^\d{1,20}$/), by: name });
export type InitializeValue = z.infer<typeof initializeValue>;

/**
 * `leader`: rewritten with every heartbeat, compare-and-swap on the revision that this boot wrote last (rule R1).
 * `phase: vacated` says that this leader's Postgres is stopped and acknowledges nothing any more: whoever may stand
 * need not wait.
 */
export const leaderValue = z.object({
  instance: name,
  dataId,
  bootId: z.string().min(8),
  term,
  /** The timeline allotted to this term; greater than any ever stored (rule R6). */
  timeline,
  phase: z.enum(['leading', 'vacated']),
  /** With `vacated`: the instance that should take over; absent: any that may. */
  successor: name.optional(),
  /** With `vacated`: why. */
  reason: z.string().max(200).optional(),
  lsn: lsnText.optional(),
  /** Which loss a person has accepted with this leadership, until its history says it. */
  accepted: z.string().max(300).optional(),
  /** Number of this heartbeat within the boot. */
  beat: z.int().min(0),
  /** Where clients and standbys reach this leader. */
  address: z.string(),
  /** The ttl that this leader goes by, ms: nobody may take its place by a shorter one. Older versions do not say it. */
  ttlMs: z.int().min(1).optional(),
  /** The member list that the leader goes by: nobody else may stand in async mode. */
  members: z.array(memberRef).max(64),
});
export type LeaderValue = z.infer<typeof leaderValue>;

/**
 * `sync`: who may be promoted besides the leader. An empty set in mode `sync` means that only the last leader may
 * lead; it is not the same as mode `async` (rule R9).
 */
export const syncValue = z.object({
  term,
  mode: z.enum(['sync', 'async']),
  names: z.array(memberRef).max(16),
});
export type SyncValue = z.infer<typeof syncValue>;

/** Settings that wait for a restart; `lowered` names those among the five that a standby may not have below its primary. */
export const pendingRestart = z.object({ settings: z.array(z.string()), lowered: z.array(z.string()) });

/** `members/<instance>`: what an agent tells about itself; on a lease, and no decision rests on it. */
export const memberValue = z.object({
  instance: name,
  dataId,
  bootId: z.string().min(8),
  address: z.string(),
  node: z.string(),
  podUid: z.string(),
  role: z.enum(['primary', 'standby', 'none']),
  state: z.enum([
    'starting',
    'running',
    'streaming',
    'catching-up',
    'rewinding',
    'cloning',
    'stopped',
    'fenced',
    'waiting',
  ]),
  timeline: timeline.optional(),
  systemIdentifier: z.string().optional(),
  postgresVersion: z.string().optional(),
  agentVersion: z.string(),
  receivedLsn: lsnText.optional(),
  replayedLsn: lsnText.optional(),
  /** The last term in which the data were begun to be promoted; 0: never. Older versions do not say it. */
  promotedTerm: z.int().min(0).optional(),
  /** While Postgres is down: the data go at least up to here. */
  heldLsn: lsnText.optional(),
  /** Instances whose agents have answered this one lately. */
  reaches: z.array(name).optional(),
  /** Bytes behind the leader, as far as this agent knows. */
  lagBytes: z.int().min(0).optional(),
  pendingRestart: pendingRestart.optional(),
  /** The generation of `config` that this agent runs with. */
  configGeneration: z.int().min(0).optional(),
  problem: z.object({ reason: z.string(), message: z.string() }).optional(),
  /** Set by the leader's agent: why commits or the synchronous set are not as asked for. */
  syncProblem: z.object({ reason: z.string(), message: z.string() }).optional(),
  /** A slot that is not Koschei's holds much WAL, or has lost it. */
  slotProblem: z.object({ reason: z.string(), message: z.string() }).optional(),
  /**
   * The last request of the present term that this agent refused or could not carry out, and why: of switchovers as the
   * leader, of failovers as the candidate.
   */
  refusedRequest: z
    .object({
      revision: z.string(),
      message: z.string(),
      kind: z.enum(['switchover', 'failover']).optional(),
    })
    .optional(),
});
export type MemberValue = z.infer<typeof memberValue>;

/** Timing of leadership, milliseconds. Checked bounds: see `checkTiming`. */
export const timing = z.object({
  ttlMs: z.int().min(4_000).max(60_000),
  heartbeatMs: z.int().min(250).max(10_000),
  requestTimeoutMs: z.int().min(250).max(10_000),
  /** koschei-init ends within 1.1 s of the deadline whatever the agent does (images/koschei-init, AGENT_FIRST_MS). */
  fenceBudgetMs: z.int().min(1_200).max(10_000),
});
export type Timing = z.infer<typeof timing>;

/** The longest pause of automatic failover, ms. */
export const longestPauseMs = 86_400_000;

/** What may be said of one instance; see `src/agent/ha/options.ts` for what it means. */
export const instanceOptions = z.object({
  noFailover: z.boolean().optional(),
  priority: z.int().min(0).max(100).optional(),
  /** An instance, or `standby`: any that streams from the primary. */
  streamFrom: name.optional(),
  /** It replays commits only so many seconds after they were made; with `noFailover`. */
  applyDelaySeconds: z.int().min(1).max(2_147_483).optional(),
});
export type InstanceOptions = z.infer<typeof instanceOptions>;

/** `config`: written by the operator, compare-and-swap on the generation. */
export const configValue = z.object({
  generation: z.int().min(1),
  synchronous: z.int().min(0).max(8),
  durability: z.enum(['required', 'preferred']),
  fencing: z.enum(['fast', 'strict']),
  timing,
  /** Instance names that belong to the cluster; an instance that is not listed never stands. */
  members: z.array(name).max(64),
  /** The user's Postgres parameters, already checked against those Koschei owns. */
  parameters: z.record(z.string(), z.string()),
  hba: z.array(z.string()),
  /** What the spec says of single instances, by name; also of names that no instance has at the moment. */
  instances: z.record(name, instanceOptions).optional(),
  /** Mode `async`: who is further behind the leader's last known position does not stand, bytes; absent: no bound. */
  maximumLagBytes: z.int().min(0).optional(),
  /**
   * No automatic failover. `until` is what the person said, and names this pause; nobody compares it with a clock. `forMs`:
   * how long it was to last when it was written.
   */
  paused: z.object({ until: z.string().max(64), forMs: z.int().min(1).max(longestPauseMs) }).optional(),
  /** Zone by node, of nodes with the label `topology.kubernetes.io/zone`: an agent cannot see labels of nodes. */
  zones: z.record(name, z.string().max(63)).optional(),
  logLevel: z.enum(['debug', 'info', 'warn']),
  /** What Postgres is to store for the application's password; the password itself is in the Secret only. */
  appPasswordVerifier: z
    .string()
    .regex(/^SCRAM-SHA-256\$\d+:[A-Za-z0-9+/=]+\$[A-Za-z0-9+/=]+:[A-Za-z0-9+/=]+$/)
    .optional(),
  /**
   * The state of the cluster was lost, and a person has decided which instance goes on: it alone may found the cluster
   * anew, on a timeline and in a term that are greater than these. What only others hold is given up.
   */
  adopt: z.object({ instance: name, timeline, term: term.optional() }).optional(),
});
export type ConfigValue = z.infer<typeof configValue>;

/** `request`: created by the operator or a person, consumed by the leader (or by the candidate of a failover). */
export const requestValue = z.discriminatedUnion('kind', [
  z.object({
    id: z.string().min(1).max(64),
    kind: z.literal('switchover'),
    to: name.optional(),
    by: z.string().max(200),
  }),
  /**
   * The primary is lost with all that could take over without loss, and a person has decided that `to` takes over. It is
   * about this data and this boot of its agent, and about the leader of this term: nothing else was decided about.
   */
  z.object({
    id: z.string().min(1).max(64),
    kind: z.literal('failover'),
    to: name,
    dataId,
    bootId: z.string().min(8),
    term,
    /** The person has been told what may be lost, and accepts it. */
    acceptLoss: z.boolean().optional(),
    /** The person has made sure that the old primary does not run. */
    primaryIsOff: z.boolean().optional(),
    by: z.string().max(200),
  }),
]);
export type RequestValue = z.infer<typeof requestValue>;

/** `command/<instance>`: one order of the operator to one agent, deleted by the agent when done. */
export const commandValue = z.object({ id: z.string().min(1).max(64), do: z.enum(['restart', 'reclone']) });
export type CommandValue = z.infer<typeof commandValue>;

/** `history/<term>`: create only, written before traffic is opened. */
export const historyValue = z.object({
  term,
  instance: name,
  dataId,
  timeline,
  lsn: lsnText,
  why: z.string().max(300),
  at: z.iso.datetime(),
  lossAccepted: z.boolean(),
});
export type HistoryValue = z.infer<typeof historyValue>;

/** Defaults of the leadership timing. `ttl` may be changed by the spec. */
export const defaultTiming: Timing = {
  ttlMs: 6_000,
  heartbeatMs: 1_000,
  requestTimeoutMs: 1_000,
  fenceBudgetMs: 1_500,
};

/** Relative error allowed between two machines' clock rates. */
export const clockRateError = 0.01;

/**
 * How long after sending its last good heartbeat a leader starts to fence, milliseconds:
 * `ttl * (1 - clockRateError) - fenceBudget`, so that it is fenced before any observer has counted a whole ttl.
 */
export function leaderGraceMs(t: Timing): number {
  return Math.floor(t.ttlMs * (1 - clockRateError)) - t.fenceBudgetMs;
}

/**
 * Why these timings cannot be used, or undefined. The grace must exceed a heartbeat, a request that runs into its
 * deadline and one etcd election (about 1 s with a 500 ms election timeout), else etcd's own failover causes one of
 * Postgres.
 */
export function checkTiming(t: Timing): string | undefined {
  const needed = t.heartbeatMs + t.requestTimeoutMs;
  const grace = leaderGraceMs(t);
  return grace >= needed
    ? undefined
    : `ttl ${t.ttlMs} ms leaves a grace of ${grace} ms; heartbeat + request timeout need ${needed} ms: raise the ttl`;
}
