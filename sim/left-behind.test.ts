import { describe, expect, it } from 'vitest';
import { defaultTiming } from '../src/dcs/index.ts';
import type { Machine } from './machine.ts';
import { World } from './world.ts';

const eventAt = 10_000;
const stories = 100;

/**
 * The agent of the primary stands still while its Postgres goes on. Tells after how many milliseconds the new primary has
 * another synchronous standby than the old primary, and whether that had to be rewound or cloned first.
 */
function takenFrom(noise: number, fault: (primary: Machine) => void) {
  let third: Machine | undefined;
  let usableMs: number | undefined;
  const lines: string[] = [];
  const world = new World(
    {
      noise,
      instances: 3,
      config: { synchronous: 1, durability: 'required', fencing: 'fast' },
      ttlMs: defaultTiming.ttlMs,
      faults: [],
    },
    {
      untilMs: 40_000,
      tell: (line) => lines.push(line),
      prepare: (prepared) =>
        prepared.at(eventAt, () => {
          const before = prepared.machines.find((m) => m.postgres.writable);
          const inSync = prepared.etcd.view.sync?.value.names.map((m) => m.instance) ?? [];
          third = prepared.machines.find((m) => m !== before && !inSync.includes(m.name));
          if (before === undefined || inSync.length !== 1) throw new Error('the cluster is not well');
          fault(before);
          const look = () => {
            const { sync, leader } = prepared.etcd.view;
            const usable =
              leader?.value.instance === inSync[0] &&
              sync?.value.names.length === 1 &&
              sync.value.names[0]?.instance === third?.name;
            if (usable) usableMs = prepared.now - eventAt;
            else prepared.after(10, look);
          };
          prepared.after(10, look);
        }),
    },
  );
  expect(world.run().violation).toBeUndefined();
  const copied = lines.some((line) => line.includes(`${third?.name} rewind`));
  return { usableMs, copied };
}

describe('a primary whose agent is stopped', () => {
  it('sends no standby anything that the next primary does not have', () => {
    const runs = Array.from({ length: stories }, (_, noise) =>
      takenFrom(noise, ({ agent }) => {
        if (agent !== undefined) agent.stalledUntil = Number.MAX_SAFE_INTEGER;
      }),
    );
    const times = runs.map((r) => r.usableMs ?? Number.POSITIVE_INFINITY).toSorted((a, b) => a - b);
    expect(runs.filter((r) => r.copied)).toHaveLength(0);
    expect(times[stories / 2]).toBeLessThan(2_500);
    expect(times.at(-1)).toBeLessThan(4_000);
  });
});
