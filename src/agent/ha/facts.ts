import type { ClusterView, LeaderValue, MemberRef, Stamped, SyncValue, Timing } from '../../dcs/index.ts';

/**
 * What the agent knows at one moment. Times are milliseconds on the boot-time clock (it counts while the machine is
 * suspended). "Not known" is `undefined` or a state of its own, never the same as "not there".
 */
export interface Facts {
  readonly now: number;
  readonly me: Me;
  readonly volume: Volume;
  /** The data volume and, if there is one, the WAL volume: does what is written to them become durable? */
  readonly storage: readonly StorageFacts[];
  readonly dcs: Dcs;
  readonly postgres: PostgresFacts;
  /** What the other agents answered, by instance name. */
  readonly peers: ReadonlyMap<string, PeerFacts>;
  /** What the other agents answered to questions for a promise (rule R11), by instance name. */
  readonly promises: ReadonlyMap<string, PromiseFacts>;
  /** The settings that Postgres runs with (or will start with), as far as this agent wrote and verified them. */
  readonly applied?: AppliedSettings;
  /** SIGTERM was received. */
  readonly stopRequested: boolean;
}

export interface Me {
  readonly clusterId: string;
  readonly instance: string;
  readonly bootId: string;
  readonly address: string;
  readonly node: string;
}

/** The data directory. */
export type Volume =
  /** Not yet read since this agent was started: its disk may be stalled. */
  | { readonly state: 'unknown' }
  | { readonly state: 'empty' }
  /** Something was interrupted half-way: never to be started, to be cloned anew. */
  | { readonly state: 'tainted'; readonly why: string }
  | {
      readonly state: 'ready';
      readonly dataId: string;
      readonly systemIdentifier: string;
      /** Made by initdb for a new cluster that has no leader yet. */
      readonly bootstrap: boolean;
      /** The last term in which this directory began to be promoted; 0: never. Fsynced before a promotion (rule R5). */
      readonly promotedTerm: number;
      /** The timeline of the last checkpoint, when Postgres is not running. */
      readonly timeline: number;
      /** The last promotion led to this timeline from another one than was meant (rule R6). */
      readonly wrongParent?: boolean;
    };

/** What a process that writes to a volume and waits for the disk has to say, again and again. */
export interface StorageFacts {
  readonly volume: 'data' | 'WAL';
  /** When a write was last seen to be durable, or when that was first looked for. */
  readonly goodAt: number;
  /** Up to when it was looked for; what kept this agent or the writing process from running does not count. */
  readonly lookedAt: number;
  /** Free bytes then; undefined: not known. */
  readonly freeBytes?: number;
  /** Why the last write failed, if it did not just take long. */
  readonly failure?: string;
}

export interface Dcs {
  readonly view: ClusterView;
  /** When the newest answered linearizable read was sent. */
  readonly readAt: number | undefined;
}

export interface PostgresFacts {
  /**
   * `leftovers`: processes of a former postmaster are still alive. `ended`: nothing can be acknowledged any more, but the
   * volume has not been read since, or processes in uninterruptible sleep still hold it; nothing may be started on it.
   */
  readonly process: 'none' | 'starting' | 'running' | 'leftovers' | 'ended';
  /** How this agent started the process; undefined when none. */
  readonly startedAs?: 'primary' | 'standby';
  /** When the process started or ended. */
  readonly since: number;
  /** The newest answer of Postgres itself. */
  readonly observation?: Observation;
  /** Postgres said that WAL it needs is no longer to be had from its primary. */
  readonly walLost: boolean;
}

/** One look at Postgres, all of it from one statement. */
export interface Observation {
  /** When the query was sent. */
  readonly at: number;
  readonly inRecovery: boolean;
  readonly timeline: number;
  /** Primary: flushed up to here. */
  readonly flushLsn?: bigint;
  /** Standby: received and flushed up to here. */
  readonly receivedLsn?: bigint;
  /** Standby: the timeline of that, while there is a receiver. */
  readonly receivedTimeline?: number;
  readonly replayedLsn?: bigint;
  /** Standby: it replays what was on its disk when it was started; it may hold more than the positions say. */
  readonly replaysLocalWal?: boolean;
  /** Primary: slots that are to survive a failover; standby: those of which it has a copy that can be used. */
  readonly failoverSlots?: readonly string[];
  /** Standby: it has WAL that it is not yet to replay. */
  readonly waitsToApply?: boolean;
  readonly receiver?: { readonly status: string; readonly senderHost: string };
  readonly walsenders: readonly Walsender[];
  /** How long the longest waiting commit has waited for a synchronous standby, ms; 0: none waits. */
  readonly commitWaitMs: number;
  readonly pendingRestart: readonly string[];
  /** Names of owned settings whose live value or source is not ours. */
  readonly overridden: readonly string[];
}

export interface Walsender {
  readonly applicationName: string;
  readonly state: string;
  /** Priority in `synchronous_standby_names` as this walsender sees it; 0: not named. */
  readonly syncPriority: number;
  readonly flushLsn?: bigint;
}

export interface PeerFacts {
  /** When the newest answered question was sent. */
  readonly at: number;
  readonly answer: PeerAnswer;
  /** Since that answer every question was turned away at its address at once (nobody listens there), so often. */
  readonly refused?: { readonly since: number; readonly times: number };
}

/** What an agent answers to a probe, computed when answering. */
export interface PeerAnswer {
  readonly instance: string;
  readonly dataId?: string | undefined;
  readonly bootId: string;
  /**
   * `primary`: leads `term` now, with a deadline open for another `openMs` and a database that answered within the last
   * interval. `fenced`: led `term` and has made sure that its Postgres acknowledges nothing.
   */
  readonly state: 'primary' | 'standby' | 'fenced' | 'unknown';
  readonly term: number;
  readonly openMs: number;
  readonly timeline?: number | undefined;
  readonly receivedLsn?: bigint | undefined;
  readonly replayedLsn?: bigint | undefined;
  /** Standby: the instance that it streams from, while it does; older versions do not say it. */
  readonly streamsFrom?: string | undefined;
  /** Standby: the failover slots of which it has a copy that can be used; older versions do not say it. */
  readonly failoverSlots?: readonly string[] | undefined;
  /** Standby: it may hold more than that (see `Observation`). */
  readonly replaysLocalWal?: boolean | undefined;
  /** What is written to its volumes does not become durable: no commit that waits for it will be acknowledged soon. */
  readonly storageStalled?: boolean | undefined;
  /** Primary: the control file is on the current timeline, so pg_rewind may use it as a source. */
  readonly checkpointed: boolean;
  /** Primary: ancestors of its timeline: `timeline` ended at `end`. */
  readonly ancestors: readonly { readonly timeline: number; readonly end: bigint }[];
}

/** A leader that cannot reach etcd asks a member not to stand for `ttlMs` (rule R11). */
export interface PromiseRequest {
  readonly clusterId: string;
  readonly leader: MemberRef;
  readonly bootId: string;
  readonly term: number;
  readonly ttlMs: number;
  readonly to: MemberRef;
}

/** What it says to that; what it was asked comes back with it. */
export interface PromiseAnswer {
  readonly by: MemberRef;
  readonly clusterId: string;
  readonly bootId: string;
  readonly term: number;
  readonly ttlMs: number;
  readonly promised: boolean;
  /** Why not. */
  readonly because?: string | undefined;
}

export interface PromiseFacts {
  /** When the newest question that has ended, with or without an answer, was sent. */
  readonly at: number;
  readonly answer: PromiseAnswer | { readonly promised: false; readonly because: string };
}

/** Where a standby streams from. */
export interface Upstream {
  readonly instance: string;
  readonly address: string;
  /** It is a standby itself. */
  readonly cascades?: true;
}

/** The standby that this one is to stream from, as it was seen. */
export interface Cascade {
  readonly instance: string;
  /** Since when it has said, again and again, that it streams from the primary. */
  readonly since: number;
  /** When it was last asked that said so. */
  readonly goodAt: number;
  /** When the synchronous set was last seen complete: while it is not, this standby may be needed in it. */
  readonly wholeAt: number;
  /** Since when this standby has asked it for WAL in vain. */
  readonly unservedSince?: number;
  /** It did not serve this standby, which streams from the primary until then. */
  readonly detourUntil?: number;
}

/** Everything about Postgres's configuration that the decisions set. */
export interface Settings {
  /** `application_name`s, all required; empty: no synchronous replication. */
  readonly synchronousNames: readonly string[];
  readonly upstream?: Upstream;
  /** How much later than its primary a standby replays, seconds; undefined: at once. */
  readonly applyDelaySeconds?: number | undefined;
  /** False: only local connections and replication are let in. */
  readonly clientsAllowed: boolean;
}

export interface AppliedSettings extends Settings {
  /** The generation of the cluster's `config` in use. */
  readonly generation: number;
}

/**
 * What others may go by: the last write of the leader key that certainly happened, and each one after it that may have
 * happened or may still.
 */
export interface Written {
  /** On any of the lists. */
  readonly members: readonly MemberRef[];
  /** In any of the synchronous sets. */
  readonly names: readonly MemberRef[];
  /** Any of the modes is `async`. */
  readonly async: boolean;
  /** The shortest ttl. */
  readonly ttlMs: number;
}

/** One leadership term of this boot. */
export interface Reign {
  readonly term: number;
  readonly timeline: number;
  /** The leader key's revision that this boot wrote last. */
  readonly revision: string;
  /** A transaction ended without a definite answer (or this boot has just adopted the key): rule R2. */
  readonly barrier: boolean;
  /** Fencing starts here; moved by each good heartbeat, counted from its sending, and by promises (rule R11). */
  readonly deadline: number;
  /** When the last good write was sent. */
  readonly goodAt: number;
  /** As configured last: a configuration that cannot be read must not end a reign. */
  readonly timing: Timing;
  readonly written: Written;
  readonly beat: number;
  /** etcd's `sync` as of the last definite answer. */
  readonly sync: SyncValue;
  /**
   * `start`: Postgres is to be started as primary on the data it has (first start, or restart in place);
   * `promote`: a standby is to be promoted; `history`: promoted, not yet in the history; `leading`: done.
   */
  readonly stage: 'start' | 'promote' | 'history' | 'leading';
  /** When this reign began, or when Postgres was last down in it. */
  readonly since: number;
  /** Clients may connect: every name in `sync` holds what this primary began with. */
  readonly open: boolean;
  /** The leader that was taken from, if it holds all that this primary began with: it need not say so. */
  readonly heldBy?: MemberRef | undefined;
  /** Where this primary's own history began, for `open` and for `history`. */
  readonly beginLsn?: bigint;
  readonly why: string;
  /** A person has decided to go on with this instance, whatever others hold. */
  readonly lossAccepted?: boolean;
}

/** A planned or forced hand-over of leadership under way at the leader. */
export interface Handover {
  readonly reason: string;
  readonly requestRevision?: string;
  readonly target?: MemberRef;
  readonly phase: 'prepare' | 'checkpoint' | 'stop' | 'verify' | 'vacate';
  readonly since: number;
  /** The target cannot be asked (rule "Leave"); as a member of `sync` it holds every acknowledged commit. */
  readonly unreachable?: true;
  /** Where the shutdown's checkpoint record begins, the last one of the clean stop. */
  readonly stoppedAt?: bigint;
}

/** A candidate's way to leadership. */
export interface Takeover {
  readonly phase: 'stop-receiver' | 'take';
  readonly since: number;
  readonly leaderRevision: string;
  readonly syncRevision: string;
  readonly why: string;
  /** The old leader, if this instance's WAL is known to be a prefix of that one's. */
  readonly heldBy?: MemberRef;
  /** The request of a person that this carries out, and the loss that is accepted with it. */
  readonly asked?: { readonly revision: string; readonly accepts: string | undefined };
  /** Nobody else will be in `sync`: every name in it holds what this instance holds. */
  readonly level: boolean;
}

/** What the agent remembers between decisions. */
export interface HaState {
  readonly bootedAt: number;
  /** The leader key's newest revision and when this observer first saw it. */
  readonly leaderSeen?: {
    readonly revision: string;
    readonly at: number;
    /** The revision of `initialize` then: another one means that the state was founded anew. */
    readonly initialize?: string | undefined;
  };
  /** Etcd's revisions went back: it was restored from an old copy, until `initialize` has another revision than this. */
  readonly stateLost?: { readonly initialize: string | undefined };
  /** When the present leader last proved that it leads, or when this boot began to look. */
  readonly proofAt: number;
  /** The term in which a leader last proved that to this boot. */
  readonly provedTerm?: number;
  readonly reign?: Reign;
  /** The pause of automatic failover in force, and when this boot first saw it. */
  readonly pause?: { readonly until: string; readonly since: number };
  /** Of a leader without a good heartbeat: who promised not to stand, and who did not and why. Until etcd answers. */
  readonly failsafe?: {
    /** When the last good heartbeat was sent. */
    readonly since: number;
    readonly promised: readonly string[];
    readonly missing: readonly { readonly instance: string; readonly because: string }[];
  };
  /** What this agent has promised last (rule R11): not to stand because of the leader's silence for this long. */
  readonly promise?: {
    readonly to: MemberRef;
    readonly term: number;
    /** When it was given. */
    readonly at: number;
    readonly ttlMs: number;
  };
  /** The term that this boot led and has fenced, told to the peers. */
  readonly fencedTerm?: number;
  /** When that was done. */
  readonly fencedAt?: number;
  /** The deadline of a reign that has ended, while Postgres could still acknowledge a write. */
  readonly lastDeadline?: number;
  readonly transaction?: { readonly id: number; readonly write: LeaderWrite; readonly sentAt: number };
  /** When the newest write of the leader key was sent. */
  readonly lastWriteAt?: number;
  readonly operation?: { readonly id: number; readonly operation: Operation; readonly since: number };
  readonly nextId: number;
  readonly takeover?: Takeover;
  /** After a failed attempt, no takeover is begun before this. */
  readonly standAfter?: number;
  readonly handover?: Handover;
  /** `synchronous_standby_names` as wanted, in order. */
  readonly syncNames: readonly string[];
  /** The addition to the synchronous set under way (rule R8). */
  readonly joining?: {
    readonly names: readonly string[];
    readonly settledAt?: number;
    readonly target?: bigint;
  };
  /** True once a commit was seen to wait since the names were last empty (rule R8). */
  readonly waitProved: boolean;
  /** Failed attempts in a row, for bounded retries. */
  readonly attempts: {
    readonly start: number;
    readonly rewind: number;
    readonly clone: number;
    readonly promote: number;
  };
  /** The data directory was cloned, and Postgres has not run on it yet: another copy would not help it to start. */
  readonly freshCopy?: true;
  /** Reigns in a row that ended because Postgres was not ready in time: each makes the next more patient. */
  readonly yielded: number;
  readonly retryAt: number;
  /** After a clone that failed, none is begun before this. */
  readonly cloneAfter?: number;
  /** After a fence that failed, none is begun before this; unset by one that succeeds. */
  readonly fenceAfter?: number;
  /** Since when this standby has looked diverged from the leader of that term. */
  readonly diverged?: { readonly term: number; readonly since: number };
  /** When this standby was last seen streaming from its primary. */
  readonly streamedAt?: number;
  /** The standby that this one is to stream from. */
  readonly cascade?: Cascade;
  /** When this boot last handed over because it reached no standby. */
  readonly leftAt?: number;
  /** The operator's order being carried out. */
  readonly commandId?: string;
  /** An order that has been carried out, until it has disappeared; and when that was asked for last. */
  readonly finishedCommand?: { readonly id: string; readonly at: number };
  /** A request that was refused, or failed, and is never to be carried out; and in which term it was. */
  readonly refusedRequest?: {
    readonly revision: string;
    readonly because: string;
    readonly term: number;
    readonly kind?: 'failover';
  };
  /** The failover to this instance that is asked for, and when this boot first saw it. */
  readonly asked?: { readonly revision: string; readonly at: number };
  readonly problem?: { readonly reason: string; readonly message: string };
  /** The operation whose failure `problem` is. */
  readonly problemOf?: Operation['do'];
  readonly syncProblem?: { readonly reason: string; readonly message: string };
}

/** One write of the `leader` key and what goes with it, in one transaction (rule R1). */
export interface LeaderWrite {
  readonly kind: 'bootstrap' | 'resume' | 'new-term' | 'take' | 'heartbeat' | 'sync' | 'history' | 'vacate';
  readonly leader: LeaderValue;
  /** Revisions compared; `'0'`: must not exist; undefined: not compared. */
  readonly expectLeader: string;
  readonly expectSync?: string;
  /** The request that this carries out: nobody may have taken it back. */
  readonly expectRequest?: string;
  readonly sync?: SyncValue;
  readonly initialize?: { readonly systemIdentifier: string };
  readonly history?: { readonly lsn: bigint; readonly why: string; readonly lossAccepted: boolean };
  readonly deleteRequest?: boolean;
}

export type TransactionOutcome =
  | { readonly kind: 'done'; readonly revision: string; readonly sync: Stamped<SyncValue> | undefined }
  | {
      readonly kind: 'refused';
      readonly leader: Stamped<LeaderValue> | undefined;
      readonly sync: Stamped<SyncValue> | undefined;
    }
  | { readonly kind: 'unknown'; readonly message: string };

/** Slow work on Postgres; one at a time, and only `fence` interrupts another. */
export type Operation =
  | { readonly do: 'start'; readonly as: 'standby'; readonly settings: Settings }
  | {
      readonly do: 'start';
      readonly as: 'primary';
      readonly settings: Settings;
      /** Stored in the data directory before the start: a cluster is founded on it once. */
      readonly term: number;
      readonly timeline: number;
    }
  | { readonly do: 'stop' }
  /** `atOnce`: a Postgres that waits for its disk is not asked first. */
  | { readonly do: 'fence'; readonly why: string; readonly atOnce?: true }
  | { readonly do: 'configure'; readonly settings: Settings }
  | { readonly do: 'stop-receiver'; readonly settings: Settings }
  | {
      readonly do: 'promote';
      readonly term: number;
      readonly timeline: number;
      readonly settings: Settings;
      readonly slots: readonly string[];
    }
  | { readonly do: 'prove-wait' }
  | { readonly do: 'checkpoint' }
  | { readonly do: 'rewind'; readonly upstream: Upstream }
  | { readonly do: 'clone'; readonly upstream: Upstream };

export type OperationOutcome =
  | {
      readonly ok: true;
      /**
       * `promote`, `start` as primary: where the new history began. `stop`: where the shutdown's checkpoint record
       * begins (the control file's "Latest checkpoint location").
       */
      readonly lsn?: bigint;
    }
  | { readonly ok: false; readonly reason: string; readonly message: string; readonly needsClone?: boolean };

export type Command =
  | { readonly kind: 'transact'; readonly id: number; readonly write: LeaderWrite; readonly because: string }
  | { readonly kind: 'operate'; readonly id: number; readonly operation: Operation; readonly because: string }
  /** Delete the operator's order of this id, and say in the log how it ended. */
  | { readonly kind: 'finish-command'; readonly commandId: string; readonly because: string }
  /** Delete a request that cannot be granted. */
  | { readonly kind: 'refuse-request'; readonly revision: string; readonly because: string }
  /** Read etcd linearizably: a decision waits for it. */
  | { readonly kind: 'read'; readonly because: string }
  /** Everything is down; leave. */
  | { readonly kind: 'exit'; readonly because: string };

export type Input =
  | { readonly kind: 'tick' }
  | { readonly kind: 'transaction'; readonly id: number; readonly outcome: TransactionOutcome }
  | { readonly kind: 'operation'; readonly id: number; readonly outcome: OperationOutcome };

export interface Decision {
  readonly state: HaState;
  readonly commands: readonly Command[];
}
