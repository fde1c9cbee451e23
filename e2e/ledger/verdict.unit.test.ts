import { describe, expect, test } from 'vitest';
import {
  type Attempt,
  type Audit,
  bank,
  type History,
  type Outcome,
  type Read,
  type Server,
  type Transfer,
} from './history.ts';
import type { TermRecord } from './primaries.ts';
import { type Evidence, judgeEvidence } from './verdict.ts';

/*
 * The checker is checked: histories of a made-up database that does everything right must pass, and each of them with
 * one thing broken must not.
 */

/** Mulberry32: small, and the same numbers for the same seed everywhere. */
function randomFrom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const lives: readonly (Server & { instance: string; from: number; to: number })[] = [
  { timeline: 1, server: '10.0.0.1', started: 10, instance: 'shop-1', from: 1_000, to: 4_000 },
  { timeline: 2, server: '10.0.0.2', started: 20, instance: 'shop-2', from: 5_000, to: 9_000 },
  // A restart in place.
  { timeline: 2, server: '10.0.0.2', started: 9_200, instance: 'shop-2', from: 9_500, to: 12_000 },
  { timeline: 5, server: '10.0.0.3', started: 30, instance: 'shop-3', from: 13_000, to: 16_000 },
];
const terms: readonly TermRecord[] = [
  { term: 1, timeline: 1, instance: 'shop-1', at: 900 },
  { term: 2, timeline: 2, instance: 'shop-2', at: 4_900 },
  { term: 3, timeline: 5, instance: 'shop-3', at: 12_900 },
];

type Mutable = {
  history: { -readonly [K in keyof History]: History[K][number][] };
  final: { rows: { worker: number; seq: number; count: number }[]; registers: Map<number, number> };
  bank: { balances: Map<number, number>; transfers: Transfer[] };
};

/** A database with four lives, as its clients saw it. What is under way at the end of a life is unknown to them. */
function goodEvidence(seed: number): Evidence & Mutable {
  const random = randomFrom(seed);
  const attempts: Attempt[] = [];
  const reads: Read[] = [];
  const transfers: Transfer[] = [];
  const audits: Audit[] = [];
  const rows: { worker: number; seq: number; count: number }[] = [];
  const registers = new Map([1, 2, 3, 4].map((worker) => [worker, 0]));
  const balances = new Map(
    Array.from({ length: bank.accounts }, (_, index) => [index + 1, bank.initialBalance as number]),
  );
  const booked: Transfer[] = [];
  const seqs = new Map<string, number>();
  const next = (of: string) => {
    seqs.set(of, (seqs.get(of) ?? 0) + 1);
    return seqs.get(of) ?? 0;
  };
  /** Invoked at `at`, in force at `at + 5`, answered at `at + 10`; or without an answer. */
  const outcomeAt = (at: number, life: { to: number }): Outcome => {
    if (at + 10 > life.to) return 'unknown';
    return random() < 0.05 ? 'failed' : 'acknowledged';
  };
  for (const life of lives) {
    const { timeline, server, started } = life;
    const by = { timeline, server, started, route: 'service' as const };
    for (let at = life.from; at < life.to; at += 40) {
      for (const worker of [1, 2, 3, 4]) {
        const invokedAt = at + worker;
        const outcome = outcomeAt(invokedAt, life);
        const seq = next(`worker ${worker}`);
        attempts.push({
          ...{ worker, seq, invokedAt, completedAt: invokedAt + 10, outcome, ...by },
          registerRead: registers.get(worker) ?? 0,
        });
        if (outcome === 'failed' || (outcome === 'unknown' && random() < 0.5)) continue;
        rows.push({ worker, seq, count: 1 });
        registers.set(worker, seq);
      }
      const client = 1 + Math.floor(random() * 2);
      const seq = next(`client ${client}`);
      const [source, amount] = [1 + (seq % 8), 1 + (seq % 5)];
      const move: Transfer = {
        ...{ client, seq, isolation: 'serializable', source, target: 1 + (source % 8), amount },
        ...{ invokedAt: at, completedAt: at + 10, outcome: outcomeAt(at, life), ...by },
      };
      transfers.push(move);
      if (move.outcome === 'acknowledged' || (move.outcome === 'unknown' && random() < 0.5)) {
        booked.push(move);
        balances.set(source, (balances.get(source) ?? 0) - amount);
        balances.set(move.target, (balances.get(move.target) ?? 0) + amount);
      }
      // After everything above has ended.
      const later = { invokedAt: at + 15, completedAt: at + 16, ...by };
      if (later.completedAt > life.to) continue;
      const worker = 1 + Math.floor(random() * 4);
      reads.push({ reader: 1, worker, value: registers.get(worker) ?? 0, ...later });
      audits.push({ client, total: bank.accounts * bank.initialBalance, ...later });
    }
  }
  return {
    history: { attempts, reads, transfers, audits },
    final: { rows, registers },
    bank: { balances, transfers: booked },
    terms,
    instanceOf: (address) => lives.find(({ server }) => server === address)?.instance,
    fenceWithin: 6_000,
  };
}

const replace = <T>(list: T[], old: T, change: Partial<T>): void => {
  list[list.indexOf(old)] = { ...old, ...change };
};
function pick<T>(random: () => number, list: readonly T[]): T {
  const found = list[Math.floor(random() * list.length)];
  if (found === undefined) throw new Error('there is nothing to pick');
  return found;
}
const isAcknowledged = ({ outcome }: { outcome: Outcome }) => outcome === 'acknowledged';
const firstLife = ({ timeline }: { timeline?: number }) => timeline === 1;
const laterLife = ({ timeline = 0 }: { timeline?: number }) => timeline > 1;

/** What can be wrong with a database, done to a good history; and what the checker says then. */
const broken: Record<string, [damage: (e: Mutable, random: () => number) => void, says: RegExp]> = {
  'an acknowledged row is lost': [
    ({ history, final }, random) => {
      const { worker, seq } = pick(random, history.attempts.filter(isAcknowledged));
      final.rows = final.rows.filter((row) => row.worker !== worker || row.seq !== seq);
    },
    /acknowledged rows are lost/,
  ],
  'the last rows before a failover are lost': [
    ({ history, final }) => {
      const { seq } = history.attempts.findLast(
        (each) => each.worker === 1 && firstLife(each) && isAcknowledged(each),
      ) as Attempt;
      final.rows = final.rows.filter((row) => row.worker !== 1 || row.seq !== seq);
    },
    /acknowledged rows are lost/,
  ],
  'a row is written twice': [
    ({ final }, random) => {
      const row = pick(random, final.rows);
      replace(final.rows, row, { count: 2 });
    },
    /more than once/,
  ],
  'a failed row is there': [
    ({ history, final }, random) => {
      const { worker, seq } = pick(
        random,
        history.attempts.filter(({ outcome }) => outcome === 'failed'),
      );
      final.rows.push({ worker, seq, count: 1 });
    },
    /although their transaction was said to have failed/,
  ],
  'a row of nobody is there': [
    ({ final }) => final.rows.push({ worker: 9, seq: 9, count: 1 }),
    /nobody wrote/,
  ],
  'a register goes back at the end': [
    ({ final }) => final.registers.set(2, (final.registers.get(2) ?? 0) - 3),
    /registers of the workers 2/,
  ],
  'a read sees an old value after a newer one was acknowledged': [
    ({ history }, random) => {
      const read = pick(
        random,
        history.reads.filter((each) => laterLife(each) && each.value > 10),
      );
      replace(history.reads, read, { value: read.value - 10 });
    },
    /saw an old value|whose transaction had failed/,
  ],
  'a read sees what an earlier read did not, and then not again': [
    ({ history, final }) => {
      // Nothing of worker 1 is acknowledged any more: only the reads themselves can tell.
      for (const each of history.attempts.filter(({ worker }) => worker === 1)) {
        replace(history.attempts, each, { outcome: 'unknown' });
      }
      const [first, second] = history.reads.filter(({ worker, timeline }) => worker === 1 && timeline === 5);
      if (first === undefined || second === undefined) throw new Error('too few reads');
      replace(history.reads, first, { value: second.value, completedAt: second.invokedAt - 1 });
      replace(history.reads, second, { value: first.value - 1 });
      final.registers.set(1, second.value);
    },
    /saw an old value/,
  ],
  'a replaced primary answers reads for longer than it may': [
    ({ history }) => {
      const [old] = history.reads.filter(firstLife);
      if (old === undefined) throw new Error('too few reads');
      const at = 5_010 + 6_000 + 500;
      history.reads.push({ ...old, invokedAt: at, completedAt: at + 5 });
    },
    /saw an old value/,
  ],
  'a read sees a failed write': [
    ({ history }, random) => {
      const { worker, seq, completedAt } = pick(
        random,
        history.attempts.filter(({ outcome }) => outcome === 'failed'),
      );
      const read = pick(random, history.reads);
      history.reads.push({
        ...read,
        worker,
        value: seq,
        invokedAt: completedAt,
        completedAt: completedAt + 1,
      });
    },
    /whose transaction had failed/,
  ],
  'a read sees the future': [
    ({ history }, random) => {
      const read = pick(random, history.reads);
      replace(history.reads, read, { value: 100_000 });
    },
    /nobody had written/,
  ],
  'a write reads an old register': [
    ({ history }, random) => {
      const attempt = pick(
        random,
        history.attempts.filter((each) => isAcknowledged(each) && laterLife(each)),
      );
      replace(history.attempts, attempt, { registerRead: (attempt.registerRead ?? 0) - 4 });
    },
    /read an old value/,
  ],
  'two primaries acknowledge at one moment in overlapping terms': [
    ({ history, final }) => {
      const [first] = lives;
      if (first === undefined) throw new Error('no life');
      const { timeline, server, started } = first;
      const seq = 1_000;
      const at = { invokedAt: 5_100, completedAt: 5_110, timeline, server, started };
      history.attempts.push({ worker: 7, seq, route: 'multi-host', outcome: 'acknowledged', ...at });
      final.rows.push({ worker: 7, seq, count: 1 });
      final.registers.set(7, seq);
    },
    /by a primary that had been replaced/,
  ],
  'an old primary acknowledges before the new one does, but after its term had begun': [
    ({ history }) => {
      const attempt = history.attempts.findLast((each) => firstLife(each) && isAcknowledged(each)) as Attempt;
      replace(history.attempts, attempt, { invokedAt: 4_970, completedAt: 4_980 });
    },
    /after term 2 had begun/,
  ],
  'only a transfer shows the old primary': [
    ({ history, bank: { transfers, balances } }) => {
      const old = history.transfers.find((each) => firstLife(each) && isAcknowledged(each)) as Transfer;
      const late = { ...old, seq: 9_999, invokedAt: 6_000, completedAt: 6_010 };
      history.transfers.push(late);
      transfers.push(late);
      balances.set(late.source, (balances.get(late.source) ?? 0) - late.amount);
      balances.set(late.target, (balances.get(late.target) ?? 0) + late.amount);
    },
    /transfers were acknowledged by a primary that had been replaced/,
  ],
  'two primaries on one timeline': [
    ({ history }) => {
      for (const each of history.attempts) {
        if (each.worker === 3 && each.timeline === 5) {
          replace(history.attempts, each, { server: '10.0.0.1', started: 25 });
        }
      }
    },
    /on one timeline/,
  ],
  'somebody acknowledges on a timeline that is not his': [
    ({ history }) => {
      for (const each of history.attempts.filter(laterLife)) {
        if (each.timeline === 5) replace(history.attempts, each, { server: '10.0.0.1' });
      }
      for (const each of history.transfers) {
        if (each.timeline === 5) replace(history.transfers, each, { server: '10.0.0.1' });
      }
    },
    /by shop-1 on timeline 5, which is that of shop-3/,
  ],
  'a timeline of nobody': [
    ({ history }) => {
      for (const each of history.attempts) {
        if (each.timeline === 5) replace(history.attempts, each, { timeline: 6 });
      }
    },
    /etcd knows no term/,
  ],
  'a sum of the bank is wrong': [
    ({ history }, random) => {
      const audit = pick(random, history.audits);
      replace(history.audits, audit, { total: audit.total - 3 });
    },
    /sums of the bank are not 8000/,
  ],
  'an update of the bank is lost': [
    ({ bank: { balances } }) => balances.set(3, (balances.get(3) ?? 0) + 5),
    /the bank holds 8005/,
  ],
  'half a transfer, made up for elsewhere': [
    ({ bank: { balances } }) => {
      balances.set(3, (balances.get(3) ?? 0) + 5);
      balances.set(4, (balances.get(4) ?? 0) - 5);
    },
    /something else than their transfers make/,
  ],
  'an acknowledged transfer is lost altogether': [
    (e, random) => {
      const lost = pick(random, e.bank.transfers.filter(isAcknowledged));
      e.bank.transfers = e.bank.transfers.filter((each) => each !== lost);
      e.bank.balances.set(lost.source, (e.bank.balances.get(lost.source) ?? 0) + lost.amount);
      e.bank.balances.set(lost.target, (e.bank.balances.get(lost.target) ?? 0) - lost.amount);
    },
    /acknowledged transfers are lost/,
  ],
  'a transfer is booked twice': [
    ({ bank: { transfers } }, random) => transfers.push(pick(random, transfers)),
    /transfers are there more than once/,
  ],
};

const seeds = [1, 2, 3];

describe('the whole checker', { timeout: 30_000 }, () => {
  test('passes good histories, with failovers and a restart in place', () => {
    for (const seed of seeds) {
      const verdict = judgeEvidence(goodEvidence(seed));
      expect(verdict.problems, `seed ${seed}`).toEqual([]);
      expect(verdict.writes.acknowledged).toBeGreaterThan(1_000);
      expect(verdict.reads.reads).toBeGreaterThan(250);
      expect(verdict.bank.acknowledged).toBeGreaterThan(200);
    }
  });

  test('allows an old primary to answer reads until it must have fenced, and counts them', () => {
    const evidence = goodEvidence(1);
    const old = evidence.history.reads.findLast(firstLife) as Read;
    evidence.history.reads.push({ ...old, invokedAt: 6_000, completedAt: 6_005 });
    const { reads, problems } = judgeEvidence(evidence);
    expect(problems).toEqual([]);
    expect(reads.staleUntilFence).toBe(1);
  });

  for (const [name, [damage, says]] of Object.entries(broken)) {
    test(`catches: ${name}`, () => {
      for (const seed of seeds) {
        const evidence = goodEvidence(seed);
        damage(evidence, randomFrom(seed + 1_000));
        expect(judgeEvidence(evidence).problems.join('\n'), `seed ${seed}`).toMatch(says);
      }
    });
  }
});
