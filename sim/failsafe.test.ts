import { describe, expect, it } from 'vitest';
import { type Fault, type Schedule, schedule } from './faults.ts';
import { type Outcome, run, type World } from './world.ts';

const outageAt = 5_000;

/** A schedule of this seed in which nothing happens but these. */
function only(seed: number, faults: readonly Fault[], change: Partial<Schedule> = {}): Schedule {
  return { ...schedule(seed), faults, ...change };
}

/** The same, with fewer to choose from. */
const clusters: [string, Partial<Schedule>][] = [
  ['asynchronous', { instances: 3, config: { synchronous: 0, durability: 'required', fencing: 'fast' } }],
  ['synchronous', { instances: 3, config: { synchronous: 1, durability: 'required', fencing: 'fast' } }],
  ['strict', { instances: 3, config: { synchronous: 1, durability: 'required', fencing: 'strict' } }],
  [
    'twice synchronous',
    { instances: 4, config: { synchronous: 2, durability: 'preferred', fencing: 'fast' } },
  ],
];

function calm({ violation, terms }: Outcome): void {
  expect(violation).toBeUndefined();
  expect(terms).toBe(1);
}

describe('while etcd is away and everything else is healthy', () => {
  // The invariant `failsafe` holds in every moment: the primary serves, commits are acknowledged, nobody is promoted.
  it('writes go on, in clusters of every kind', { timeout: 60_000 }, () => {
    for (let seed = 1; seed <= 150; seed++)
      calm(run(only(seed, [{ at: outageAt, kind: 'etcd-outage', for: 3_000 + seed * 300 }])));
  });

  it('writes go on for ten minutes', { timeout: 60_000 }, () => {
    for (const [, change] of clusters)
      calm(run(only(1, [{ at: outageAt, kind: 'etcd-outage', for: 600_000 }], change)));
  });

  it('a primary without anybody who could stand needs nobody', () => {
    calm(run(only(1, [{ at: outageAt, kind: 'etcd-outage', for: 60_000 }], { instances: 1 })));
  });

  it.each<[string, Fault]>([
    ['a short outage of etcd', { at: outageAt, kind: 'etcd-election', for: 2_000 }],
    [
      'a primary that is cut off from etcd alone',
      { at: outageAt, kind: 'cut-etcd', who: 'leader', for: 60_000, requests: true, answers: true },
    ],
    [
      'a primary that does not hear what etcd answers',
      { at: outageAt, kind: 'cut-etcd', who: 'leader', for: 60_000, requests: false, answers: true },
    ],
    ['an etcd that is full', { at: outageAt, kind: 'etcd-full', for: 60_000 }],
  ])('%s is no reason for a failover', { timeout: 60_000 }, (_, fault) => {
    for (const [, change] of clusters)
      for (let seed = 1; seed <= 10; seed++) calm(run(only(seed, [fault], change)));
  });
});

describe.each(clusters)('in an %s cluster without etcd', (_, change) => {
  /** What is seen of one cluster some time after something else has gone wrong, too. */
  function meanwhile(fault: Fault, look: (world: World) => void): void {
    for (let seed = 1; seed <= 10; seed++) {
      const which = only(seed, [{ at: outageAt, kind: 'etcd-outage', for: 30_000 }, fault], change);
      const outcome = run(which, { prepare: (world) => world.at(outageAt + 28_000, () => look(world)) });
      expect(outcome.violation).toBeUndefined();
    }
  }
  const writable = (world: World) => world.machines.filter((m) => m.serves && m.postgres.writable);

  it('nobody follows a primary that is lost, and all is well when etcd is back', { timeout: 60_000 }, () => {
    meanwhile({ at: outageAt + 10_000, kind: 'lose-power', who: 0, for: 60_000 }, (world) => {
      expect(writable(world)).toEqual([]);
      expect(world.lastTerm).toBe(1);
    });
  });

  it('a primary whose agent starts anew is none any more before etcd is back', { timeout: 60_000 }, () => {
    meanwhile({ at: outageAt + 10_000, kind: 'kill-agent', who: 0, for: 500 }, (world) => {
      expect(writable(world)).toEqual([]);
      expect(world.lastTerm).toBe(1);
    });
  });

  it('a primary fences when somebody who may stand does not promise', { timeout: 60_000 }, () => {
    meanwhile({ at: outageAt + 10_000, kind: 'isolate', who: 0, for: 60_000 }, (world) =>
      expect(writable(world)).toEqual([]),
    );
  });
});
