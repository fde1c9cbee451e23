import { setTimeout as sleep } from 'node:timers/promises';
import {
  type ClusterKeys,
  type ClusterStore,
  type Etcd,
  EtcdError,
  type Operation as EtcdOperation,
  type KeyValue,
  leaderValue as leaderSchema,
  type MemberValue,
  parseJson,
  type Stamped,
  syncValue as syncSchema,
} from '../dcs/index.ts';
import type { Logger } from '../log/logger.ts';
import { formatLsn, parseLsn } from '../postgres/index.ts';
import type { Database } from './database.ts';
import type { Guard } from './guard.ts';
import {
  answerProbe,
  type Command,
  decide,
  type Facts,
  failsafeProblem,
  fenceDeadline,
  freshMs,
  givePromise,
  type HaState,
  type Input,
  initialState,
  type LeaderWrite,
  type Me,
  noDataId,
  nothingKnown,
  type PeerAnswer,
  type PromiseAnswer,
  type PromiseRequest,
  planSlots,
  promisesToAsk,
  rememberData,
  slotPositions,
  stalledStorage,
  standbyStorageSilenceMs,
  storageProblem,
  type TransactionOutcome,
} from './ha/index.ts';
import type { Membership } from './membership.ts';
import type { PeerAddress, Peers } from './peers.ts';
import type { Routing } from './routing.ts';
import { slotProblem } from './slot-problem.ts';
import type { Storage } from './storage.ts';

export interface AgentOptions {
  readonly me: Me & {
    readonly podUid: string;
    readonly agentVersion: string;
    readonly postgresVersion: string;
  };
  readonly now: () => number;
  readonly wallClock: () => Date;
  readonly etcd: Etcd;
  readonly keys: ClusterKeys;
  readonly store: ClusterStore;
  readonly database: Database;
  readonly storage: Storage;
  readonly peers: Peers;
  readonly guard: Guard;
  readonly membership: Membership;
  readonly routing: Routing;
  readonly hostOf: (instance: string) => string;
  readonly log: Logger;
  readonly onExit: () => void;
}

/** How often the rules are looked at when nothing happens, ms. */
const tickMs = 100;
/** The boot-time clock's resolution, ms, outside koschei-init; and timers may be a little early. */
const clockStepMs = 10;
/** How often Postgres is looked at, ms: while something is under way, on a primary, on a standby. */
const observeEveryMs = { urgent: 10, busy: 40, primary: 250, standby: 500 } as const;
/** How long a look at Postgres may take that somebody waits for, ms. */
const lookTimeoutMs = 400;
/** For how long after a reign began, or Postgres was down in it, each look at Postgres is urgent, ms. */
const urgentAfterTakeoverMs = 3_000;
/** How often the other agents are asked, ms. */
const probeEveryMs = { leader: 250, syncOfLeader: 250, handover: 50, verify: 20, other: 1_000 } as const;
/** An instance is said to be reached when it answered a question of less than this ago, ms: of one of the last three. */
const reachedForMs = 3_000;
const slotsEveryMs = 10_000;
/** How often the copies of failover slots are brought up to date, ms. */
const copySlotsEveryMs = 5_000;
/** How often setting the application's password is tried, ms. */
const passwordEveryMs = 5_000;
/** How often it is looked at whether the member key should change, ms. */
const publishEveryMs = 200;

/**
 * The driver: puts together what is known, asks the pure rules, and carries out what they say. It decides nothing
 * itself, and nothing here waits for anything: results come back as inputs.
 */
export class Agent {
  readonly #o: AgentOptions;
  #state: HaState;
  #stopRequested = false;
  #exited = false;
  #reading = false;
  #observing = false;
  #observedAt = 0;
  #slotsAt = 0;
  #publishedAt = 0;
  #slots: readonly string[] = [];
  #slotsCopiedAt = 0;
  /** The term and the verifier of the application's password that Postgres was last seen to have. */
  #passwordSet = '';
  #passwordAt = Number.NEGATIVE_INFINITY;
  #knownData = nothingKnown;
  /** Where each other agent was last, by instance. */
  readonly #addresses = new Map<string, string>();
  #timer: NodeJS.Timeout | undefined;
  #lastTickAt: number;
  #announced = '';
  /** What was said last of a leader without etcd. */
  #failsafe: string | undefined;
  #silence: { readonly at: number; readonly text: string } | undefined;
  /** What was said last to a leader that asked for a promise. */
  #promised = '';
  #deadline = 0;
  #wakeAtDeadline: NodeJS.Timeout | undefined;
  #refused = new Set<string>();

  constructor(options: AgentOptions) {
    this.#o = options;
    this.#state = initialState(options.now());
    this.#lastTickAt = options.now();
  }

  start(): void {
    this.#timer = setInterval(() => this.tick(), tickMs);
    this.tick();
  }

  /** Hands over or stops Postgres, then calls `onExit`. */
  requestStop(): void {
    this.#stopRequested = true;
    this.tick();
  }

  /** Looks at everything anew; called whenever something may have changed. */
  tick(): void {
    this.#step({ kind: 'tick' });
  }

  get state(): HaState {
    return this.#state;
  }

  /** A peer has said something by itself; see `Peers.hear`. What cannot be true of a member is not taken in. */
  hear(answer: PeerAnswer): void {
    const { view } = this.#o.store;
    const isMember = view.config?.value.members.includes(answer.instance) === true;
    // Its own new term may be known to it before it is known here.
    const isPlausible = answer.term <= (view.leader?.value.term ?? 0) + 1;
    if (isMember && isPlausible && answer.dataId === view.members.get(answer.instance)?.value.dataId)
      this.#o.peers.hear(answer);
  }

  /** A leader that cannot reach etcd asks this agent not to stand (rule R11). */
  promise(asked: PromiseRequest): PromiseAnswer {
    const { state, answer } = givePromise(this.#state, this.#facts(), asked);
    this.#state = state;
    const said = answer.promised ? `promised ${asked.leader.instance}` : (answer.because ?? '');
    if (said !== this.#promised)
      this.#o.log.info(
        {
          leader: asked.leader.instance,
          term: asked.term,
          promised: answer.promised,
          because: answer.because,
        },
        'asked not to stand for election: the leader cannot reach etcd',
      );
    this.#promised = said;
    return answer;
  }

  answer(): PeerAnswer {
    const { database } = this.#o;
    return {
      ...answerProbe(this.#state, this.#facts()),
      checkpointed: database.checkpointed,
      ancestors: database.ancestors.map(({ timeline, end }) => ({ timeline, end })),
    };
  }

  /** What this agent answers after a look at its Postgres. */
  async look(): Promise<PeerAnswer> {
    await this.#o.database.observe(lookTimeoutMs);
    return this.answer();
  }

  /** Alive: the loop turns. A database that is fine is never killed because etcd or Kubernetes is away. */
  live(): { ok: boolean; why: string } {
    const late = this.#o.now() - this.#lastTickAt;
    return late < 10_000
      ? { ok: true, why: 'ok' }
      : { ok: false, why: `the loop has stood still for ${late} ms` };
  }

  ready(): { ok: boolean; why: string } {
    const facts = this.#facts();
    const { reign } = this.#state;
    const o = facts.postgres.observation;
    const stalled = stalledStorage(facts, standbyStorageSilenceMs);
    if (stalled !== undefined)
      return { ok: false, why: `nothing written to the ${stalled.volume} volume becomes durable` };
    if (facts.postgres.process !== 'running' || o === undefined || facts.now - o.at > 3_000)
      return { ok: false, why: `Postgres: ${facts.postgres.process}` };
    if (reign !== undefined)
      return reign.stage === 'leading' && reign.open && !o.inRecovery
        ? { ok: true, why: 'primary' }
        : { ok: false, why: `primary: ${reign.stage}` };
    // A standby that has lost its primary still answers queries; an old primary is out until it streams.
    const streams = o.receiver?.status === 'streaming' || facts.dcs.view.leader?.value.phase !== 'leading';
    const isDelayed = facts.applied?.applyDelaySeconds !== undefined;
    return o.inRecovery && (streams || this.#streamedBefore || isDelayed)
      ? { ok: true, why: streams ? 'standby: streaming' : 'standby: not streaming now' }
      : { ok: false, why: 'standby: not streaming yet' };
  }

  status(): unknown {
    const { transaction, operation, reign, ...rest } = this.#state;
    return JSON.parse(
      JSON.stringify(
        {
          ...rest,
          operation: operation?.operation.do,
          transaction: transaction?.write.kind,
          reign,
          member: this.#member(),
        },
        (_key, value: unknown) => (typeof value === 'bigint' ? formatLsn(value) : value),
      ),
    );
  }

  /** This data has streamed from a leader since Postgres was started. */
  #streamedBefore = false;

  #facts(): Facts {
    const { database, storage, store, peers, me, now } = this.#o;
    const { clusterId, instance, bootId, address, node } = me;
    const applied = database.applied;
    return {
      now: now(),
      me: { clusterId, instance, bootId, address, node },
      volume: database.volume,
      storage: storage.facts,
      dcs: { view: store.view, readAt: store.readAt },
      postgres: database.facts,
      peers: peers.facts,
      promises: peers.promises,
      ...(applied === undefined ? {} : { applied }),
      stopRequested: this.#stopRequested,
    };
  }

  #step(input: Input): void {
    if (this.#exited) return;
    this.#lastTickAt = this.#o.now();
    const before = this.#state;
    const facts = this.#facts();
    const decision = decide(before, input, facts);
    this.#state = decision.state;
    // First the guard: it must know the deadline before anything opens that it has to close.
    this.#keepDeadline(fenceDeadline(this.#state, facts), facts.now);
    for (const command of decision.commands) this.#carryOut(command);
    this.#followUp(facts, before);
  }

  /** Tells koschei-init, and looks just when the deadline is over: koschei-init fences 200 ms after it, agent and all. */
  #keepDeadline(deadline: number, now: number): void {
    this.#o.guard.deadline(deadline);
    if (deadline === this.#deadline) return;
    this.#deadline = deadline;
    clearTimeout(this.#wakeAtDeadline);
    if (deadline > now)
      this.#wakeAtDeadline = setTimeout(() => this.tick(), Math.ceil(deadline - now) + clockStepMs);
  }

  #carryOut(command: Command): void {
    const { log } = this.#o;
    switch (command.kind) {
      case 'transact': {
        const level = command.write.kind === 'heartbeat' ? 'debug' : 'info';
        log[level](
          { write: command.write.kind, term: command.write.leader.term, because: command.because },
          'etcd',
        );
        void this.#transact(command.write).then((outcome) => {
          if (outcome.kind !== 'done')
            log.warn(
              {
                write: command.write.kind,
                outcome: outcome.kind,
                ...(outcome.kind === 'unknown' ? { message: outcome.message } : {}),
              },
              'the write did not succeed',
            );
          this.#step({ kind: 'transaction', id: command.id, outcome });
        });
        return;
      }
      case 'operate': {
        const began = this.#o.now();
        log.info({ operation: command.operation.do, because: command.because }, 'Postgres');
        void this.#o.database.operate(command.operation).then((outcome) => {
          const ms = Math.round(this.#o.now() - began);
          if (outcome.ok) log.info({ operation: command.operation.do, ms }, 'done');
          else log.warn({ operation: command.operation.do, ms, reason: outcome.reason }, outcome.message);
          this.#step({ kind: 'operation', id: command.id, outcome });
        });
        return;
      }
      case 'finish-command':
        log.info({ command: command.commandId, because: command.because }, "the operator's order is done");
        void this.#deleteCommand(command.commandId);
        return;
      case 'refuse-request':
        if (this.#refused.has(command.revision)) return;
        this.#refused.add(command.revision);
        log.warn({ because: command.because }, 'the request is refused');
        void this.#delete(this.#o.keys.request, command.revision);
        return;
      case 'read':
        if (this.#reading) return;
        this.#reading = true;
        this.#o.store
          .refresh()
          .catch((error: Error) => log.warn({ err: error }, 'etcd cannot be read'))
          .finally(() => {
            this.#reading = false;
            this.tick();
          });
        return;
      case 'exit':
        this.#exited = true;
        clearInterval(this.#timer);
        log.info(command.because);
        this.#o.onExit();
        return;
    }
  }

  /** Everything that follows from what is known and decided: looking, asking, telling. */
  #followUp(facts: Facts, before: HaState): void {
    const { peers, routing, membership } = this.#o;
    const { reign } = this.#state;
    const o = facts.postgres.observation;
    if (facts.postgres.process !== 'running') this.#streamedBefore = false;
    else if (o?.receiver?.status === 'streaming') this.#streamedBefore = true;

    peers.watch(this.#whomToAsk(facts));
    peers.askPromises(promisesToAsk(this.#state, facts));
    const failsafe = failsafeProblem(this.#state, facts, this.#silentSince(facts));
    if (failsafe?.reason !== this.#failsafe && (failsafe !== undefined || reign !== undefined))
      this.#o.log.warn(
        { reason: failsafe?.reason },
        failsafe?.message ?? 'etcd accepts what this primary writes again',
      );
    this.#failsafe = failsafe?.reason;
    void this.#observeIfDue(facts);

    const leads = reign !== undefined && reign.stage === 'leading' && reign.open && o?.inRecovery === false;
    const role = leads
      ? 'primary'
      : o?.inRecovery === true && facts.postgres.process === 'running'
        ? facts.applied?.applyDelaySeconds === undefined
          ? 'standby'
          : 'delayed'
        : undefined;
    routing.want({ role, leads: leads ? { term: reign.term } : undefined });
    if (facts.now - this.#publishedAt >= publishEveryMs) {
      this.#publishedAt = facts.now;
      void membership.publish(this.#member());
    }

    // Peers learn at once what they would otherwise find out by asking.
    const said = `${reign?.term ?? ''} ${reign?.stage ?? ''} ${this.#state.fencedTerm ?? ''}`;
    if (said !== this.#announced && (before.reign !== undefined || reign !== undefined))
      peers.announce(this.answer());
    this.#announced = said;

    this.#knownData = rememberData(this.#knownData, facts.dcs.view);
    const follows = o?.inRecovery === true && o.receiver?.status === 'streaming';
    if ((leads || follows) && this.#state.operation === undefined) this.#tendSlots(facts);
    if (follows && facts.now - this.#slotsCopiedAt > copySlotsEveryMs) {
      this.#slotsCopiedAt = facts.now;
      this.#o.database
        .wakeSlotSync()
        .catch((error: Error) =>
          this.#o.log.debug({ err: error }, 'the copies of slots are left to themselves'),
        );
    }
    if (leads && this.#state.operation === undefined) this.#keepPassword(facts, reign.term);
  }

  /** Whatever is missing at once, the rest every 10 s. A standby that streams also forgets the data of before. */
  #tendSlots(facts: Facts): void {
    const { database, log } = this.#o;
    const plan = planSlots(this.#knownData, facts.dcs.view, facts.me.instance);
    const isComplete = plan.wanted.every((slot) => this.#slots.includes(slot));
    if (isComplete && facts.now - this.#slotsAt <= slotsEveryMs) return;
    this.#slotsAt = facts.now;
    this.#slots = plan.wanted;
    database
      .tendSlots({ ...plan, positions: slotPositions(facts) })
      .then(() => (facts.postgres.observation?.inRecovery ? database.forgetOldData() : undefined))
      .catch((error: Error) => log.warn({ err: error }, 'slots could not be tended'));
  }

  /** Once per term and password: what a primary of before was told may not have reached this one. */
  #keepPassword({ now, dcs }: Facts, term: number): void {
    const verifier = dcs.view.config?.value.appPasswordVerifier;
    const wanted = `${term} ${verifier}`;
    if (verifier === undefined || wanted === this.#passwordSet || now - this.#passwordAt < passwordEveryMs)
      return;
    this.#passwordAt = now;
    this.#o.database.setAppPassword(verifier).then(
      () => {
        this.#passwordSet = wanted;
      },
      (error: Error) =>
        this.#o.log.warn({ err: error }, "the application's password could not be set; it is tried again"),
    );
  }

  /** Also those whose keys have run out, where they were last: whoever is cut off from etcd alone is not gone. */
  #whomToAsk(facts: Facts): PeerAddress[] {
    const { view } = facts.dcs;
    const leader = view.leader?.value.instance;
    const { cascade } = this.#state;
    const followed =
      cascade === undefined
        ? []
        : [cascade.instance, ...(view.sync?.value.names ?? []).map((m) => m.instance)];
    const { reign, handover } = this.#state;
    const sync = reign?.sync.names.map((m) => m.instance) ?? [];
    // Clients wait for the target to show that it holds everything.
    const awaited = handover?.phase === 'verify' ? handover.target?.instance : undefined;
    for (const { value: m } of view.members.values())
      if (m.address !== '') this.#addresses.set(m.instance, m.address);
    for (const instance of this.#addresses.keys())
      if (view.config?.value.members.includes(instance) === false && !view.members.has(instance))
        this.#addresses.delete(instance);
    return [...this.#addresses]
      .filter(([instance]) => instance !== facts.me.instance)
      .map(([instance, address]) => ({
        instance,
        address,
        host: this.#o.hostOf(instance),
        ...(instance === awaited ? { look: true } : {}),
        everyMs:
          instance === awaited
            ? probeEveryMs.verify
            : handover !== undefined
              ? probeEveryMs.handover
              : instance === leader || followed.includes(instance)
                ? probeEveryMs.leader
                : sync.includes(instance)
                  ? probeEveryMs.syncOfLeader
                  : probeEveryMs.other,
      }));
  }

  async #observeIfDue(facts: Facts): Promise<void> {
    if (this.#observing || facts.postgres.process !== 'running') return;
    if (facts.now - this.#observedAt < observeEveryMs[this.#pace(facts)]) return;
    this.#observing = true;
    this.#observedAt = facts.now;
    await this.#o.database.observe(1_000);
    this.#observing = false;
    const pace = this.#pace(this.#facts());
    if (pace === 'urgent' || pace === 'busy') {
      await sleep(observeEveryMs[pace]);
      this.tick();
    }
  }

  /** Whether something is under way whose next step waits for a look at Postgres, and perhaps clients for that. */
  #pace(facts: Facts): keyof typeof observeEveryMs {
    const { reign, handover, takeover, joining, syncProblem } = this.#state;
    if (takeover !== undefined || joining !== undefined || handover?.phase === 'verify') return 'urgent';
    if (reign !== undefined) {
      const incomplete =
        reign.stage !== 'leading' || !reign.open || syncProblem?.reason === 'WaitingForStandby';
      if (incomplete) return facts.now - reign.since < urgentAfterTakeoverMs ? 'urgent' : 'busy';
      return handover === undefined ? 'primary' : 'busy';
    }
    const leader = facts.dcs.view.leader?.value;
    const refused = leader !== undefined && facts.peers.get(leader.instance)?.refused !== undefined;
    return leader?.phase === 'vacated' || refused ? 'busy' : 'standby';
  }

  /** When the last good heartbeat was sent, in the time of people. */
  #silentSince({ now }: Facts): string {
    const { failsafe } = this.#state;
    if (failsafe === undefined) return '';
    if (this.#silence?.at !== failsafe.since) {
      const began = new Date(this.#o.wallClock().getTime() - (now - failsafe.since));
      this.#silence = { at: failsafe.since, text: `${began.toISOString().slice(0, 19)}Z` };
    }
    return this.#silence.text;
  }

  #member(): MemberValue {
    const facts = this.#facts();
    const { me, database, routing } = this.#o;
    const { reign, operation, syncProblem, refusedRequest } = this.#state;
    const o = facts.postgres.observation;
    const overridden = o === undefined ? [] : o.overridden;
    const problem =
      storageProblem(facts) ??
      failsafeProblem(this.#state, facts, this.#silentSince(facts)) ??
      this.#state.problem ??
      database.problem ??
      (overridden.length > 0
        ? { reason: 'SettingOverridden', message: `overridden from elsewhere: ${overridden.join(', ')}` }
        : routing.problem);
    const running = facts.postgres.process === 'running' && o !== undefined;
    const slots = running ? slotProblem(database.slots) : undefined;
    const received = running ? (o.inRecovery ? o.receivedLsn : o.flushLsn) : undefined;
    const leader = facts.dcs.view.leader?.value;
    const leads = reign !== undefined && running && !o.inRecovery;
    const head = leader?.lsn === undefined || leads ? undefined : parseLsn(leader.lsn);
    const at = received ?? o?.replayedLsn;
    return {
      instance: me.instance,
      dataId: announcedData(facts),
      bootId: me.bootId,
      address: me.address,
      node: me.node,
      reaches: [...facts.peers]
        .filter(([, { at }]) => facts.now - at < reachedForMs)
        .map(([instance]) => instance)
        .toSorted(),
      podUid: me.podUid,
      role: leads ? 'primary' : running && o.inRecovery ? 'standby' : 'none',
      state: stateOf(facts, operation?.operation.do, leads),
      ...(o === undefined ? {} : { timeline: o.timeline }),
      ...(o === undefined && facts.volume.state === 'ready' ? { timeline: facts.volume.timeline } : {}),
      ...(facts.volume.state === 'ready' ? { systemIdentifier: facts.volume.systemIdentifier } : {}),
      postgresVersion: me.postgresVersion,
      agentVersion: me.agentVersion,
      ...(received === undefined ? {} : { receivedLsn: formatLsn(received) }),
      ...(o?.replayedLsn === undefined ? {} : { replayedLsn: formatLsn(o.replayedLsn) }),
      ...(facts.volume.state === 'ready' ? { promotedTerm: facts.volume.promotedTerm } : {}),
      ...(running || database.held === undefined ? {} : { heldLsn: formatLsn(database.held) }),
      ...(head === undefined || at === undefined ? {} : { lagBytes: Number(head > at ? head - at : 0n) }),
      ...(o === undefined || o.pendingRestart.length === 0
        ? {}
        : {
            pendingRestart: {
              settings: o.pendingRestart.toSorted(),
              lowered: database.lowered.filter((name) => o.pendingRestart.includes(name)),
            },
          }),
      ...(facts.applied === undefined ? {} : { configGeneration: facts.applied.generation }),
      ...(problem === undefined ? {} : { problem }),
      ...(leads && syncProblem !== undefined ? { syncProblem } : {}),
      ...(slots === undefined ? {} : { slotProblem: slots }),
      ...(refusedRequest !== undefined && refusedRequest.term === (reign?.term ?? leader?.term)
        ? {
            refusedRequest: {
              revision: refusedRequest.revision,
              message: refusedRequest.because.slice(0, 500),
              ...(refusedRequest.kind === undefined ? {} : { kind: refusedRequest.kind }),
            },
          }
        : {}),
    };
  }

  /** Sends one write of the leader key, once, and reads what the decision needs in the same transaction. */
  async #transact(write: LeaderWrite): Promise<TransactionOutcome> {
    const { etcd, keys, store } = this.#o;
    const timeout = store.view.config?.value.timing.requestTimeoutMs ?? 1_000;
    const operations: EtcdOperation[] = [
      { op: 'put', key: keys.leader, value: JSON.stringify(write.leader) },
    ];
    if (write.sync !== undefined)
      operations.push({ op: 'put', key: keys.sync, value: JSON.stringify(write.sync) });
    const compares = [{ key: keys.leader, modRevision: write.expectLeader }];
    if (write.expectRequest !== undefined)
      compares.push({ key: keys.request, modRevision: write.expectRequest });
    if (write.expectSync !== undefined) compares.push({ key: keys.sync, modRevision: write.expectSync });
    if (write.initialize !== undefined) {
      compares.push({ key: keys.initialize, modRevision: '0' });
      operations.push({
        op: 'put',
        key: keys.initialize,
        value: JSON.stringify({ ...write.initialize, by: write.leader.instance }),
      });
    }
    if (write.history !== undefined) {
      compares.push({ key: keys.history(write.leader.term), modRevision: '0' });
      operations.push({
        op: 'put',
        key: keys.history(write.leader.term),
        value: JSON.stringify({
          term: write.leader.term,
          instance: write.leader.instance,
          dataId: write.leader.dataId,
          timeline: write.leader.timeline,
          lsn: formatLsn(write.history.lsn),
          why: write.history.why.slice(0, 300),
          at: this.#o.wallClock().toISOString(),
          lossAccepted: write.history.lossAccepted,
        }),
      });
    }
    if (write.deleteRequest === true) operations.push({ op: 'delete', key: keys.request });
    const written = operations.filter((op) => op.op === 'put');
    try {
      const result = await etcd.transact(
        compares,
        [...operations, { op: 'get', key: keys.sync }],
        [
          { op: 'get', key: keys.leader },
          { op: 'get', key: keys.sync },
        ],
        timeout,
      );
      if (result.succeeded) {
        store.learn(
          [
            ...written.map((op) => ({ key: op.key, value: op.value })),
            ...(write.deleteRequest === true ? [{ key: keys.request, value: undefined }] : []),
          ],
          result.revision,
        );
        return { kind: 'done', revision: result.revision, sync: read(result.reads[0], syncSchema) };
      }
      return {
        kind: 'refused',
        leader: read(result.reads[0], leaderSchema),
        sync: read(result.reads[1], syncSchema),
      };
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
      return { kind: 'unknown', message: error.message };
    }
  }

  /** Deletes the order unless a newer one has taken its place. */
  async #deleteCommand(id: string): Promise<void> {
    const { instance } = this.#o.me;
    const stored = this.#o.store.view.commands.get(instance);
    if (stored?.value.id === id) await this.#delete(this.#o.keys.command(instance), stored.revision);
  }

  async #delete(key: string, revision: string | undefined): Promise<void> {
    const { etcd, store, log } = this.#o;
    try {
      const result = await etcd.transact(revision === undefined ? [] : [{ key, modRevision: revision }], [
        { op: 'delete', key },
      ]);
      if (result.succeeded) store.learn([{ key, value: undefined }], result.revision);
    } catch (error) {
      log.warn({ err: error, key }, 'could not delete a key in etcd');
      if (revision !== undefined) this.#refused.delete(revision);
    }
  }
}

function read<T>(
  kv: KeyValue | undefined,
  schema: Parameters<typeof parseJson<T>>[1],
): Stamped<T> | undefined {
  if (kv === undefined) return undefined;
  const parsed = parseJson(kv.value, schema);
  return typeof parsed === 'string' ? undefined : { value: parsed.value, revision: kv.modRevision };
}

/** Of a volume that has not been read yet, what was said last holds: its data are not to be taken for lost. */
function announcedData({ volume, dcs, me }: Facts): string {
  if (volume.state === 'ready') return volume.dataId;
  if (volume.state !== 'unknown') return noDataId;
  const listed = dcs.view.leader?.value.members.find((m) => m.instance === me.instance);
  return dcs.view.members.get(me.instance)?.value.dataId ?? listed?.dataId ?? noDataId;
}

function stateOf(facts: Facts, operation: string | undefined, leads: boolean): MemberValue['state'] {
  const { process, observation } = facts.postgres;
  if (operation === 'rewind') return 'rewinding';
  if (operation === 'clone') return 'cloning';
  if (process === 'starting' || operation === 'start') return 'starting';
  if (process !== 'running') return facts.volume.state === 'ready' ? 'stopped' : 'waiting';
  if (leads) return 'running';
  if (observation?.receiver?.status === 'streaming') return 'streaming';
  return observation !== undefined && facts.now - observation.at <= freshMs ? 'catching-up' : 'waiting';
}
