import type { Target } from '../../e2e/ledger/connection.ts';
import type { Route } from '../../e2e/ledger/history.ts';
import type { FirstAcks, Phases } from './phases.ts';
import type { Fault, Row } from './rows.ts';

/** An instance of Postgres. */
export interface Instance {
  readonly name: string;
  readonly address: string;
  /** The container that stands for its machine. */
  readonly node: string;
}

export interface Injected {
  /** When the fault was there, milliseconds since the epoch. */
  readonly at: number;
  /** Ends a fault that lasts. */
  readonly undo?: () => Promise<void>;
}

/** A cluster of three instances on three machines, one of the standbys synchronous, that faults are done to. */
export interface Stack {
  /** Of the programs that are measured. */
  readonly version: string;
  /** The routes that are expected to work while a fault lasts. */
  readonly routes: readonly Route[];
  /** Milliseconds after which even a fault with a late effect has shown it: a ttl and what is added to it. */
  readonly lateMs: number;
  /** Milliseconds that writes may stand still before a fault is undone. */
  readonly patienceMs: number;
  /** Makes it, and waits until all is well. */
  start(): Promise<void>;
  /** Removes it, so that it costs the others nothing. */
  close(): Promise<void>;
  target(): Promise<Target>;
  primary(): Promise<Instance>;
  /** @throws {Error} if there is none. */
  synchronousStandby(): Promise<Instance>;
  /** Makes the member of etcd on this node the leader, or one on another node. */
  placeEtcdLeader(node: string, where: Row['etcdLeader']): Promise<void>;
  inject(fault: Fault, victim: Instance): Promise<Injected>;
  /**
   * Waits until everything is redundant.
   * @param deadline milliseconds from now
   */
  waitHealthy(deadline: number): Promise<void>;
  /** Runs SQL as superuser in the database of the workload. Columns are separated by `|`. */
  sql(instance: Instance, sql: string): Promise<string>;
  /**
   * The log of the primary from `since` (milliseconds since the epoch) on, or a little before.
   */
  log(since: number): Promise<string>;
  /** Where the time went, from that log; empty if it does not tell. */
  phases(log: string, row: Row, faultAt: number, acks: FirstAcks): Phases;
  /** Keeps what explains a run that failed; returns where. */
  explain(name: string): Promise<string>;
}
