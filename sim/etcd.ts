import type { LeaderWrite, TransactionOutcome } from '../src/agent/ha/index.ts';
import {
  type ClusterView,
  type CommandValue,
  type ConfigValue,
  emptyView,
  type HistoryValue,
  type MemberValue,
  type RequestValue,
} from '../src/dcs/index.ts';

/**
 * The state of etcd: one register per key with exact revisions, every transaction atomic, every read that is answered
 * linearizable. How requests come here, and what becomes of their answers, is the network's and the agent's matter.
 */
export class SimEtcd {
  view: ClusterView;
  /** Nothing is committed before this time: etcd has no leader. */
  noLeaderUntil = 0;
  /** Writes are refused before this time: NOSPACE. */
  fullUntil = 0;
  #revision = 1;
  readonly #onChange: () => void;

  constructor(config: ConfigValue, onChange: () => void) {
    this.view = { ...emptyView, revision: '1', config: { value: config, revision: '1' } };
    this.#onChange = onChange;
  }

  /** The transaction of a leader or candidate: `#transact` of src/agent/agent.ts, on the server. */
  execute(write: LeaderWrite): TransactionOutcome {
    const { leader, sync } = this.view;
    if (!this.#holds(write)) return { kind: 'refused', leader, sync };
    const revision = this.#next();
    const { request, ...rest } = this.view;
    const { term, instance } = write.leader;
    this.view = {
      ...rest,
      ...(request === undefined || write.deleteRequest === true ? {} : { request }),
      revision,
      leader: { value: write.leader, revision },
      ...(write.sync === undefined ? {} : { sync: { value: write.sync, revision } }),
      ...(write.initialize === undefined
        ? {}
        : { initialize: { value: { ...write.initialize, by: instance }, revision } }),
      ...(write.history === undefined
        ? {}
        : {
            history: new Map(this.view.history).set(term, { value: historyOf(write), revision }),
          }),
    };
    this.#onChange();
    return { kind: 'done', revision, sync: this.view.sync };
  }

  member(value: MemberValue): void {
    const revision = this.#next();
    this.#set({ members: new Map(this.view.members).set(value.instance, { value, revision }), revision });
  }

  forget(instance: string): void {
    const members = new Map(this.view.members);
    if (members.delete(instance)) this.#set({ members, revision: this.#next() });
  }

  configure(value: ConfigValue): void {
    const revision = this.#next();
    this.#set({ config: { value, revision }, revision });
  }

  /** `replaces`: the revision of the request that it takes the place of. */
  request(value: RequestValue, replaces?: string): void {
    const revision = this.#next();
    if (this.view.request?.revision === replaces) this.#set({ request: { value, revision }, revision });
  }

  /** Deletes the request if it is still this one. */
  deleteRequest(revision: string): void {
    if (this.view.request?.revision !== revision) return;
    const { request: _, ...rest } = this.view;
    this.view = { ...rest, revision: this.#next() };
    this.#onChange();
  }

  order(instance: string, value: CommandValue): void {
    const revision = this.#next();
    this.#set({ commands: new Map(this.view.commands).set(instance, { value, revision }), revision });
  }

  deleteOrder(instance: string, id: string): void {
    if (this.view.commands.get(instance)?.value.id !== id) return;
    const commands = new Map(this.view.commands);
    commands.delete(instance);
    this.#set({ commands, revision: this.#next() });
  }

  #holds(write: LeaderWrite): boolean {
    const { leader, sync, initialize, history, request } = this.view;
    return (
      (write.expectRequest === undefined || request?.revision === write.expectRequest) &&
      (write.expectLeader === undefined || (leader?.revision ?? '0') === write.expectLeader) &&
      (write.expectSync === undefined || (sync?.revision ?? '0') === write.expectSync) &&
      (write.initialize === undefined || initialize === undefined) &&
      (write.history === undefined || !history.has(write.leader.term))
    );
  }

  #next(): string {
    this.#revision += 1;
    return String(this.#revision);
  }

  #set(change: Partial<ClusterView>): void {
    this.view = { ...this.view, ...change };
    this.#onChange();
  }
}

function historyOf({ leader, history }: LeaderWrite): HistoryValue {
  const { term, instance, dataId, timeline } = leader;
  return {
    term,
    instance,
    dataId,
    timeline,
    lsn: `0/${(history?.lsn ?? 0n).toString(16).toUpperCase()}`,
    why: history?.why ?? '',
    at: '2000-01-01T00:00:00Z',
    lossAccepted: history?.lossAccepted ?? false,
  };
}
