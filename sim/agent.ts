import {
  type Command,
  type Facts,
  type HaState,
  type Input,
  type LeaderWrite,
  noDataId,
  type PeerAnswer,
  type PeerFacts,
  type PromiseFacts,
  type PromiseRequest,
  type TransactionOutcome,
} from '../src/agent/ha/index.ts';
import { type ClusterView, emptyView, type MemberValue } from '../src/dcs/index.ts';
import type { Machine } from './machine.ts';
import type { Flaws } from './rules.ts';
import type { World } from './world.ts';

/** As in src/agent/agent.ts, ms. */
const tickMs = 100;
const observeEveryMs = { busy: 40, primary: 250, standby: 500 } as const;
const probeEveryMs = { leader: 250, syncOfLeader: 250, handover: 50, other: 1_000 } as const;
const probeTimeoutMs = 500;
const reachedForMs = 3_000;
/** As in src/agent/peers.ts, ms. */
const promise = { everyMs: 500, timeoutMs: 1_000 } as const;
/** A store that has lost its watch reads again. */
const readAgainMs = 200;

/** One boot of the agent: the driver of src/agent/agent.ts around the shipped decisions. */
export class SimAgent {
  readonly #world: World;
  readonly #machine: Machine;
  readonly bootId: string;
  state: HaState;
  view: ClusterView = emptyView;
  stopRequested = false;
  stalledUntil = 0;
  slowWatchUntil = 0;
  watchDelay = 0;
  #ended = false;
  #exiting = false;
  #readAt: number | undefined;
  #reading = false;
  /** The watch brings nothing any more: everything is to be read again. */
  #watchLost = true;
  #readAfter = 0;
  #observedAt = 0;
  /** Who was ever announced: it is asked also when its key has run out. */
  readonly #known = new Set<string>();
  readonly #peers = new Map<string, PeerFacts>();
  readonly #asked = new Map<string, { at: number; busy: boolean }>();
  readonly #promises = new Map<string, PromiseFacts>();
  readonly #promiseAsked = new Map<string, { at: number; busy: boolean }>();
  #announced = '';
  #published = '';
  #tickDue = false;
  readonly #refused = new Set<string>();

  constructor(world: World, machine: Machine, boot: number) {
    this.#world = world;
    this.#machine = machine;
    this.bootId = `${machine.name}/boot-${boot}`;
    this.state = world.rules.initialState(machine.clock());
  }

  start(): void {
    const again = () => {
      if (this.#ended) return;
      this.#world.after(tickMs, again);
      this.#tickDue = true;
      this.#run(() => {
        // Ticks that came while the loop stood still are one.
        if (!this.#tickDue) return;
        this.#tickDue = false;
        this.#ask();
        this.step({ kind: 'tick' });
      });
    };
    this.#world.after(this.#world.noise.between(1, tickMs), again);
    this.#read();
  }

  end(): void {
    this.#ended = true;
  }

  requestStop(): void {
    this.stopRequested = true;
    this.wake();
  }

  wake(): void {
    this.#run(() => this.step({ kind: 'tick' }));
  }

  answer(): PeerAnswer {
    const { postgres, disk } = this.#machine;
    return {
      ...this.#world.rules.answerProbe(this.state, this.#facts()),
      checkpointed: postgres.checkpointed,
      ancestors: postgres.inRecovery ? [] : disk.tip.branch.ancestors,
    };
  }

  // ------------------------------------------------------------------------------------------- deciding

  step(input: Input): void {
    if (this.#ended || this.#exiting) return;
    const facts = this.#facts();
    const before = this.state;
    const { rules } = this.#world;
    const decision = rules.decide(before, input, facts);
    this.state = decision.state;
    this.#machine.guard(rules.fenceDeadline(this.state, facts));
    for (const command of decision.commands) this.#carryOut(command);
    this.#followUp(facts);
  }

  #facts(): Facts {
    const { postgres: p } = this.#machine;
    const postgres: { -readonly [K in keyof Facts['postgres']]: Facts['postgres'][K] } = {
      process: p.process,
      since: p.since,
      walLost: false,
    };
    if (p.startedAs !== undefined) postgres.startedAs = p.startedAs;
    if (p.observation !== undefined) postgres.observation = p.observation;
    const { name, node } = this.#machine;
    const facts: { -readonly [K in keyof Facts]: Facts[K] } = {
      now: this.#machine.clock(),
      me: { clusterId: 'shop', instance: name, bootId: this.bootId, address: name, node },
      volume: this.#machine.volume(),
      storage: [this.#machine.storage()],
      dcs: { view: this.view, readAt: this.#readAt },
      postgres,
      peers: this.#peers,
      promises: this.#promises,
      stopRequested: this.stopRequested,
    };
    if (p.applied !== undefined) facts.applied = p.applied;
    return facts;
  }

  #carryOut(command: Command): void {
    const world = this.#world;
    const machine = this.#machine;
    switch (command.kind) {
      case 'transact':
        if (world.telling && command.write.kind !== 'heartbeat')
          world.tell(
            machine,
            `writes "${command.write.kind}" ${describe(command.write)}: ${command.because}`,
          );
        this.#transact(command.write, (outcome) => {
          if (world.telling && outcome.kind !== 'done')
            world.tell(machine, `"${command.write.kind}" is ${outcome.kind}`);
          this.step({ kind: 'transaction', id: command.id, outcome });
        });
        return;
      case 'operate':
        if (world.telling) {
          const { operation } = command;
          const names =
            'settings' in operation
              ? ` [${operation.settings.synchronousNames.map((n) => world.nameOf(n)).join(' ')}]`
              : '';
          world.tell(
            machine,
            `${operation.do}${'as' in operation ? ` as ${operation.as}` : ''}${names}: ${command.because}`,
          );
        }
        machine.database.operate(command.operation, (outcome) =>
          this.#run(() => {
            if (world.telling && !outcome.ok)
              world.tell(machine, `${command.operation.do} failed: ${outcome.message}`);
            this.step({ kind: 'operation', id: command.id, outcome });
          }),
        );
        return;
      case 'finish-command':
        return this.#toEtcd(() => world.etcd.deleteOrder(machine.name, command.commandId));
      case 'refuse-request':
        if (this.#refused.has(command.revision)) return;
        this.#refused.add(command.revision);
        world.tell(machine, `refuses the request: ${command.because}`);
        return this.#toEtcd(() => world.etcd.deleteRequest(command.revision));
      case 'read':
        return this.#read(this.#world.flaws.staleReads);
      case 'exit':
        this.#exiting = true;
        world.tell(machine, 'the agent leaves');
        this.#toEtcd(() => world.etcd.forget(machine.name));
        return machine.endAgent(world.noise.between(300, 1_500));
    }
  }

  #followUp(facts: Facts): void {
    const { postgres } = this.#machine;
    const { reign } = this.state;
    const { rules } = this.#world;
    this.#observeIfDue(facts);
    this.#askPromises(rules.promisesToAsk(this.state, facts));
    const o = postgres.observation;
    if (reign !== undefined && reign.stage === 'leading' && reign.open && o?.inRecovery === false)
      this.#world.invariants.routed(this.#machine, reign.term);
    this.#publish(facts);
    const said = `${reign?.term ?? ''} ${reign?.stage ?? ''} ${this.state.fencedTerm ?? ''}`;
    if (said === this.#announced) return;
    if (this.#announced !== '') this.#announce();
    this.#announced = said;
  }

  #observeIfDue(facts: Facts): void {
    const { postgres } = this.#machine;
    if (postgres.process !== 'running') return;
    const busy = this.#isBusy(facts);
    const every = busy
      ? observeEveryMs.busy
      : this.state.reign === undefined
        ? observeEveryMs.standby
        : observeEveryMs.primary;
    if (facts.now - this.#observedAt < every) return;
    this.#observedAt = facts.now;
    const { incarnation } = postgres;
    const ms = this.#world.noise.between(1, 4);
    this.#world.after(ms, () =>
      this.#run(() => {
        if (postgres.incarnation !== incarnation) return;
        postgres.observe();
        if (busy) this.#world.after(observeEveryMs.busy, () => this.wake());
        this.step({ kind: 'tick' });
      }),
    );
  }

  #isBusy(facts: Facts): boolean {
    const { reign, handover, takeover, joining, syncProblem } = this.state;
    if (handover !== undefined || takeover !== undefined || joining !== undefined) return true;
    if (reign !== undefined)
      return reign.stage !== 'leading' || !reign.open || syncProblem?.reason === 'WaitingForStandby';
    return facts.dcs.view.leader?.value.phase === 'vacated';
  }

  // ------------------------------------------------------------------------------------------- the other agents

  #ask(): void {
    const world = this.#world;
    const now = this.#machine.clock();
    const { view } = this;
    const leader = view.leader?.value.instance;
    const sync = this.state.reign?.sync.names;
    const { cascade } = this.state;
    const followed =
      cascade === undefined
        ? []
        : [cascade.instance, ...(view.sync?.value.names ?? []).map((m) => m.instance)];
    for (const instance of view.members.keys()) this.#known.add(instance);
    for (const instance of this.#known) {
      const peer = world.machine(instance);
      if (peer === undefined || peer === this.#machine) continue;
      const every =
        this.state.handover !== undefined
          ? probeEveryMs.handover
          : instance === leader || followed.includes(instance)
            ? probeEveryMs.leader
            : sync?.some((s) => s.instance === instance) === true
              ? probeEveryMs.syncOfLeader
              : probeEveryMs.other;
      let last = this.#asked.get(instance);
      if (last === undefined) {
        last = { at: Number.NEGATIVE_INFINITY, busy: false };
        this.#asked.set(instance, last);
      }
      if (now - last.at < (last.busy ? Math.max(every, probeTimeoutMs) : every)) continue;
      last.at = now;
      last.busy = true;
      this.#probe(peer, now, last);
    }
  }

  #probe(peer: Machine, at: number, last: { at: number; busy: boolean }): void {
    const { network } = this.#world;
    const [me, them] = [this.#machine.number, peer.number];
    network.send(me, them, () =>
      peer.run(() => {
        const { agent } = peer;
        // The machine says that nobody listens.
        if (agent === undefined)
          return network.send(them, me, () =>
            this.#machine.run(() => this.#run(() => this.#turnedAway(peer.name, at, last))),
          );
        agent.#run(() => {
          const answer = agent.answer();
          network.send(them, me, () =>
            this.#machine.run(() =>
              this.#run(() => {
                if (last.at === at) last.busy = false;
                if (this.#machine.clock() - at > probeTimeoutMs) return;
                const known = this.#peers.get(answer.instance);
                if (known === undefined || known.at <= at) this.#peers.set(answer.instance, { at, answer });
                this.step({ kind: 'tick' });
              }),
            ),
          );
        });
      }),
    );
  }

  #turnedAway(instance: string, at: number, last: { at: number; busy: boolean }): void {
    if (last.at === at) last.busy = false;
    const known = this.#peers.get(instance);
    if (known === undefined || known.at > at) return;
    const { since, times } = known.refused ?? { since: at, times: 0 };
    this.#peers.set(instance, { ...known, refused: { since, times: times + 1 } });
    this.step({ kind: 'tick' });
  }

  #askPromises(requests: readonly PromiseRequest[]): void {
    const now = this.#machine.clock();
    for (const asked of requests) {
      const { instance } = asked.to;
      const last = this.#promiseAsked.get(instance);
      if (now - (last?.at ?? Number.NEGATIVE_INFINITY) < (last?.busy ? promise.timeoutMs : promise.everyMs))
        continue;
      this.#promiseAsked.set(instance, { at: now, busy: true });
      const peer = this.#world.machine(instance);
      if (peer !== undefined && this.#known.has(instance)) this.#askPromise(peer, asked, now);
      else
        this.#promises.set(instance, { at: now, answer: { promised: false, because: 'no known address' } });
    }
  }

  /** A question for a promise: it may come late, twice, or not at all, and so may its answer. */
  #askPromise(peer: Machine, asked: PromiseRequest, at: number): void {
    const world = this.#world;
    const [me, them] = [this.#machine.number, peer.number];
    world.network.send(me, them, () =>
      peer.run(() => {
        const { agent } = peer;
        if (agent === undefined) return;
        agent.#run(() => {
          const given = world.rules.givePromise(agent.state, agent.#facts(), asked);
          agent.state = given.state;
          const { answer } = given;
          if (answer.promised) world.invariants.promised(peer, asked);
          if (world.telling)
            world.tell(
              peer,
              `${answer.promised ? 'promises' : 'refuses to promise'} ${asked.leader.instance} not to stand${answer.because === undefined ? '' : `: ${answer.because}`}`,
            );
          world.network.send(them, me, () =>
            this.#machine.run(() =>
              this.#run(() => {
                const last = this.#promiseAsked.get(peer.name);
                if (last?.at === at) last.busy = false;
                // The driver gives up on an answer; nothing rests on that, as it counts from the question.
                if ((this.#promises.get(peer.name)?.at ?? at) > at) return;
                this.#promises.set(peer.name, { at, answer });
                this.step({ kind: 'tick' });
              }),
            ),
          );
        });
      }),
    );
  }

  #announce(): void {
    const answer = this.answer();
    for (const peer of this.#world.machines)
      if (peer !== this.#machine && this.view.members.has(peer.name))
        this.#world.network.send(this.#machine.number, peer.number, () =>
          peer.run(() => {
            const { agent } = peer;
            if (agent === undefined) return;
            agent.#run(() => {
              const { members, leader } = agent.view;
              const plausible =
                answer.term <= (leader?.value.term ?? 0) + 1 &&
                answer.dataId === members.get(answer.instance)?.value.dataId;
              if (!plausible) return;
              // Only a fence is believed; after anything else the peer is asked itself.
              const asked = agent.#asked.get(answer.instance);
              if (answer.state === 'fenced') agent.#peers.set(answer.instance, { at: peer.clock(), answer });
              else if (asked !== undefined) asked.at = Number.NEGATIVE_INFINITY;
              if (answer.state !== 'fenced') agent.#ask();
              agent.step({ kind: 'tick' });
            });
          }),
        );
  }

  // ------------------------------------------------------------------------------------------- etcd

  /** One write of the leader key. It is carried out never, at once, or late, even when the sender is gone. */
  #transact(write: LeaderWrite, answer: (outcome: TransactionOutcome) => void): void {
    const world = this.#world;
    const { network, noise } = world;
    const timeout = this.view.config?.value.timing.requestTimeoutMs ?? 1_000;
    const me = this.#machine.number;
    const sentAt = world.now;
    const unknown = (message: string) =>
      world.at(Math.max(world.now, sentAt + timeout), () =>
        this.#run(() => answer({ kind: 'unknown', message })),
      );
    const { transactionFates } = this.#machine;
    const index = transactionFates.findIndex((f) => f.write === undefined || f.write === write.kind);
    const [fate] = index < 0 ? [] : transactionFates.splice(index, 1);
    if (fate?.fate === 'never') return unknown('deadline');
    const execute = (heard: boolean) => {
      const { etcd } = world;
      if (etcd.noLeaderUntil > world.now) {
        // The new leader may carry out what the old one had taken in.
        if (noise.chance(0.5)) world.at(etcd.noLeaderUntil + noise.between(1, 50), () => execute(false));
        return heard ? unknown('etcd has no leader') : undefined;
      }
      if (etcd.fullUntil > world.now) return heard ? unknown('mvcc: database space exceeded') : undefined;
      const before = etcd.view;
      const outcome = etcd.execute(write);
      if (outcome.kind === 'done') {
        if (world.telling && !heard) world.tell(this.#machine, `the late "${write.kind}" is carried out`);
        world.invariants.written(this.#machine, write, sentAt, before);
      }
      if (!heard) return;
      if (fate?.fate === 'answer-lost' || network.openAt(network.etcd, me) > world.now)
        return unknown('deadline');
      if (world.now - sentAt > timeout) return unknown('deadline');
      network.send(network.etcd, me, () =>
        this.#machine.run(() =>
          this.#run(() => {
            if (outcome.kind === 'done') this.#learn(write, outcome.revision);
            answer(outcome);
          }),
        ),
      );
    };
    const open = network.openAt(me, network.etcd);
    const late = fate?.fate === 'late' ? fate.delay : 0;
    if (open > world.now) {
      // TCP may bring it when the cut is over.
      if (noise.chance(0.3)) world.at(open + noise.between(1, 30), () => execute(false));
      return unknown('deadline');
    }
    if (late > 0) {
      world.after(late, () => execute(false));
      return unknown('deadline');
    }
    world.after(noise.between(0, 4) + network.delay(me, network.etcd), () => execute(true));
  }

  #learn(write: LeaderWrite, revision: string): void {
    if (Number(revision) <= Number(this.view.revision)) return;
    const history = this.#world.etcd.view.history;
    this.view = {
      ...this.view,
      revision,
      leader: { value: write.leader, revision },
      ...(write.sync === undefined ? {} : { sync: { value: write.sync, revision } }),
      ...(write.history === undefined ? {} : { history }),
      ...(write.initialize === undefined
        ? {}
        : { initialize: { value: { ...write.initialize, by: write.leader.instance }, revision } }),
    };
  }

  /** etcd has changed: the watch brings it. */
  watched(view: ClusterView): void {
    const { network, noise, now } = this.#world;
    if (this.#watchLost) return;
    const open = network.openAt(network.etcd, this.#machine.number);
    if (open > now) {
      this.#watchLost = true;
      return;
    }
    const delay = noise.between(1, 4) + (this.slowWatchUntil > now ? this.watchDelay : 0);
    this.#world.after(delay, () =>
      this.#machine.run(() =>
        this.#run(() => {
          if (!this.#see(view)) return;
          this.step({ kind: 'tick' });
        }),
      ),
    );
  }

  /** The watch was cancelled because of a compaction. */
  loseWatch(): void {
    this.#watchLost = true;
  }

  #see(view: ClusterView): boolean {
    if (Number(view.revision) <= Number(this.view.revision)) return false;
    this.view = view;
    return true;
  }

  /** A linearizable read of everything; `stale`: by a mutant. */
  #read(stale?: Flaws['staleReads']): void {
    if (this.#reading) return;
    this.#reading = true;
    const { network, noise } = this.#world;
    const sent = this.#machine.clock();
    const me = this.#machine.number;
    const failed = () => {
      this.#world.after(1_000, () =>
        this.#run(() => {
          this.#reading = false;
        }),
      );
    };
    if (network.openAt(me, network.etcd) > this.#world.now) return failed();
    this.#world.after(noise.between(1, 6), () => {
      const { etcd } = this.#world;
      if (etcd.noLeaderUntil > this.#world.now || network.openAt(network.etcd, me) > this.#world.now)
        return failed();
      const view = stale === undefined ? etcd.view : stale(etcd.view, this.view);
      this.#watchLost = false;
      network.send(network.etcd, me, () =>
        this.#machine.run(() =>
          this.#run(() => {
            this.#reading = false;
            this.#see(view);
            this.#readAt = Math.max(this.#readAt ?? sent, sent);
            this.step({ kind: 'tick' });
          }),
        ),
      );
    });
  }

  /** A write that nobody waits for. */
  #toEtcd(what: () => void): void {
    const { network, noise, etcd } = this.#world;
    if (network.openAt(this.#machine.number, network.etcd) > this.#world.now) return;
    this.#world.after(noise.between(1, 10), () => {
      if (etcd.noLeaderUntil <= this.#world.now && etcd.fullUntil <= this.#world.now) what();
    });
  }

  #publish(facts: Facts): void {
    const dataId = facts.volume.state === 'ready' ? facts.volume.dataId : noDataId;
    const now = this.#world.now;
    if (this.#watchLost && now > this.#readAfter) {
      this.#readAfter = now + readAgainMs;
      this.#read();
    }
    const value = `${dataId} ${this.bootId} ${this.#reaches().join(' ')}`;
    const { network, etcd } = this.#world;
    if (network.openAt(this.#machine.number, network.etcd) > now || etcd.noLeaderUntil > now) return;
    this.#machine.leaseRenewedAt = now;
    if (value === this.#published && this.view.members.has(this.#machine.name)) return;
    if (etcd.fullUntil > now) return;
    this.#published = value;
    this.#toEtcd(() => this.#ended || etcd.member(this.#member(dataId)));
  }

  #reaches(): string[] {
    const now = this.#machine.clock();
    return [...this.#peers].filter(([, { at }]) => now - at < reachedForMs).map(([instance]) => instance);
  }

  #member(dataId: string): MemberValue {
    const { name, node } = this.#machine;
    return {
      instance: name,
      dataId,
      bootId: this.bootId,
      address: name,
      node,
      reaches: this.#reaches(),
      podUid: 'pod',
      role: 'none',
      state: 'waiting',
      agentVersion: '0',
    };
  }

  /** In this agent's loop: not when it has ended, later when it stands still. */
  #run(what: () => void): void {
    if (this.#ended) return;
    const { now } = this.#world;
    if (this.stalledUntil > now)
      return this.#world.at(this.stalledUntil, () => this.#machine.run(() => this.#run(what)));
    if (!this.#machine.serves) return this.#machine.run(() => this.#run(what));
    what();
  }
}

function describe({ leader, sync }: LeaderWrite): string {
  const names =
    sync === undefined ? '' : `, sync ${sync.mode} {${sync.names.map((m) => m.instance).join(' ')}}`;
  return `term ${leader.term}${names}`;
}
