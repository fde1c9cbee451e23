import type { LeaderValue } from '../../dcs/index.ts';
import type { Draft } from './draft.ts';
import type { Facts, HaState } from './facts.ts';

/** Notes when this agent first saw the pause that is in force. */
export function observePause(draft: Draft): void {
  const { config } = draft.facts.dcs.view;
  if (config === undefined) return;
  const { paused } = config.value;
  const { pause } = draft.state;
  if (paused === undefined) {
    if (pause !== undefined) draft.set({ pause: undefined });
  } else if (pause?.until !== paused.until) draft.set({ pause: { until: paused.until, since: draft.now } });
}

/**
 * Until when automatic failover is paused, as the person said it; undefined: it is not. The operator takes the pause back
 * when its time is over. Where it does not, each agent ends it for itself: so long after it saw it first, on its own
 * boot-time clock (docs/decisions/0015).
 */
export function pausedUntil(facts: Facts, state: HaState): string | undefined {
  const paused = facts.dcs.view.config?.value.paused;
  if (paused === undefined) return undefined;
  const since = state.pause?.until === paused.until ? state.pause.since : facts.now;
  return facts.now - since < paused.forMs ? paused.until : undefined;
}

/** In a pause nobody stands but whom the leader itself has handed over to. */
export function isSuccessor(leader: LeaderValue, instance: string): boolean {
  return leader.phase === 'vacated' && leader.successor === instance;
}
