import type { CommandValue } from '../../dcs/index.ts';
import type { Draft } from './draft.ts';
import { clone } from './rejoin.ts';

/** How often the deletion of a finished order is asked for, ms. */
const finishAgainMs = 5_000;

/** What the operator asks this instance to do. */
export function orderOf(draft: Draft): CommandValue | undefined {
  return draft.facts.dcs.view.commands.get(draft.facts.me.instance)?.value;
}

/** Has the order that was being carried out deleted. */
export function finishCommand(draft: Draft, because: string): void {
  if (draft.state.commandId === undefined) return;
  draft.commands.push({ kind: 'finish-command', commandId: draft.state.commandId, because });
  draft.set({ commandId: undefined, finishedCommand: { id: draft.state.commandId, at: draft.now } });
}

/** Carries out the operator's order. True: something was begun. */
export function obeyCommand(draft: Draft): boolean {
  const { facts, state } = draft;
  const command = orderOf(draft);
  if (command === undefined || state.commandId !== undefined || draft.now < state.retryAt) return false;
  const done = state.finishedCommand;
  if (command.id === done?.id) {
    if (draft.now - done.at >= finishAgainMs) {
      draft.set({ commandId: command.id });
      finishCommand(draft, 'it was carried out already');
    }
    return false;
  }
  if (command.do === 'restart') {
    draft.set({ commandId: command.id });
    draft.operate({ do: 'stop' }, 'the operator asks for a restart of Postgres');
    return true;
  }
  const leader = facts.dcs.view.leader?.value;
  if (state.reign !== undefined || leader === undefined) {
    draft.set({ commandId: command.id });
    finishCommand(draft, 'the primary is never cloned');
    return false;
  }
  if (!clone(draft, leader, 'the operator asks for it')) return false;
  draft.set({ commandId: command.id });
  return true;
}
