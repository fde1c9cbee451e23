/**
 * What the workload did, attempt by attempt. Every worker owns one key and writes its rows one after the other, so
 * that the checks are exact and need no search.
 */

/** How a worker finds the primary. */
export const routes = ['service', 'multi-host', 'direct'] as const;
/**
 * `service`: one address that leads to the primary, such as the ClusterIP of `-rw`; `multi-host`: all hosts in random
 * order, the first one that is not in recovery wins; `direct`: the address of the primary, which a watch of all hosts
 * tells (`primary-watch.ts`).
 */
export type Route = (typeof routes)[number];
/** What clients of a cluster do. `direct` is for measuring: nothing but the database takes time on it. */
export const clientRoutes: readonly Route[] = ['service', 'multi-host'];

/**
 * `acknowledged`: COMMIT came back without a warning. `failed`: nothing can have been committed. `unknown`: COMMIT was
 * sent, and what became of it is not known (no answer in time, connection lost, or the wait for the synchronous
 * standby was given up).
 */
export type Outcome = 'acknowledged' | 'failed' | 'unknown';

/** The Postgres that took a transaction, as it says itself. */
export interface Server {
  readonly timeline: number;
  /** Its address. */
  readonly server: string;
  /** When its postmaster started, milliseconds since the epoch: tells two lives on one timeline apart. */
  readonly started: number;
}

/** One call of a client; times are milliseconds since the epoch on the clock of the workload. */
interface Call {
  readonly route: Route;
  readonly invokedAt: number;
  readonly completedAt: number;
}

/** One transaction that writes a row. `worker` and `seq` identify its row. */
export interface Attempt extends Call, Partial<Server> {
  readonly worker: number;
  readonly seq: number;
  readonly outcome: Outcome;
  /** The worker's register before this transaction: the `seq` of its last committed one. */
  readonly registerRead?: number;
  readonly error?: string;
}

/** A transaction of its own that read the register of a worker, and got an answer from a primary. */
export interface Read extends Call, Server {
  readonly reader: number;
  readonly worker: number;
  readonly value: number;
}

/** Isolation levels under which the sum of all accounts must stay what it is. */
export const isolations = ['serializable', 'repeatable read'] as const;
export type Isolation = (typeof isolations)[number];

/** A transaction that moved money from one account to another. `client` and `seq` identify it. */
export interface Transfer extends Call, Partial<Server> {
  readonly client: number;
  readonly seq: number;
  readonly isolation: Isolation;
  readonly source: number;
  readonly target: number;
  readonly amount: number;
  readonly outcome: Outcome;
  readonly error?: string;
}

/** The sum of all accounts, as one statement saw it on a primary. */
export interface Audit extends Call, Server {
  readonly client: number;
  readonly total: number;
}

/** Everything that a workload did. */
export interface History {
  readonly attempts: readonly Attempt[];
  readonly reads: readonly Read[];
  readonly transfers: readonly Transfer[];
  readonly audits: readonly Audit[];
}

/** Accounts of the bank, numbered from 1, and what each of them holds at the beginning. */
export const bank = { accounts: 8, initialBalance: 1_000 } as const;

/** A row found after the fault, with how often it is there. */
export interface PresentRow {
  readonly worker: number;
  readonly seq: number;
  readonly count: number;
}

/** What an instance held after the fault. */
export interface FinalState {
  readonly rows: readonly PresentRow[];
  /** Register by worker. */
  readonly registers: ReadonlyMap<number, number>;
}

/** What the bank's tables held after the fault. */
export interface FinalBank {
  /** Balance by account. */
  readonly balances: ReadonlyMap<number, number>;
  readonly transfers: readonly Pick<Transfer, 'client' | 'seq' | 'source' | 'target' | 'amount'>[];
}

/** A hole between two consecutive acknowledgements, milliseconds since the epoch. */
export interface Gap {
  readonly from: number;
  readonly to: number;
  readonly milliseconds: number;
}

/**
 * The longest time without an acknowledgement that touches `[from, to]`, over all workers of a route (or all routes).
 * Undefined when there are fewer than two acknowledgements.
 */
export function longestGap(
  attempts: readonly Attempt[],
  route?: Route,
  from = Number.NEGATIVE_INFINITY,
  to = Number.POSITIVE_INFINITY,
): Gap | undefined {
  const acks = acknowledgedAt(attempts, route);
  let longest: Gap | undefined;
  for (let i = 1; i < acks.length; i += 1) {
    const [before = 0, after = 0] = [acks[i - 1], acks[i]];
    if (after < from || before > to) continue;
    if (longest === undefined || after - before > longest.milliseconds) {
      longest = { from: before, to: after, milliseconds: after - before };
    }
  }
  return longest;
}

/** The first acknowledgement of a transaction that began after `moment`. */
export function firstAckAfter(
  attempts: readonly Attempt[],
  moment: number,
  route?: Route,
): Attempt | undefined {
  return attempts
    .filter((each) => each.outcome === 'acknowledged' && each.invokedAt >= moment)
    .filter((each) => route === undefined || each.route === route)
    .sort((a, b) => a.completedAt - b.completedAt)[0];
}

function acknowledgedAt(attempts: readonly Attempt[], route: Route | undefined): number[] {
  return attempts
    .filter((each) => each.outcome === 'acknowledged' && (route === undefined || each.route === route))
    .map((each) => each.completedAt)
    .sort((a, b) => a - b);
}
