import { randomBytes } from 'node:crypto';
import {
  type ClusterKeys,
  type ClusterView,
  type ConfigValue,
  type Etcd,
  EtcdError,
  type LeaderValue,
  type MemberValue,
  parseView,
  type SyncValue,
} from '../../dcs/index.ts';

/** Postgres settings that need a restart in this simulation. */
const restartSetting = 'max_connections';
const lowest = '100';
const systemIdentifier = '7000000000000000001';

export interface SimulatedAgentOptions {
  readonly instance: string;
  readonly podUid: string;
  readonly dataId: string;
  readonly etcd: Etcd;
  readonly keys: ClusterKeys;
  /** Its volume was filled by initdb: it may found the cluster. */
  readonly founder: boolean;
  /** Called when the pod is to become ready, or not. */
  readonly onReady: (ready: boolean) => void;
}

/**
 * What an agent writes to etcd, without a Postgres: enough for the operator to work with. It keeps no rule that makes
 * failover safe; those are tested with the real agent.
 */
export class SimulatedAgent {
  readonly #o: SimulatedAgentOptions;
  readonly #bootId = randomBytes(8).toString('hex');
  #inForce = lowest;
  #dataId: string;
  #refused: MemberValue['refusedRequest'];
  /** The last term that it led, of those in which it was there; 0: none; undefined: it has seen no leader yet. */
  #hasLed: number | undefined;
  #beat = 0;
  #timer: NodeJS.Timeout | undefined;
  #working: Promise<void> = Promise.resolve();
  #said = '';
  #stopped = false;
  /** Set by tests: what the agent complains about. */
  problem: MemberValue['problem'];

  constructor(options: SimulatedAgentOptions) {
    this.#o = options;
    this.#dataId = options.dataId;
  }

  async start(): Promise<void> {
    const { config } = await this.#read().catch(() => ({ config: undefined }));
    this.#inForce = this.#wanted(config?.value);
    this.#timer = setInterval(() => {
      this.#working = this.#working.then(() => this.#step()).catch(() => undefined);
    }, 100);
  }

  /** SIGTERM: hands leadership over if somebody can take it, and says nothing more. */
  async stop(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#working;
    try {
      const view = await this.#read();
      if (view.leader?.value.instance === this.#o.instance) await this.#handOver(view, undefined);
      await this.#o.etcd.transact([], [{ op: 'delete', key: this.#o.keys.member(this.#o.instance) }]);
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
    }
    this.#o.etcd.close();
  }

  /** Its machine is lost: it does nothing more, and its member key is gone as soon as its lease has run out. */
  async kill(): Promise<void> {
    if (this.#stopped) return;
    this.#stopped = true;
    clearInterval(this.#timer);
    await this.#working;
    await this.#o.etcd.transact([], [{ op: 'delete', key: this.#o.keys.member(this.#o.instance) }]);
    this.#o.etcd.close();
  }

  async #read(): Promise<ClusterView> {
    const { etcd, keys } = this.#o;
    const { revision, keys: raw } = await etcd.readPrefix(keys.prefix);
    return parseView(keys, revision, raw);
  }

  #wanted(config: ConfigValue | undefined): string {
    return config?.parameters[restartSetting] ?? lowest;
  }

  async #step(): Promise<void> {
    if (this.#stopped) return;
    const { instance, keys, etcd } = this.#o;
    const view = await this.#read();
    const { config, leader } = view;
    if (leader === undefined && this.#hasLed !== undefined) await this.#wait(view);
    if (config === undefined) return;
    const command = view.commands.get(instance);
    if (command !== undefined) {
      if (command.value.do === 'reclone') this.#dataId = randomBytes(8).toString('hex');
      this.#inForce = this.#wanted(config.value);
      await etcd.transact([], [{ op: 'delete', key: keys.command(instance) }]);
    }
    if (leader === undefined) {
      const { adopt } = config.value;
      if (adopt?.instance === instance) await this.#found((adopt.term ?? 0) + 1, adopt.timeline + 1);
      else if (this.#o.founder && adopt === undefined && this.#hasLed === undefined) await this.#found(1, 1);
      return;
    }
    const leads = leader.value.instance === instance;
    this.#hasLed = Math.max(this.#hasLed ?? 0, leads ? leader.value.term : 0);
    if (leads) await this.#lead(view, config.value, leader.value);
    await this.#publish(view, config.value, leads);
    this.#o.onReady(true);
  }

  /** etcd knows of no leader any more: says what is on its volume. */
  async #wait(view: ClusterView): Promise<void> {
    const { instance, podUid, etcd, keys } = this.#o;
    if (view.members.get(instance)?.value.state === 'waiting') return;
    const value: MemberValue = {
      ...{ instance, podUid, dataId: this.#dataId, bootId: this.#bootId, address: '10.0.0.1', node: 'n' },
      ...{ role: 'none', state: 'waiting', agentVersion: 'simulated', heldLsn: '0/5000000' },
      ...{ systemIdentifier, promotedTerm: this.#hasLed ?? 0, timeline: 1 },
    };
    this.#said = '';
    await etcd.transact([], [{ op: 'put', key: keys.member(instance), value: JSON.stringify(value) }]);
    this.#o.onReady(false);
  }

  async #found(term: number, timeline: number): Promise<void> {
    const { etcd, keys, instance } = this.#o;
    const leader = { ...this.#leaderValue(term), timeline };
    await etcd.transact(
      [{ key: keys.initialize, modRevision: '0' }],
      [
        {
          op: 'put',
          key: keys.initialize,
          value: JSON.stringify({ systemIdentifier, by: instance }),
        },
        { op: 'put', key: keys.leader, value: JSON.stringify(leader) },
        {
          op: 'put',
          key: keys.sync,
          value: JSON.stringify({ term, mode: 'sync', names: [] } satisfies SyncValue),
        },
      ],
    );
  }

  #leaderValue(term: number): LeaderValue {
    const me = { instance: this.#o.instance, dataId: this.#dataId };
    return {
      ...me,
      bootId: this.#bootId,
      term,
      timeline: term,
      phase: 'leading',
      beat: this.#beat,
      address: '10.0.0.1',
      members: [me],
    };
  }

  async #lead(view: ClusterView, config: ConfigValue, present: LeaderValue): Promise<void> {
    const { etcd, keys, instance } = this.#o;
    const { request, sync } = view;
    if (request !== undefined) {
      const message = `no standby ${request.value.to ?? ''} can take over`;
      if (!(await this.#handOver(view, request.value.to)))
        this.#refused = { revision: request.revision, message };
      await etcd.transact([], [{ op: 'delete', key: keys.request }]);
      return;
    }
    this.#beat += 1;
    const value = { ...present, beat: this.#beat, bootId: this.#bootId };
    const streaming = [...view.members.values()]
      .map((member) => member.value)
      .filter((member) => member.instance !== instance && member.role === 'standby')
      .filter((member) => config.members.includes(member.instance))
      .sort((a, b) => rank(a, sync?.value) - rank(b, sync?.value) || (a.instance < b.instance ? -1 : 1));
    const names = streaming
      .slice(0, config.synchronous)
      .map((member) => ({ instance: member.instance, dataId: member.dataId }));
    const wanted: SyncValue = {
      term: present.term,
      mode: config.synchronous > 0 ? 'sync' : 'async',
      // A lost one stays named until another one is there, as with `durability: required`.
      names:
        names.length < Math.min(config.synchronous, sync?.value.names.length ?? 0)
          ? (sync?.value.names ?? [])
          : names,
    };
    await etcd.transact(
      [{ key: keys.leader, modRevision: view.leader?.revision ?? '0' }],
      [
        { op: 'put', key: keys.leader, value: JSON.stringify(value) },
        ...(JSON.stringify(sync?.value) === JSON.stringify(wanted)
          ? []
          : [{ op: 'put' as const, key: keys.sync, value: JSON.stringify(wanted) }]),
      ],
    );
  }

  /** Whether somebody could take over. */
  async #handOver(view: ClusterView, to: string | undefined): Promise<boolean> {
    const { etcd, keys, instance } = this.#o;
    const { leader, sync } = view;
    if (leader === undefined || sync === undefined) return false;
    const able = [...view.members.values()]
      .map((member) => member.value)
      .filter((member) => member.instance !== instance && member.role === 'standby')
      .filter(
        (member) =>
          sync.value.mode === 'async' || sync.value.names.some((name) => name.instance === member.instance),
      );
    const successor = able.find((member) => to === undefined || member.instance === to);
    if (successor === undefined) return false;
    const term = leader.value.term + 1;
    const me = { instance, dataId: this.#dataId };
    const names = [...sync.value.names.filter((name) => name.instance !== successor.instance), me];
    const next = {
      ...leader.value,
      instance: successor.instance,
      dataId: successor.dataId,
      bootId: successor.bootId,
      term,
      timeline: term,
    };
    await etcd.transact(
      [{ key: keys.leader, modRevision: leader.revision }],
      [
        { op: 'put', key: keys.leader, value: JSON.stringify(next) },
        { op: 'put', key: keys.sync, value: JSON.stringify({ ...sync.value, term, names }) },
      ],
    );
    return true;
  }

  async #publish(view: ClusterView, config: ConfigValue, leads: boolean): Promise<void> {
    const { instance, podUid, etcd, keys } = this.#o;
    const wanted = Number(this.#wanted(config));
    const leader = view.leader?.value;
    const primaryLowers =
      leader === undefined ? [] : (view.members.get(leader.instance)?.value.pendingRestart?.lowered ?? []);
    // A standby takes the larger of the wanted value and its primary's.
    const held = !leads && wanted < Number(this.#inForce) && primaryLowers.includes(restartSetting);
    const pending = wanted !== Number(this.#inForce) && !held;
    const value: MemberValue = {
      instance,
      dataId: this.#dataId,
      bootId: this.#bootId,
      address: '10.0.0.1',
      node: 'n',
      podUid,
      role: leads ? 'primary' : 'standby',
      state: leads ? 'running' : 'streaming',
      timeline: leader?.timeline ?? 1,
      systemIdentifier,
      promotedTerm: this.#hasLed ?? 0,
      agentVersion: 'simulated',
      lagBytes: 0,
      configGeneration: config.generation,
      pendingRestart: {
        settings: pending ? [restartSetting] : [],
        lowered: pending && wanted < Number(this.#inForce) ? [restartSetting] : [],
      },
      ...(this.problem === undefined ? {} : { problem: this.problem }),
      ...(leads && this.#refused !== undefined ? { refusedRequest: this.#refused } : {}),
    };
    const text = JSON.stringify(value);
    if (text === this.#said) return;
    await etcd.transact([], [{ op: 'put', key: keys.member(instance), value: text }]);
    this.#said = text;
  }
}

const rank = (member: MemberValue, sync: SyncValue | undefined): number =>
  sync?.names.some((name) => name.instance === member.instance) === true ? 0 : 1;
