import type { Route } from '../ledger/history.ts';

/*
 * A fault is planned from what is there, without doing anything: which commands make it, and which undo it. So the
 * undoing can be written down before the fault begins, and be done by another process.
 */

/** A program with arguments, run on this machine without a shell. */
export interface Command {
  /** What it does, for people. */
  readonly what: string;
  readonly program: string;
  readonly args: readonly string[];
}

/** One step of a fault. */
export interface Effect {
  readonly apply: Command;
  /** May be run again, and when `apply` was never run. Absent: what is done ends by itself. */
  readonly undo?: Command;
}

/** Where a pod is, for faults that reach it from its node. */
export interface Place {
  readonly uid: string;
  readonly address: string;
  readonly node: string;
}

/** An instance of the cluster under test. */
export interface Instance extends Place {
  readonly name: string;
  readonly role: 'primary' | 'synchronous' | 'asynchronous';
  /** Mount points of its volumes on the node, if they are file systems of their own (volumes.ts). */
  readonly disks: { readonly data?: string; readonly wal?: string };
}

/** A member of the managed etcd. */
export interface EtcdMember extends Place {
  readonly name: string;
  readonly leads: boolean;
}

/** What a fault is planned from. */
export interface Facts {
  readonly namespace: string;
  readonly cluster: string;
  readonly instances: readonly Instance[];
  readonly etcd: readonly EtcdMember[];
}

/** What must come of a fault. */
export interface Expectation {
  /** How often the primary may change, in new terms: at least and at most. */
  readonly failovers: readonly [least: number, most: number];
  /** Milliseconds that each judged route may be without an acknowledgement; generous, the machine is small. */
  readonly gap: number;
  /** The routes that are judged; all by default. */
  readonly routes?: readonly Route[];
  /** Milliseconds that a replaced primary may answer reads with old values; its ttl and 1 s by default. */
  readonly staleFor?: number;
  /** Milliseconds from the end of the fault until everything is redundant again; 120 s by default. */
  readonly redundant?: number;
}

/** The commands of a fault, and what they hit. */
export interface Plan {
  readonly target: string;
  readonly effects: readonly Effect[];
}

/** Something that goes wrong. */
export interface Fault {
  readonly name: string;
  readonly description: string;
  /** Milliseconds from its start to its end. */
  readonly holdMs: number;
  readonly expects: Expectation;
  /** It needs instances on file systems of their own: `data`, or also one for WAL. */
  readonly disks?: 'data' | 'wal';
  /** @throws {NotPossible} when what it would hit is not there. */
  plan(facts: Facts): Plan;
}

/** A fault that cannot be made here and now. It has shown nothing. */
export class NotPossible extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'NotPossible';
  }
}
