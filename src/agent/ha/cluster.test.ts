import { describe, expect, it } from 'vitest';
import {
  type ClusterView,
  type ConfigValue,
  defaultTiming,
  emptyView,
  type HistoryValue,
  type LeaderValue,
  type MemberValue,
  type RequestValue,
  type Stamped,
  type SyncValue,
} from '../../dcs/index.ts';
import { replicationName } from '../../postgres/replication-names.ts';
import { answerProbe, decide, fenceDeadline, initialState } from './decide.ts';
import type {
  AppliedSettings,
  Command,
  Facts,
  HaState,
  Input,
  LeaderWrite,
  Observation,
  Operation,
  OperationOutcome,
  PeerAnswer,
  PeerFacts,
  Settings,
  TransactionOutcome,
  Volume,
} from './facts.ts';

/**
 * Whole clusters of agents that decide with `decide`, against fakes of etcd, Postgres and the network. One random
 * number generator makes everything that happens, so a seed is a story: `KOSCHEI_SEED=<n>` tells one again.
 */

/** mulberry32 */
function generator(seed: number): () => number {
  let a = seed >>> 0;
  return () => {
    a = (a + 0x6d2b79f5) >>> 0;
    let t = Math.imul(a ^ (a >>> 15), 1 | a);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296;
  };
}

/** One register per key, exact revisions, every transaction atomic. */
class FakeEtcd {
  revision = 1;
  view: ClusterView;

  constructor(config: ConfigValue) {
    this.view = { ...emptyView, config: { value: config, revision: '1' } };
  }

  execute(write: LeaderWrite): TransactionOutcome {
    const { leader, sync } = this.view;
    if (
      (leader?.revision ?? '0') !== write.expectLeader ||
      (write.expectSync !== undefined && (sync?.revision ?? '0') !== write.expectSync) ||
      (write.initialize !== undefined && this.view.initialize !== undefined)
    )
      return { kind: 'refused', leader, sync };
    this.revision += 1;
    const revision = String(this.revision);
    const { term, instance, dataId, timeline } = write.leader;
    const history = new Map(this.view.history);
    if (write.history !== undefined) {
      if (history.has(term)) throw new Error(`the history of term ${term} is written twice`);
      const value: HistoryValue = {
        term,
        instance,
        dataId,
        timeline,
        lsn: '0/1',
        why: write.history.why,
        at: '2026-01-01T00:00:00Z',
        lossAccepted: false,
      };
      history.set(term, { value, revision });
    }
    const { request, ...rest } = this.view;
    this.view = {
      ...rest,
      ...(request === undefined || write.deleteRequest === true ? {} : { request }),
      revision,
      leader: { value: write.leader, revision },
      ...(write.sync === undefined ? {} : { sync: { value: write.sync, revision } }),
      ...(write.initialize === undefined
        ? {}
        : { initialize: { value: { ...write.initialize, by: instance }, revision } }),
      history,
    };
    return { kind: 'done', revision, sync: this.view.sync };
  }

  member(value: MemberValue): void {
    const old = this.view.members.get(value.instance)?.value;
    if (old?.dataId === value.dataId && old.bootId === value.bootId) return;
    this.revision += 1;
    const stamped = { value, revision: String(this.revision) };
    this.view = { ...this.view, members: new Map(this.view.members).set(value.instance, stamped) };
  }

  /** An agent takes its key away when it ends, or its lease runs out. */
  withdraw(instance: string): void {
    this.revision += 1;
    const members = new Map(this.view.members);
    members.delete(instance);
    this.view = { ...this.view, members };
  }

  configure(value: ConfigValue): void {
    this.revision += 1;
    this.view = { ...this.view, config: { value, revision: String(this.revision) } };
  }

  request(value: RequestValue | undefined): void {
    this.revision += 1;
    const { request: _, ...rest } = this.view;
    this.view = value === undefined ? rest : { ...rest, request: { value, revision: String(this.revision) } };
  }
}

interface Walsender {
  readonly connection: number;
  names: readonly string[];
  flush: number;
}

/** A Postgres whose WAL is a list of records. What is in the list is flushed. */
class FakePostgres {
  wal: readonly string[];
  timeline = 1;
  ancestors: readonly { timeline: number; end: bigint }[] = [];
  process: 'none' | 'starting' | 'running' = 'none';
  startedAs: 'primary' | 'standby' | undefined;
  since = 0;
  inRecovery = true;
  checkpointed = true;
  settings: Settings = { synchronousNames: [], clientsAllowed: false };
  applied: AppliedSettings | undefined;
  /** The checkpointer has loaded names: backends wait. */
  waits = false;
  observation: Observation | undefined;
  walsenders = new Map<string, Walsender>();
  streamsFrom: string | undefined;
  waiting: { lsn: number; record: string }[] = [];
  /** Grows with every start: what was meant for an earlier process does not reach this one. */
  incarnation = 0;
  stopping = false;

  constructor(wal: readonly string[]) {
    this.wal = wal;
  }

  writable(): boolean {
    return this.process === 'running' && !this.inRecovery && !this.stopping;
  }

  end(now: number): void {
    this.process = 'none';
    this.since = now;
    this.startedAs = undefined;
    this.incarnation += 1;
    this.observation = undefined;
    this.applied = undefined;
    this.walsenders = new Map();
    this.streamsFrom = undefined;
    this.waiting = [];
    this.stopping = false;
  }
}

const systemIdentifier = '7000000000000000001';

class Node {
  readonly name: string;
  readonly postgres: FakePostgres;
  /** Clock: offset and rate, the latter within the error that the ttl's margin allows. */
  readonly offset: number;
  readonly rate: number;
  up = false;
  boot = 0;
  state: HaState = initialState(0);
  view: ClusterView = emptyView;
  readAt: number | undefined;
  peers = new Map<string, PeerFacts>();
  dataId: string;
  bootstrap: boolean;
  promotedTerm = 0;
  tainted = false;
  stopRequested = false;
  stalledUntil = 0;
  etcdCut = false;
  operation = 0;
  deadline = 0;
  /** How long Postgres takes to start, if it is not chance that says it, ms. */
  startMs: number | undefined;

  constructor(name: string, dataId: string, bootstrap: boolean, random: () => number) {
    this.name = name;
    this.dataId = dataId;
    this.bootstrap = bootstrap;
    this.postgres = new FakePostgres(['initdb']);
    this.offset = Math.floor(random() * 1e6);
    this.rate = 1 + (random() - 0.5) * 0.009;
  }

  get bootId(): string {
    return `${this.name}-boot-${this.boot}`;
  }

  volume(): Volume {
    if (this.tainted) return { state: 'tainted', why: 'interrupted' };
    const { dataId, bootstrap, promotedTerm } = this;
    return {
      state: 'ready',
      dataId,
      systemIdentifier,
      bootstrap,
      promotedTerm,
      timeline: this.postgres.timeline,
    };
  }
}

interface Scenario {
  readonly seed: number;
  readonly nodes: number;
  readonly config: Partial<ConfigValue>;
  /** False: nothing goes wrong but what the test does. */
  readonly faults?: boolean;
}

/** koschei-init lets the agent fence first, ms. */
const initDelayMs = 200;
const faultsUntil = 20_000;
const calmUntil = 80_000;

class Simulation {
  readonly random: () => number;
  readonly nodes: Node[] = [];
  readonly etcd: FakeEtcd;
  readonly config: ConfigValue;
  now = 0;
  /** Every acknowledged commit with the term it was acknowledged in, and when the last one was. */
  readonly acknowledged = new Map<string, number>();
  lastAcknowledged = 0;
  /** What a client may have read on a primary that was open, and the first such primary. */
  readonly readable = new Map<string, { term: number; node: string; at: number }>();
  /** Terms and timelines of promotions, and who is writable in which term. */
  readonly promotions: { term: number; timeline: number; node: Node }[] = [];
  readonly story: string[] = [];
  readonly #queue: { at: number; order: number; run: () => void }[] = [];
  readonly #cut = new Set<string>();
  #faultsUntil = faultsUntil;
  #order = 0;
  #records = 0;

  constructor(scenario: Scenario) {
    this.random = generator(scenario.seed);
    const names = Array.from({ length: scenario.nodes }, (_, i) => `shop-${i + 1}`);
    this.config = {
      generation: 1,
      synchronous: 1,
      durability: 'required',
      fencing: 'fast',
      timing: defaultTiming,
      members: names,
      parameters: {},
      hba: [],
      logLevel: 'info',
      ...scenario.config,
    };
    this.etcd = new FakeEtcd(this.config);
    for (const [i, name] of names.entries())
      this.nodes.push(new Node(name, this.#dataId(), i === 0, this.random));
    for (const node of this.nodes) this.after(this.#between(0, 500), () => this.boot(node));
    for (const node of this.nodes) this.#routine(node);
    this.#faultsUntil = scenario.faults === false ? 0 : faultsUntil;
    this.after(this.#between(1_500, 3_000), () => this.#fault());
  }

  /** The node whose Postgres takes writes. */
  primary(): Node {
    const [primary, ...more] = this.nodes.filter((n) => n.postgres.writable());
    if (primary === undefined || more.length > 0) this.fail('there is not one primary');
    return primary;
  }

  /** Ends Postgres as `kill -9` does. */
  crash(node: Node): void {
    this.#tell(node, 'Postgres crashes');
    node.postgres.end(this.#clock(node));
  }

  cutEtcd(node: Node, ms: number): void {
    this.#cutEtcd(node, ms);
  }

  run(): void {
    for (let next = this.#pop(); next !== undefined && next.at <= calmUntil; next = this.#pop()) {
      this.now = next.at;
      next.run();
    }
    const primaries = this.nodes.filter((n) => n.postgres.writable());
    if (primaries.length !== 1 || this.lastAcknowledged < calmUntil - 2_000)
      this.fail(`nobody acknowledges: primaries ${primaries.map((n) => n.name).join(' ') || 'none'}`);
  }

  fail(what: string): never {
    const states = this.nodes.map(
      (n) =>
        `${n.name} ${n.up ? 'up' : 'down'} ${n.postgres.process} ${n.postgres.inRecovery ? 'standby' : 'primary'} tl ${n.postgres.timeline} wal ${n.postgres.wal.length} ${json(n.state)}`,
    );
    throw new Error(
      [
        what,
        ...this.story.slice(-60),
        `etcd ${json(this.etcd.view.leader)} ${json(this.etcd.view.sync)}`,
        ...states,
      ].join('\n'),
    );
  }

  // ------------------------------------------------------------------------------------------- time and chance

  after(ms: number, run: () => void): void {
    const event = { at: this.now + ms, order: this.#order++, run };
    let i = this.#queue.push(event) - 1;
    for (let parent = (i - 1) >> 1; i > 0 && before(event, this.#queue[parent]); parent = (i - 1) >> 1) {
      this.#queue[i] = this.#queue[parent] ?? event;
      this.#queue[parent] = event;
      i = parent;
    }
  }

  #pop(): { at: number; run: () => void } | undefined {
    const [first] = this.#queue;
    const last = this.#queue.pop();
    if (first === undefined || last === undefined || this.#queue.length === 0) return first;
    let i = 0;
    for (;;) {
      let child = 2 * i + 1;
      if (before(this.#queue[child + 1], this.#queue[child])) child += 1;
      const lower = this.#queue[child];
      if (lower === undefined || !before(lower, last)) break;
      this.#queue[i] = lower;
      i = child;
    }
    this.#queue[i] = last;
    return first;
  }

  #between(low: number, high: number): number {
    return low + Math.floor(this.random() * (high - low + 1));
  }

  #chance(p: number): boolean {
    return this.random() < p;
  }

  /** Chance of something going wrong; zero when the faults are over. */
  #trouble(p: number): boolean {
    return this.now < this.#faultsUntil && this.#chance(p);
  }

  #dataId(): string {
    return Array.from({ length: 16 }, () => Math.floor(this.random() * 16).toString(16)).join('');
  }

  #clock(node: Node): number {
    return Math.floor(node.offset + this.now * node.rate);
  }

  #connected(a: Node, b: Node): boolean {
    return !this.#cut.has(`${a.name} ${b.name}`) && !this.#cut.has(`${b.name} ${a.name}`);
  }

  #node(name: string | undefined): Node | undefined {
    return this.nodes.find((n) => n.name === name);
  }

  #tell(node: Node, what: string): void {
    this.story.push(`${String(this.now).padStart(6)} ${node.name} ${what}`);
  }

  // ------------------------------------------------------------------------------------------- the agent

  boot(node: Node): void {
    node.boot += 1;
    node.up = true;
    node.stopRequested = false;
    node.stalledUntil = 0;
    node.state = initialState(this.#clock(node));
    node.view = emptyView;
    node.readAt = undefined;
    node.peers = new Map();
    node.deadline = 0;
    this.#tell(node, `boots (${node.boot})`);
    this.#read(node);
  }

  /** The agent is gone, and koschei-init ends Postgres with it. */
  kill(node: Node, downMs: number): void {
    if (!node.up) return;
    this.#tell(node, 'the agent ends, and Postgres with it');
    node.up = false;
    node.operation += 1;
    if (node.postgres.process !== 'none') node.postgres.end(this.#clock(node));
    this.after(downMs, () => this.boot(node));
  }

  #facts(node: Node): Facts {
    const { postgres: p } = node;
    return {
      now: this.#clock(node),
      me: { instance: node.name, bootId: node.bootId, address: node.name, node: `node-${node.name}` },
      volume: node.volume(),
      dcs: { view: node.view, readAt: node.readAt },
      postgres: {
        process: p.process,
        since: p.since,
        walLost: false,
        ...(p.startedAs === undefined ? {} : { startedAs: p.startedAs }),
        ...(p.observation === undefined ? {} : { observation: p.observation }),
      },
      peers: node.peers,
      ...(p.applied === undefined ? {} : { applied: p.applied }),
      stopRequested: node.stopRequested,
    };
  }

  #step(node: Node, input: Input): void {
    const { boot } = node;
    if (!node.up) return;
    if (node.stalledUntil > this.now) {
      if (input.kind !== 'tick')
        this.after(node.stalledUntil - this.now, () => node.boot === boot && this.#step(node, input));
      return;
    }
    const facts = this.#facts(node);
    const { state, commands } = decide(node.state, input, facts);
    node.state = state;
    const deadline = fenceDeadline(state, facts);
    if (deadline !== node.deadline && deadline > 0) {
      const left = Math.max(0, Math.ceil((deadline - facts.now) / node.rate)) + 1;
      // The driver looks just when the deadline is over.
      this.after(
        left,
        () => node.boot === boot && node.deadline === deadline && this.#step(node, { kind: 'tick' }),
      );
      this.after(left + initDelayMs, () => {
        if (node.boot !== boot || node.deadline !== deadline || node.postgres.process === 'none') return;
        this.#tell(node, 'koschei-init fences');
        this.kill(node, this.#between(100, 800));
      });
    }
    node.deadline = deadline;
    for (const command of commands) this.#carryOut(node, command);
  }

  #carryOut(node: Node, command: Command): void {
    const { boot } = node;
    switch (command.kind) {
      case 'transact':
        if (command.write.kind !== 'heartbeat')
          this.#tell(
            node,
            `${command.write.kind} term ${command.write.leader.term} sync ${names(command.write.sync)}: ${command.because}`,
          );
        this.#transact(node, command.write, (outcome) => {
          if (outcome.kind !== 'done') this.#tell(node, `${command.write.kind} is ${outcome.kind}`);
          if (node.boot === boot) this.#step(node, { kind: 'transaction', id: command.id, outcome });
        });
        return;
      case 'operate': {
        this.#tell(
          node,
          `${command.operation.do}${'settings' in command.operation ? ` [${command.operation.settings.synchronousNames.join(' ')}]` : ''}: ${command.because}`,
        );
        node.operation += 1;
        const mine = node.operation;
        this.#operate(node, command.operation, (outcome) => {
          if (!outcome.ok) this.#tell(node, `${command.operation.do} failed: ${outcome.message}`);
          if (node.boot === boot && node.operation === mine)
            this.#step(node, { kind: 'operation', id: command.id, outcome });
        });
        return;
      }
      case 'refuse-request':
        this.#tell(node, `refuses the request: ${command.because}`);
        if (!node.etcdCut && this.etcd.view.request?.revision === command.revision)
          this.etcd.request(undefined);
        return;
      case 'finish-command':
        return;
      case 'read':
        this.#read(node);
        return;
      case 'exit':
        this.#tell(node, 'exits');
        this.kill(node, this.#between(500, 2_000));
        return;
    }
  }

  #read(node: Node): void {
    const [{ boot }, sent] = [node, this.#clock(node)];
    this.after(this.#between(1, 40), () => {
      if (node.boot !== boot || node.etcdCut) return;
      const { view } = this.etcd;
      this.after(this.#between(1, 40), () => {
        if (node.boot !== boot) return;
        if (Number(view.revision) >= Number(node.view.revision)) node.view = view;
        node.readAt = sent;
        this.#step(node, { kind: 'tick' });
      });
    });
  }

  /** Executed never, at once or much later, even when the sender is gone; answered, or not. */
  #transact(node: Node, write: LeaderWrite, answer: (outcome: TransactionOutcome) => void): void {
    const unknown = (message: string) => answer({ kind: 'unknown', message });
    const timeout = this.config.timing.requestTimeoutMs;
    if (node.etcdCut && this.#chance(0.3)) return this.after(1, () => unknown('connection refused'));
    const lost = node.etcdCut ? !this.#trouble(0.2) : this.#trouble(0.04);
    if (lost) return this.after(timeout, () => unknown('deadline'));
    const late = node.etcdCut || this.#trouble(0.04);
    this.after(late ? this.#between(500, 6_000) : this.#between(1, 30), () => {
      const outcome = this.etcd.execute(write);
      if (late && outcome.kind === 'done') this.#tell(node, `a late ${write.kind} lands`);
      if (!late && !this.#trouble(0.04)) this.after(this.#between(1, 30), () => answer(outcome));
      else if (!late) this.after(timeout, () => unknown('deadline'));
    });
    if (late) this.after(timeout, () => unknown('deadline'));
  }

  // ------------------------------------------------------------------------------------------- Postgres

  #operate(node: Node, operation: Operation, answer: (outcome: OperationOutcome) => void): void {
    const { postgres: p, operation: mine, boot } = node;
    const done = (lsn?: number) => answer(lsn === undefined ? { ok: true } : { ok: true, lsn: BigInt(lsn) });
    const failed = (message: string) => answer({ ok: false, reason: 'Fake', message });
    const then = (ms: number, run: () => void) =>
      this.after(ms, () => {
        if (node.boot === boot && node.operation === mine) run();
      });
    const needed = p.incarnation;
    const alive = (run: () => void) => () =>
      p.incarnation === needed && p.process === 'running' ? run() : failed('Postgres ended');
    switch (operation.do) {
      case 'start':
        p.end(this.#clock(node));
        p.process = 'starting';
        p.startedAs = operation.as;
        p.inRecovery = operation.as === 'standby';
        if (this.#trouble(0.05))
          return then(this.#between(50, 300), () => {
            p.end(this.#clock(node));
            failed('it does not start');
          });
        p.settings = operation.settings;
        return then(node.startMs ?? this.#startMs(), () => {
          p.process = 'running';
          p.since = this.#clock(node);
          p.waits = p.settings.synchronousNames.length > 0;
          p.applied = { ...operation.settings, generation: 1 };
          if (operation.as === 'primary') {
            p.checkpointed = true; // Crash recovery ends with a checkpoint.
            this.#opens(node, 'starts');
          }
          this.#observe(node);
          done(p.wal.length);
        });
      case 'stop':
      case 'fence':
        p.stopping = true;
        // Mostly SIGQUIT is enough; what koschei-init does when it is not takes the agent along.
        return then(this.#trouble(0.3) ? this.#between(150, 900) : this.#between(20, 150), () => {
          // A clean stop waits for the standbys that stream.
          const clean = operation.do === 'stop' && p.process === 'running' && !p.inRecovery;
          if (clean) {
            p.wal = [...p.wal, `shutdown ${this.#records++}`];
            for (const other of this.nodes) if (other.postgres.streamsFrom === node.name) this.#stream(other);
          }
          const at = p.wal.length - 1;
          if (p.process !== 'none') p.end(this.#clock(node));
          done(at);
        });
      case 'configure':
      case 'stop-receiver':
        return then(
          this.#between(1, 60),
          alive(() => {
            this.#configure(node, operation.settings);
            if (this.#trouble(0.05)) return failed('no answer');
            then(
              this.#between(1, 30),
              alive(() => {
                p.applied = { ...operation.settings, generation: 1 };
                this.#observe(node);
                done();
              }),
            );
          }),
        );
      case 'promote':
        return then(
          this.#between(1, 50),
          alive(() => {
            this.#configure(node, operation.settings);
            p.applied = { ...operation.settings, generation: 1 };
            if (operation.term <= node.promotedTerm) this.fail(`${node.name} is promoted twice in a term`);
            node.promotedTerm = operation.term;
            if (this.#trouble(0.05)) return failed('it is not promoted');
            then(
              this.#between(10, 200),
              alive(() => {
                const begin = p.wal.length;
                p.ancestors = [...p.ancestors, { timeline: p.timeline, end: BigInt(begin) }];
                p.timeline = operation.timeline;
                p.wal = [...p.wal, `timeline ${p.timeline} of ${node.name} ${node.boot}`];
                p.inRecovery = false;
                p.checkpointed = false;
                const { incarnation } = p;
                this.after(this.#between(50, 1_500), () => {
                  if (p.incarnation === incarnation) p.checkpointed = true;
                });
                this.#promoted(node, operation.term, operation.timeline);
                if (this.#trouble(0.05)) return failed('it was promoted, but nobody saw it');
                this.#observe(node);
                done(begin);
              }),
            );
          }),
        );
      case 'prove-wait':
        return then(
          this.#between(20, 200),
          alive(() => (p.waits ? done() : failed('commits do not wait'))),
        );
      case 'checkpoint':
        return then(
          this.#between(20, 500),
          alive(() => done()),
        );
      case 'rewind':
      case 'clone':
        if (p.process !== 'none') p.end(this.#clock(node));
        return then(this.#between(10, 50), () => {
          node.tainted = true;
          then(this.#between(200, 1_500), () => {
            const source = this.#node(operation.upstream.instance);
            const s = source?.postgres;
            if (
              source === undefined ||
              s === undefined ||
              !s.writable() ||
              !this.#connected(node, source) ||
              this.#trouble(0.1)
            ) {
              if (operation.do === 'rewind' && this.#chance(0.5)) node.tainted = false;
              return failed('the source went away');
            }
            [p.wal, p.timeline, p.ancestors, p.checkpointed] = [s.wal, s.timeline, s.ancestors, true];
            if (operation.do === 'clone')
              [node.dataId, node.promotedTerm, node.bootstrap] = [this.#dataId(), 0, false];
            node.tainted = false;
            done();
          });
        });
    }
  }

  /** Crash recovery may take long, and a disk may be slow. */
  #startMs(): number {
    return this.#trouble(0.1) ? this.#between(3_000, 20_000) : this.#between(50, 600);
  }

  /** Settings are loaded by the processes one by one. */
  #configure(node: Node, settings: Settings): void {
    const { postgres: p } = node;
    p.settings = settings;
    const { incarnation } = p;
    const soon = () => (this.#trouble(0.1) ? this.#between(100, 2_000) : this.#between(0, 30));
    if (settings.upstream?.instance !== p.streamsFrom) p.streamsFrom = undefined;
    for (const walsender of p.walsenders.values())
      this.after(soon(), () => {
        walsender.names = p.settings.synchronousNames;
      });
    this.after(soon(), () => {
      if (p.incarnation !== incarnation) return;
      p.waits = p.settings.synchronousNames.length > 0;
      if (!p.waits) this.#release(node, p.wal.length);
    });
  }

  #observe(node: Node): void {
    const { postgres: p } = node;
    if (p.process !== 'running') return;
    p.observation = {
      at: this.#clock(node),
      inRecovery: p.inRecovery,
      timeline: p.timeline,
      ...(p.inRecovery
        ? { receivedLsn: BigInt(p.wal.length), replayedLsn: BigInt(p.wal.length) }
        : { flushLsn: BigInt(p.wal.length) }),
      ...(p.streamsFrom === undefined
        ? {}
        : { receiver: { status: 'streaming', senderHost: p.streamsFrom } }),
      walsenders: [...p.walsenders].map(([applicationName, w]) => ({
        applicationName,
        state: 'streaming',
        syncPriority: w.names.indexOf(applicationName) + 1,
        flushLsn: BigInt(w.flush),
      })),
      commitWaitMs: 0,
      pendingRestart: [],
      overridden: [],
    };
  }

  /** One round of streaming replication into this standby. */
  #stream(node: Node): void {
    const { postgres: p } = node;
    const source = this.#node(p.settings.upstream?.instance);
    const s = source?.postgres;
    const me = replicationName(node.dataId);
    if (
      source === undefined ||
      s === undefined ||
      p.process !== 'running' ||
      !p.inRecovery ||
      s.process !== 'running' ||
      s.inRecovery ||
      !this.#connected(node, source) ||
      !isPrefix(p, s)
    ) {
      if (p.streamsFrom !== undefined) {
        const { postgres: old } = this.#node(p.streamsFrom) ?? { postgres: undefined };
        old?.walsenders.delete(me);
        p.streamsFrom = undefined;
      }
      return;
    }
    let walsender = s.walsenders.get(me);
    if (p.streamsFrom === undefined || walsender === undefined) {
      walsender = { connection: this.#order++, names: s.settings.synchronousNames, flush: 0 };
      s.walsenders.set(me, walsender);
      p.streamsFrom = source.name;
    }
    const to = this.#trouble(0.3) ? this.#between(p.wal.length, s.wal.length) : s.wal.length;
    p.wal = s.wal.slice(0, to);
    const fork = s.ancestors.at(-1)?.end ?? 0n;
    if (BigInt(to) > fork) [p.timeline, p.ancestors] = [s.timeline, s.ancestors];
    // The report may be read by its walsender at any later time.
    const [sender, { incarnation }] = [walsender, s];
    this.after(this.#trouble(0.02) ? this.#between(100, 3_000) : this.#between(1, 10), () => {
      if (s.incarnation !== incarnation) return;
      sender.flush = Math.max(sender.flush, to);
      if (!sender.names.includes(me)) return;
      const all = sender.names.map((n) => (n === me ? sender.flush : (s.walsenders.get(n)?.flush ?? 0)));
      this.#release(source, Math.min(...all));
    });
  }

  /** Commits up to here are acknowledged to their clients. */
  #release(node: Node, lsn: number): void {
    const { postgres: p } = node;
    const released = p.waiting.filter((w) => w.lsn <= lsn);
    p.waiting = p.waiting.filter((w) => w.lsn > lsn);
    for (const { record } of released) this.#acknowledge(node, record);
  }

  #write(node: Node): void {
    const { postgres: p } = node;
    if (!p.writable() || !p.settings.clientsAllowed) return;
    this.#readAll(node);
    const record = `commit ${this.#records++}`;
    p.wal = [...p.wal, record];
    if (p.waits) p.waiting.push({ lsn: p.wal.length, record });
    else this.#acknowledge(node, record);
  }

  // ------------------------------------------------------------------------------------------- what must hold

  #acknowledge(node: Node, record: string): void {
    const mine = this.promotions.findLast((p) => p.node === node)?.term ?? 1;
    this.acknowledged.set(record, mine);
    this.lastAcknowledged = this.now;
    for (const later of this.promotions) {
      if (later.term <= mine) continue;
      if (this.config.synchronous === 0)
        this.fail(`${node.name} of term ${mine} writes after ${later.node.name} began term ${later.term}`);
      if (later === this.promotions.findLast((p) => p.node === later.node) && !later.node.tainted)
        if (later.node.postgres.timeline === later.timeline && !later.node.postgres.wal.includes(record))
          this.fail(`${node.name} acknowledged ${record}, which term ${later.term} does not have`);
    }
  }

  /** Everything that was replayed before this primary began is visible, acknowledged or not. */
  #readAll(node: Node): void {
    const { wal } = node.postgres;
    const term = this.promotions.findLast((p) => p.node === node)?.term ?? 1;
    const began = wal.findLastIndex((record) => record.startsWith('timeline '));
    for (const record of wal.slice(0, Math.max(0, began)))
      if (record.startsWith('commit ') && !this.readable.has(record))
        this.readable.set(record, { term, node: node.name, at: this.now });
  }

  #promoted(node: Node, term: number, timeline: number): void {
    this.#tell(node, `is promoted in term ${term} on timeline ${timeline}`);
    const twice = this.promotions.find((p) => p.term === term || p.timeline === timeline);
    if (twice !== undefined || timeline === 1)
      this.fail(`term ${term} or timeline ${timeline} is used twice`);
    this.promotions.push({ term, timeline, node });
    this.#opens(node, 'is promoted');
  }

  #opens(node: Node, how: string): void {
    if (this.config.synchronous === 0) return;
    const there = new Set(node.postgres.wal);
    const mine = node.state.reign?.term ?? 0;
    for (const [record, term] of this.acknowledged)
      if (term <= mine && !there.has(record))
        this.fail(`${node.name} ${how} in term ${mine} without ${record}, acknowledged in term ${term}`);
    for (const [record, read] of this.readable)
      if (read.term < mine && !there.has(record))
        this.fail(
          `${node.name} ${how} in term ${mine} without ${record}, which clients read at ${read.at} on ${read.node} in term ${read.term}`,
        );
  }

  // ------------------------------------------------------------------------------------------- what happens

  /** What goes on at one node all the time. */
  #routine(node: Node): void {
    const every = (low: number, high: number, run: () => void) => {
      const again = () => {
        run();
        this.after(this.#between(low, high), again);
      };
      this.after(this.#between(low, high), again);
    };
    every(60, 110, () => this.#step(node, { kind: 'tick' }));
    every(40, 200, () => node.up && this.#observe(node));
    every(15, 60, () => this.#stream(node));
    every(60, 200, () => this.#write(node));
    every(20, 60, () => {
      if (!node.up || node.etcdCut) return;
      if (node.readAt === undefined) this.#read(node);
      else node.view = this.etcd.view;
      this.etcd.member({
        instance: node.name,
        dataId: node.tainted ? '0000000000000000' : node.dataId,
        bootId: node.bootId,
        address: node.name,
        node: `node-${node.name}`,
        podUid: 'x',
        role: 'none',
        state: 'waiting',
        agentVersion: '0',
      });
    });
    every(100, 250, () => {
      for (const other of this.nodes) if (other !== node) this.#probe(node, other);
    });
  }

  #probe(node: Node, other: Node): void {
    const [at, { boot }] = [this.#clock(node), node];
    if (!node.up || !other.up || !this.#connected(node, other) || other.stalledUntil > this.now) return;
    this.after(this.#between(1, 20), () => {
      if (!other.up || other.stalledUntil > this.now) return;
      const { postgres: p } = other;
      const answer: PeerAnswer = {
        ...answerProbe(other.state, this.#facts(other)),
        checkpointed: p.checkpointed,
        ancestors: p.ancestors,
      };
      this.after(this.#between(1, 20), () => {
        if (node.boot === boot && this.#connected(node, other)) node.peers.set(other.name, { at, answer });
      });
    });
  }

  #fault(): void {
    if (this.now >= this.#faultsUntil) return;
    const node = this.nodes[this.#between(0, this.nodes.length - 1)];
    const other = this.nodes[this.#between(0, this.nodes.length - 1)];
    const last = this.etcd.view.leader?.value.instance;
    const victim = this.#chance(0.5) ? this.#node(last) : node;
    const ms = this.#between(300, 8_000);
    if (victim !== undefined && other !== undefined) {
      switch (this.#between(0, 8)) {
        case 0:
          this.kill(victim, this.#between(50, 1_500));
          break;
        case 1:
          this.kill(victim, ms);
          break;
        case 2:
          if (victim.up && victim.postgres.process !== 'none') {
            this.crash(victim);
          }
          break;
        case 3:
          this.#cutEtcd(victim, ms);
          break;
        case 4:
          this.#cutLink(victim, other, ms);
          break;
        case 5:
          this.#cutEtcd(victim, ms);
          for (const n of this.nodes) this.#cutLink(victim, n, ms);
          break;
        case 6:
          this.#tell(victim, `the agent stands still for ${ms} ms`);
          victim.stalledUntil = this.now + ms;
          break;
        case 7:
          this.#tell(victim, 'SIGTERM');
          victim.stopRequested = true;
          this.#step(victim, { kind: 'tick' });
          break;
        case 8:
          this.#tell(other, 'is asked for as the primary');
          this.etcd.request({
            id: String(this.now),
            kind: 'switchover',
            by: 'a test',
            ...(this.#chance(0.5) ? { to: other.name } : {}),
          });
          break;
      }
    }
    this.after(this.#between(100, 5_000), () => this.#fault());
  }

  #cutEtcd(node: Node, ms: number): void {
    this.#tell(node, `is cut from etcd for ${ms} ms`);
    node.etcdCut = true;
    this.after(ms, () => {
      node.etcdCut = false;
    });
  }

  #cutLink(a: Node, b: Node, ms: number): void {
    if (a === b) return;
    this.#tell(a, `is cut from ${b.name} for ${ms} ms`);
    this.#cut.add(`${a.name} ${b.name}`);
    this.after(ms, () => this.#cut.delete(`${a.name} ${b.name}`));
  }
}

function before(
  a: { at: number; order: number } | undefined,
  b: { at: number; order: number } | undefined,
): boolean {
  return a !== undefined && b !== undefined && (a.at - b.at || a.order - b.order) < 0;
}

/** The standby's WAL continues in the primary's: pg_rewind is not needed. */
function isPrefix(standby: FakePostgres, primary: FakePostgres): boolean {
  const last = standby.wal.length - 1;
  return last < primary.wal.length && standby.wal[last] === primary.wal[last];
}

function names(sync: SyncValue | undefined): string {
  return sync === undefined ? '-' : `${sync.mode} {${sync.names.map((m) => m.instance).join(' ')}}`;
}

function json(value: Stamped<LeaderValue | SyncValue> | HaState | undefined): string {
  return JSON.stringify(value, (_key, v: unknown) => (typeof v === 'bigint' ? Number(v) : v)) ?? 'nothing';
}

const only = process.env.KOSCHEI_SEED;
const first = Number(only ?? process.env.KOSCHEI_FIRST ?? 1);
const count = only === undefined ? Number(process.env.KOSCHEI_SEEDS ?? 60) : 1;

describe.each<[string, number, Partial<ConfigValue>]>([
  ['three instances, one synchronous, commits must wait', 3, {}],
  ['three instances, one synchronous, commits need not wait', 3, { durability: 'preferred' }],
  ['four instances, two synchronous', 4, { synchronous: 2 }],
  ['three instances, asynchronous', 3, { synchronous: 0 }],
])('%s', (_what, nodes, config) => {
  it('loses nothing acknowledged, and has a primary when the faults are over', { timeout: 120_000 }, () => {
    for (let seed = first; seed < first + count; seed++) {
      const simulation = new Simulation({ seed, nodes, config });
      try {
        simulation.run();
      } catch (error) {
        throw new Error(`KOSCHEI_SEED=${seed}: ${error instanceof Error ? error.message : ''}`, {
          cause: error,
        });
      }
    }
    expect(count).toBeGreaterThan(0);
  });
});

describe('a Postgres that starts slowly', { timeout: 60_000 }, () => {
  const eventAt = 10_000;

  /** Lets something happen to a quiet cluster; tells who is the primary in the end and when one was. */
  function story(happen: (simulation: Simulation, primary: Node) => void, config: Partial<ConfigValue> = {}) {
    return Array.from({ length: 20 }, (_, seed) => {
      const simulation = new Simulation({ seed: seed + 1, nodes: 3, config, faults: false });
      let before: Node | undefined;
      let terms = 0;
      let upMs: number | undefined;
      const look = () => {
        if (simulation.nodes.some((n) => n.postgres.writable() && n.postgres.settings.clientsAllowed))
          upMs = simulation.now - eventAt;
        else simulation.after(10, look);
      };
      simulation.after(eventAt, () => {
        before = simulation.primary();
        terms = simulation.etcd.view.leader?.value.term ?? 0;
        happen(simulation, before);
        look();
      });
      simulation.run();
      return {
        stayed: simulation.primary() === before,
        upMs,
        terms: (simulation.etcd.view.leader?.value.term ?? 0) - terms,
      };
    });
  }

  it.each<Partial<ConfigValue>>([{}, { fencing: 'strict' }])(
    'does not keep the place when all start anew and a level standby is up: %o',
    (config) => {
      const runs = story((simulation, primary) => {
        primary.startMs = 60_000;
        for (const node of simulation.nodes) simulation.kill(node, node === primary ? 300 : 1_000);
      }, config);
      for (const run of runs) {
        expect(run).toMatchObject({ stayed: false, terms: 1 });
        // Patience, suspicion (strict: a ttl), takeover.
        expect(run.upMs).toBeLessThan(config.fencing === 'strict' ? 15_000 : 10_000);
      }
    },
  );

  it('does not race a living standby after its agent was started anew', () => {
    const runs = story((simulation, primary) => {
      primary.startMs = 4_000;
      simulation.kill(primary, 300);
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: false, terms: 1 });
      expect(run.upMs).toBeLessThan(3_500);
    }
  });

  it('leads on when it is ready in time and nobody else is', () => {
    const runs = story((simulation, primary) => {
      for (const node of simulation.nodes) {
        node.startMs = 500;
        simulation.kill(node, node === primary ? 100 : 200);
      }
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: true, terms: 0 });
      expect(run.upMs).toBeLessThan(1_500);
    }
  });

  it('costs no time when a standby is level: it is told at once', () => {
    const runs = story((simulation, primary) => {
      primary.startMs = 60_000;
      simulation.crash(primary);
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: false, terms: 1 });
      expect(run.upMs).toBeLessThan(2_000);
    }
  });

  it('gets its time when those who might go first cannot', () => {
    const runs = story((simulation, primary) => {
      primary.startMs = 18_000;
      for (const node of simulation.nodes) if (node !== primary) simulation.cutEtcd(node, 65_000);
      simulation.crash(primary);
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: true, terms: 0 });
      // It is interrupted twice, each time after double the patience.
      expect(run.upMs).toBeGreaterThan(45_000);
      expect(run.upMs).toBeLessThan(58_000);
    }
  });

  it('everywhere comes to an end, too', () => {
    const runs = story((simulation) => {
      for (const node of simulation.nodes) {
        node.startMs = 12_000;
        simulation.kill(node, 500);
      }
    });
    for (const run of runs) expect(run.terms).toBeLessThanOrEqual(1);
  });
});

it('an asynchronous primary that is lost while its only standby is started anew is replaced by it', () => {
  const config = { synchronous: 0 };
  const simulation = new Simulation({ seed: 3, nodes: 2, config, faults: false });
  simulation.after(10_000, () => {
    const lost = simulation.primary();
    const standby = simulation.nodes.find((node) => node !== lost);
    if (standby === undefined) throw new Error('there is no standby');
    simulation.kill(standby, 3_000);
    simulation.etcd.withdraw(standby.name);
    simulation.after(2_000, () => simulation.kill(lost, 10_000_000));
  });
  simulation.run();
});

it.each([
  ['a shorter', 30_000, 6_000],
  ['a longer', 6_000, 30_000],
])('%s ttl is nothing to go by for a leader that has not heard of it', (_, fromMs, toMs) => {
  const timing = { ...defaultTiming, ttlMs: fromMs };
  const simulation = new Simulation({
    seed: 1,
    nodes: 3,
    config: { synchronous: 0, timing },
    faults: false,
  });
  simulation.after(10_000, () => {
    const { etcd, config } = simulation;
    etcd.configure({ ...config, generation: 2, timing: { ...timing, ttlMs: toMs } });
    simulation.cutEtcd(simulation.primary(), 60_000);
  });
  simulation.run();
});
