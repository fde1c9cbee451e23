import type { Observation } from '../../src/agent/ha/facts.ts';
import { type Candidate, planSyncSet, type SyncSituation } from '../../src/agent/ha/sync-set.ts';
import type { MemberRef } from '../../src/dcs/index.ts';
import { placeholderName, replicationName } from '../../src/postgres/replication-names.ts';

/** A change of the synchronous set, for `walsenders.pml`. Standbys are numbers from 0 to 2. */
export interface SyncChange {
  /** Whom etcd names at the beginning; undefined: mode async, and Postgres waits for nobody. */
  readonly from?: readonly number[];
  /** Whom the code chooses among, the best first; the first ones are chosen. */
  readonly candidates: readonly number[];
  readonly synchronous: number;
  /** What is wished when all that is done; Postgres's processes may be far behind. */
  readonly next?: Pick<SyncChange, 'candidates' | 'synchronous' | 'next'>;
}

/** Ways to do it wrong. */
export interface SyncMistakes {
  /** A new name comes last, where no priority shows who has loaded the list. */
  readonly joinersLast?: boolean;
  /** The list that nobody can satisfy is left out. */
  readonly nothingBetween?: boolean;
  /** That list goes before every walsender has loaded it. */
  readonly betweenTooShort?: boolean;
  /** Nobody looks whether commits wait at all. */
  readonly waitNotProved?: boolean;
}

type Step =
  | { readonly kind: 'names'; readonly names: readonly string[]; readonly gated: boolean }
  | { readonly kind: 'prove' }
  | {
      readonly kind: 'store' | 'confirm';
      readonly members: readonly MemberRef[];
      readonly joiners: readonly MemberRef[];
    };

const members: readonly MemberRef[] = [0, 1, 2].map((n) => ({
  instance: `standby-${n}`,
  dataId: String(n).repeat(32),
}));

function member(n: number): MemberRef {
  const found = members[n];
  if (found === undefined) throw new Error(`there is no standby ${n}`);
  return found;
}

/** What `planSyncSet` does, step by step, when everything that it waits for happens. */
function stepsOf(change: SyncChange, mistakes: SyncMistakes): { first: readonly string[]; steps: Step[] } {
  let stored: SyncSituation['stored'] = {
    term: 1,
    mode: change.from === undefined ? 'async' : 'sync',
    names: (change.from ?? []).map(member),
  };
  let names: readonly string[] = stored.names.map((m) => replicationName(m.dataId));
  const first = names;
  let joining: SyncSituation['joining'];
  let waitProved = mistakes.waitNotProved === true || change.from !== undefined;
  let wish: NonNullable<SyncChange['next']> = change;
  const steps: Step[] = [];
  for (let at = 1; at < 100; at++) {
    const look = (settled: boolean): Observation => ({
      at,
      inRecovery: false,
      timeline: 1,
      flushLsn: 1n,
      walsenders: members.map((m) => ({
        applicationName: replicationName(m.dataId),
        state: 'streaming',
        syncPriority: settled ? names.indexOf(replicationName(m.dataId)) + 1 : 99,
        flushLsn: 1n,
      })),
      commitWaitMs: 0,
      pendingRestart: [],
      overridden: [],
    });
    const situation: SyncSituation = {
      config: { synchronous: wish.synchronous, durability: 'required' },
      stored,
      names,
      namesApplied: true,
      observation: look(true),
      candidates: wish.candidates.map((n, i): Candidate => ({ ...member(n), apart: true, priority: 10 - i })),
      joining,
      waitProved,
    };
    const step = planSyncSet(situation);
    switch (step.step) {
      case 'nothing':
        if (wish.next !== undefined) {
          wish = wish.next;
          break;
        }
        return { first, steps: mistakes.nothingBetween === true ? withoutBetween(steps) : steps };
      case 'remember':
        joining = step.joining;
        break;
      case 'prove-wait':
        steps.push({ kind: 'prove' });
        waitProved = true;
        break;
      case 'names': {
        const unsettled = planSyncSet({ ...situation, observation: look(false) });
        const gated = unsettled.step !== 'names' || unsettled.names.join() !== step.names.join();
        const ends = mistakes.betweenTooShort === true && names.includes(placeholderName);
        steps.push({ kind: 'names', names: step.names, gated: gated && !ends });
        ({ names } = step);
        joining = step.joining;
        break;
      }
      case 'store': {
        const joiners = step.members.filter((m) => !stored.names.some((s) => s.dataId === m.dataId));
        steps.push({ kind: joiners.length > 0 ? 'confirm' : 'store', members: step.members, joiners });
        stored = { term: 1, mode: step.mode, names: [...step.members] };
        joining = undefined;
      }
    }
  }
  throw new Error('planSyncSet does not come to an end');
}

/** Leaves out each list of which another list of names follows at once. */
function withoutBetween(steps: readonly Step[]): Step[] {
  return steps
    .filter(({ kind }, i) => !(kind === 'names' && steps[i + 1]?.kind === 'names'))
    .map((s) => (s.kind === 'names' ? { ...s, gated: false } : s));
}

/** The header of `walsenders.pml` for this change: lists, and the agent's steps. */
export function syncHeader(change: SyncChange, mistakes: SyncMistakes = {}): string {
  const { first, steps } = stepsOf(change, mistakes);
  const real = members.map((m) => replicationName(m.dataId));
  const lists: (readonly string[])[] = [first];
  const setup: string[] = [];
  const mask = (of: readonly MemberRef[]) =>
    of.reduce((sum, m) => sum + 2 ** members.findIndex((x) => x.dataId === m.dataId), 0);
  const lines = steps.map((step, i) => {
    const assign = (what: string, value: number, joiners = 0) => {
      setup.push(`what[${i}] = ${what}; with[${i}] = ${value}; joins[${i}] = ${joiners};`);
    };
    if (step.kind === 'prove') {
      assign('PROVE', 0);
      return `${i}: see a commit wait`;
    }
    if (step.kind === 'names') {
      const kept = lists.at(-1) ?? [];
      const joinersLast = [
        ...step.names.filter((n) => kept.includes(n)),
        ...step.names.filter((n) => !kept.includes(n)),
      ];
      lists.push(
        mistakes.joinersLast === true && !step.names.includes(placeholderName) ? joinersLast : step.names,
      );
      assign(step.gated ? 'GATEDNAMES' : 'NAMES', lists.length - 1);
      const shown = lists.at(-1)?.map((n) => (n === placeholderName ? '*' : real.indexOf(n)));
      return `${i}: list ${lists.length - 1} = {${shown?.join(', ')}}${step.gated ? ', when all show the list before' : ''}`;
    }
    assign(step.kind === 'confirm' ? 'CONFIRM' : 'STORE', mask(step.members), mask(step.joiners));
    return `${i}: sync = {${step.members.map((m) => real.indexOf(replicationName(m.dataId))).join(', ')}}${step.kind === 'confirm' ? ', confirmed' : ''}`;
  });
  lists.forEach((list, k) => {
    setup.push(`number[${k}] = ${list.length};`);
    real.forEach((n, x) => {
      setup.push(`place[${3 * k + x}] = ${list.indexOf(n) + 1};`);
    });
  });
  return [
    `/* list 0 = {${first.map((n) => real.indexOf(n)).join(', ')}}`,
    ...lines.map((line) => ` * ${line}`),
    ' */',
    `#define LISTS ${lists.length}`,
    `#define STEPS ${steps.length}`,
    `#define NAMED ${mask((change.from ?? []).map(member))}`,
    `#define SETUP ${setup.join(' ')}`,
    '',
  ].join('\n');
}
