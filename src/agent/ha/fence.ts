import type { Draft } from './draft.ts';
import type { Facts, HaState, Operation, Reign } from './facts.ts';
import { pausedUntil } from './pause.ts';
import { stalledStorage, storageSilenceMs } from './storage.ts';
import { livingStandby, livingSyncMember } from './sync-upkeep.ts';

/** A primary whose database has not answered for this long is given up, ms. */
const databaseSilenceMs = 5_000;

/**
 * When koschei-init must fence, on the boot-time clock; 0: no Postgres that could acknowledge a write runs. The deadline
 * outlives the reign: until Postgres is down, whoever should end it may get stuck.
 */
export function fenceDeadline(state: HaState, facts: Facts): number {
  const running = state.operation?.operation;
  const { process } = facts.postgres;
  const ending = running?.do === 'fence' && process !== 'none' && process !== 'ended';
  if (!mayWrite(facts) && !isOpening(running) && !ending) return 0;
  return state.reign?.deadline ?? state.lastDeadline ?? 0;
}

/** An operation that ends with a Postgres that could acknowledge a write. */
function isOpening(operation: Operation | undefined): boolean {
  return operation?.do === 'promote' || (operation?.do === 'start' && operation.as === 'primary');
}

/** Postgres runs and could acknowledge a write. */
function mayWrite(facts: Facts): boolean {
  const { process, startedAs, observation } = facts.postgres;
  return (
    process !== 'none' &&
    process !== 'ended' &&
    (startedAs !== 'standby' || observation?.inRecovery === false || process === 'leftovers')
  );
}

/** Rule "Fence": no write is acknowledged without leadership, or past the deadline. True: nothing else is to be decided. */
export function fenceIfDue(draft: Draft): boolean {
  const { facts, state } = draft;
  const running = state.operation?.operation;
  if (running?.do === 'fence') return true;
  // A fence that failed, on a volume that cannot be read for example, is not tried again at once.
  if (state.fenceAfter !== undefined && draft.now < state.fenceAfter) return true;
  const { reign } = state;
  if (!mayWrite(facts) && !isOpening(running)) {
    // Nothing to fence. Who is past the deadline must win a new write before anything is started (R10), also when the
    // start of a standby that it was to promote does not end.
    const idle = running === undefined || running.do === 'start';
    if (reign !== undefined && idle && draft.now >= reign.deadline) draft.endReign(true);
    draft.set({ lastDeadline: undefined, fenceAfter: undefined });
    return false;
  }
  if (facts.postgres.process === 'leftovers' && running === undefined) {
    draft.operate(
      { do: 'fence', why: 'processes of an earlier Postgres are alive' },
      'two servers never write to one data directory',
    );
    return true;
  }
  if (reign === undefined) {
    draft.operate(
      { do: 'fence', why: 'this instance does not lead' },
      'only the leader may acknowledge writes',
    );
    return true;
  }
  if (draft.now >= reign.deadline) {
    draft.operate(
      { do: 'fence', why: `no heartbeat succeeded for ${draft.now - reign.goodAt} ms` },
      'others may take over when the ttl is over',
    );
    return true;
  }
  const o = facts.postgres.observation;
  const silentSince = Math.max(o?.at ?? 0, facts.postgres.since, reign.goodAt - databaseSilenceMs * 10);
  // A Postgres that is being stopped answers nobody; what else a leader does takes no answer away.
  if (
    reign.stage === 'leading' &&
    running?.do !== 'stop' &&
    facts.postgres.process === 'running' &&
    draft.now - silentSince > databaseSilenceMs
  ) {
    draft.operate(
      { do: 'fence', why: `Postgres has not answered for ${draft.now - silentSince} ms` },
      'a primary that does not answer is no primary',
    );
    return true;
  }
  const stalled = stalledStorage(facts, storageSilenceMs);
  const heir = stalled === undefined ? undefined : heirOf(draft, reign);
  if (stalled !== undefined && heir !== undefined) {
    draft.operate(
      { do: 'fence', why: `nothing written to the ${stalled.volume} volume becomes durable`, atOnce: true },
      `a stalled disk is a dead disk, and ${heir.instance} has another one`,
    );
    return true;
  }
  return false;
}

/** Who can take the place: where nobody can, or where everybody's disk stands still, the place is better kept. */
function heirOf(draft: Draft, { stage, sync }: Reign) {
  if (stage !== 'leading' || pausedUntil(draft.facts, draft.state) !== undefined) return undefined;
  return sync.mode === 'sync' ? livingSyncMember(draft, sync) : livingStandby(draft);
}
