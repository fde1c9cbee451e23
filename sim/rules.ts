import {
  answerProbe,
  decide,
  fenceDeadline,
  givePromise,
  initialState,
  promisesToAsk,
} from '../src/agent/ha/index.ts';
import type { ClusterView } from '../src/dcs/index.ts';

/** The shipped decisions, as the simulated driver calls them. A mutant puts something of its own around them. */
export interface Rules {
  readonly initialState: typeof initialState;
  readonly decide: typeof decide;
  readonly fenceDeadline: typeof fenceDeadline;
  readonly answerProbe: typeof answerProbe;
  readonly promisesToAsk: typeof promisesToAsk;
  readonly givePromise: typeof givePromise;
}

export const shipped: Rules = {
  initialState,
  decide,
  fenceDeadline,
  answerProbe,
  promisesToAsk,
  givePromise,
};

/** Mistakes in what the simulator models itself, around the decisions: the driver and the operations on Postgres. */
export interface Flaws {
  /** The WAL receiver goes on confirming although it was to be stopped. */
  readonly receiverStays?: boolean;
  readonly promotionSkipsReplay?: boolean;
  readonly timelineNotReserved?: boolean;
  /** The agent's clock stands still while the machine is suspended. */
  readonly clockStopsWhenSuspended?: boolean;
  /** A data directory is started whatever state it is in. */
  readonly startsAnything?: boolean;
  /** What an etcd member that is behind answers to a read: from the present view and the reader's last. */
  readonly staleReads?: (present: ClusterView, known: ClusterView) => ClusterView;
}
