import { describe, expect, it } from 'vitest';
import { defaultTiming } from '../src/dcs/index.ts';
import type { Schedule } from './faults.ts';
import type { Machine } from './machine.ts';
import { World } from './world.ts';

const eventAt = 10_000;
const stories = 10;

interface Happening {
  readonly primary: Machine;
  readonly machines: readonly Machine[];
  readonly world: World;
}

/** Postgres needs this long to start from now on. */
function startsIn(machine: Machine, ms: number): void {
  machine.slowStart.until = Number.MAX_SAFE_INTEGER;
  machine.slowStart.delay = ms;
}

/** Lets something happen to a quiet cluster; tells who is the primary in the end and when one was. */
function played(happen: (h: Happening) => void, config: Partial<Schedule['config']> = {}, untilMs = 30_000) {
  return Array.from({ length: stories }, (_, noise) => {
    let before: Machine | undefined;
    let terms = 0;
    let upMs: number | undefined;
    const serving = (world: World) =>
      world.machines.find((m) => m.postgres.writable && m.postgres.settings.clientsAllowed);
    const world = new World(
      {
        noise,
        instances: 3,
        config: { synchronous: 1, durability: 'required', fencing: 'fast', ...config },
        ttlMs: defaultTiming.ttlMs,
        faults: [],
      },
      {
        untilMs,
        prepare: (prepared) =>
          prepared.at(eventAt, () => {
            before = serving(prepared);
            if (before === undefined) throw new Error('there is no primary to begin with');
            terms = prepared.lastTerm;
            happen({ primary: before, machines: prepared.machines, world: prepared });
            const look = () => {
              if (serving(prepared) === undefined) prepared.after(10, look);
              else upMs = prepared.now - eventAt;
            };
            prepared.after(20, look);
          }),
      },
    );
    expect(world.run().violation).toBeUndefined();
    return { stayed: serving(world) === before, upMs, terms: world.lastTerm - terms };
  });
}

describe('a Postgres that starts slowly', () => {
  it.each<Partial<Schedule['config']>>([{}, { fencing: 'strict' }])(
    'does not keep the place when all start anew and a level standby is up: %o',
    (config) => {
      const runs = played(({ primary, machines }) => {
        startsIn(primary, 60_000);
        for (const machine of machines) machine.endAgent(machine === primary ? 300 : 1_000);
      }, config);
      for (const run of runs) {
        expect(run).toMatchObject({ stayed: false, terms: 1 });
        // Patience, suspicion (strict: a ttl), takeover.
        expect(run.upMs).toBeLessThan(config.fencing === 'strict' ? 15_000 : 10_000);
      }
    },
  );

  it('does not race a living standby after its agent was started anew', () => {
    const runs = played(({ primary }) => {
      startsIn(primary, 4_000);
      primary.endAgent(300);
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: false, terms: 1 });
      expect(run.upMs).toBeLessThan(3_500);
    }
  });

  it('leads on when it is ready in time and nobody else is', () => {
    const runs = played(({ primary, machines }) => {
      for (const machine of machines) {
        startsIn(machine, 500);
        machine.endAgent(machine === primary ? 100 : 200);
      }
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: true, terms: 0 });
      expect(run.upMs).toBeLessThan(1_700);
    }
  });

  it('costs no time when a standby is level: it is told at once', () => {
    const runs = played(({ primary }) => {
      startsIn(primary, 60_000);
      primary.database.crash();
    });
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: false, terms: 1 });
      expect(run.upMs).toBeLessThan(2_000);
    }
  });

  it('gets its time when those who might go first cannot', () => {
    const runs = played(
      ({ primary, machines, world: { network, now } }) => {
        startsIn(primary, 18_000);
        for (const machine of machines) {
          if (machine === primary) continue;
          network.cut(machine.number, network.etcd, now + 65_000);
          network.cut(network.etcd, machine.number, now + 65_000);
        }
        primary.database.crash();
      },
      {},
      75_000,
    );
    for (const run of runs) {
      expect(run).toMatchObject({ stayed: true, terms: 0 });
      // It is interrupted twice, each time after double the patience.
      expect(run.upMs).toBeGreaterThan(45_000);
      expect(run.upMs).toBeLessThan(58_000);
    }
  });

  it('everywhere comes to an end, too', () => {
    const runs = played(
      ({ machines }) => {
        for (const machine of machines) {
          startsIn(machine, 12_000);
          machine.endAgent(500);
        }
      },
      {},
      60_000,
    );
    for (const run of runs) expect(run.terms).toBeLessThanOrEqual(1);
  });
});
