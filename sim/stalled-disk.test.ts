import { describe, expect, it } from 'vitest';
import { defaultTiming } from '../src/dcs/index.ts';
import { told } from './mutants/mutant.ts';
import { type Rules, shipped } from './rules.ts';
import { World } from './world.ts';

const eventAt = 10_000;
const stallMs = 30_000;
const stories = 20;

/** The disks of some stall; tells whether the primary stayed, and after how long commits were acknowledged again. */
function stalled(whose: 'primary' | 'sync' | 'everybody', rules: Rules = shipped) {
  return Array.from({ length: stories }, (_, noise) => {
    let before: string | undefined;
    let acknowledgedMs: number | undefined;
    const world = new World(
      {
        noise,
        instances: 3,
        config: { synchronous: 1, durability: 'required', fencing: 'fast' },
        ttlMs: defaultTiming.ttlMs,
        faults: [],
      },
      {
        rules,
        untilMs: 60_000,
        prepare: (prepared) =>
          prepared.at(eventAt, () => {
            const inSync = prepared.etcd.view.sync?.value.names.map((m) => m.instance) ?? [];
            const { machines } = prepared;
            before = machines.find((m) => m.postgres.writable)?.name;
            for (const machine of machines) {
              const hit =
                whose === 'everybody' ||
                (whose === 'primary' ? machine.name === before : inSync.includes(machine.name));
              if (hit) machine.stallDisk(prepared.now + stallMs);
            }
            let count = prepared.invariants.acknowledgedCount;
            const look = () => {
              const now = prepared.invariants.acknowledgedCount;
              // A session that does not wait for a standby is acknowledged by the primary alone.
              if (now > count + 2) acknowledgedMs = prepared.now - eventAt;
              else prepared.after(500, look);
              count = now;
            };
            prepared.after(500, look);
          }),
      },
    );
    expect(world.run().violation).toBeUndefined();
    const leader = world.etcd.view.leader?.value.instance;
    return { stayed: leader === before, acknowledgedMs: acknowledgedMs ?? Number.POSITIVE_INFINITY };
  });
}

describe('a stalled disk', () => {
  it('of the primary is a dead disk: a standby takes over', () => {
    for (const run of stalled('primary')) {
      expect(run.stayed).toBe(false);
      expect(run.acknowledgedMs).toBeLessThan(10_000);
    }
  });

  it('would keep the place for as long as it is stalled if nobody tried it', () => {
    const blind = told((facts) => ({ ...facts, storage: [] }))(shipped);
    for (const run of stalled('primary', blind)) {
      expect(run.stayed).toBe(true);
      expect(run.acknowledgedMs).toBeGreaterThanOrEqual(stallMs);
    }
  });

  it('of a synchronous standby has it replaced', () => {
    for (const run of stalled('sync')) {
      expect(run.stayed).toBe(true);
      expect(run.acknowledgedMs).toBeLessThan(6_000);
    }
  });

  it('of everybody is waited for: no failover would help', () => {
    for (const run of stalled('everybody')) {
      expect(run.stayed).toBe(true);
      expect(run.acknowledgedMs).toBeGreaterThanOrEqual(stallMs);
      expect(run.acknowledgedMs).toBeLessThan(stallMs + 5_000);
    }
  });
});
