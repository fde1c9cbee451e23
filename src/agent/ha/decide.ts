import { placeholderName } from '../../postgres/replication-names.ts';
import { Draft } from './draft.ts';
import type { Decision, Facts, HaState, Input } from './facts.ts';
import { extendByPromises } from './failsafe.ts';
import { fenceIfDue } from './fence.ts';
import { heartbeat, lead } from './leader.ts';
import { absorbOperation, absorbTransaction } from './outcomes.ts';
import { observePause } from './pause.ts';
import { observeLeader } from './probe.ts';
import { endIfStuck, interruptIfVain } from './rejoin.ts';
import { follow } from './standby.ts';
import { observeUpstream } from './upstream.ts';

/** The memory of an agent that has just started. */
export function initialState(now: number): HaState {
  return {
    bootedAt: now,
    proofAt: now,
    nextId: 1,
    syncNames: [placeholderName],
    waitProved: true,
    attempts: { start: 0, rewind: 0, clone: 0, promote: 0 },
    yielded: 0,
    retryAt: 0,
  };
}

/**
 * The agent's decisions, whole: what it remembers and what it knows in, what it remembers and does next out. Pure. The
 * rules are tried in order; each says why it acts. Rule numbers (R1 ...) are those of docs/high-availability.md.
 */
export function decide(state: HaState, input: Input, facts: Facts): Decision {
  const draft = new Draft(state, facts);
  if (input.kind === 'transaction') absorbTransaction(draft, input.id, input.outcome);
  if (input.kind === 'operation') absorbOperation(draft, input.id, input.outcome);
  observeLeader(draft);
  observePause(draft);
  observeUpstream(draft);
  extendByPromises(draft);
  if (fenceIfDue(draft)) return draft.decision();
  heartbeat(draft);
  const { operation, reign } = draft.state;
  if (operation !== undefined) interruptIfVain(draft, operation);
  else if (endIfStuck(draft)) return draft.decision();
  else if (reign !== undefined) lead(draft, reign);
  else follow(draft);
  return draft.decision();
}
