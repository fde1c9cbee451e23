import type { Operation, OperationOutcome } from '../src/agent/ha/index.ts';
import type { Machine } from './machine.ts';
import type { World } from './world.ts';

type Answer = (outcome: OperationOutcome) => void;

/** As in src/agent/database.ts, ms. */
const limit = { receiverGone: 3_000, receiverPatience: 300, replay: 60_000, stop: 55_000 } as const;

/** The operations of src/agent/database.ts on the model of Postgres: the same steps, in the same order, and as slow. */
export class SimDatabase {
  readonly #world: World;
  readonly #machine: Machine;
  /** Of the operation under way: an older one goes no further. */
  #token = 0;
  #answer: Answer | undefined;
  #ends = false;
  /** Postgres has ended, and the volume is being looked at. */
  #crashed = -1;

  constructor(world: World, machine: Machine) {
    this.#world = world;
    this.#machine = machine;
  }

  /** The agent is gone, and with it what it was doing. */
  abandon(): void {
    this.#token += 1;
    this.#answer = undefined;
    this.#ends = false;
  }

  /** Postgres ends by itself. */
  crash(): void {
    const { postgres } = this.#machine;
    if (postgres.process === 'none' || postgres.process === 'ended') return;
    if (postgres.incarnation === this.#crashed) return;
    const { startedAs } = postgres;
    postgres.end();
    if (this.#ends) return;
    const answer = this.#answer;
    this.abandon();
    // Until the volume has been read again nothing may be started from it.
    postgres.process = 'starting';
    postgres.startedAs = startedAs;
    const { incarnation } = postgres;
    this.#crashed = incarnation;
    this.#world.after(this.#world.noise.between(2, 20), () =>
      this.#machine.run(() => {
        if (postgres.incarnation !== incarnation) return;
        postgres.process = 'none';
        postgres.startedAs = undefined;
        postgres.since = this.#machine.clock();
        answer?.({ ok: false, reason: 'PostgresEnded', message: 'Postgres ended by itself' });
        this.#machine.agent?.wake();
      }),
    );
  }

  /** Carries out one operation; the answer to one that was interrupted never comes. */
  operate(operation: Operation, answer: Answer): void {
    this.#token += 1;
    const token = this.#token;
    this.#answer = answer;
    this.#ends = ['stop', 'fence', 'rewind', 'clone'].includes(operation.do);
    const { operationFates } = this.#machine;
    const index = operationFates.findIndex((f) => f.do === operation.do);
    const [fate] = index < 0 ? [] : operationFates.splice(index, 1);
    const finish: Answer = (outcome) => {
      if (this.#token !== token) return;
      this.#answer = undefined;
      this.#ends = false;
      if (fate?.fate === 'fails-after') answer(failure('its end was not seen'));
      else answer(outcome);
    };
    const begin = () => {
      if (fate?.fate === 'fails')
        return this.#then(token, 5, () => finish(failure('it failed before it began')));
      this.#run(operation, token, finish);
    };
    if (fate?.fate === 'slow') this.#then(token, fate.delay, begin);
    else begin();
  }

  #run(operation: Operation, token: number, finish: Answer): void {
    const { noise, invariants } = this.#world;
    const machine = this.#machine;
    const { postgres, disk } = machine;
    const then = (ms: number, what: () => void) => this.#then(token, ms, what);
    const done = (lsn?: number) => finish(lsn === undefined ? { ok: true } : { ok: true, lsn: BigInt(lsn) });
    const failed = (message: string, needsClone = false) =>
      finish({ ok: false, reason: 'Simulated', message, ...(needsClone ? { needsClone } : {}) });
    // Nothing goes on while the data volume stands still.
    const onDisk = (ms: number, what: () => void) =>
      then(ms + Math.max(0, disk.stalledUntil - this.#world.now), what);
    switch (operation.do) {
      case 'start': {
        if (disk.state !== 'ready' && !this.#world.flaws.startsAnything)
          return failed('there is no usable data directory');
        return onDisk(noise.between(2, 15), () => {
          invariants.starting(machine, operation.as);
          if (operation.as === 'primary' && operation.term > disk.promotedTerm)
            disk.promotedTerm = operation.term;
          postgres.beginStart(operation.as, operation.settings);
          this.#machine.agent?.wake();
          if (disk.fullUntil > this.#world.now)
            return then(noise.between(50, 300), () => {
              postgres.end();
              finish({ ok: false, reason: 'DiskFull', message: 'it does not start' });
            });
          onDisk(machine.startDelay(), () => {
            postgres.ready();
            postgres.applied = { ...operation.settings, generation: this.#generation() };
            postgres.observe();
            done(operation.as === 'primary' ? disk.tip.lsn : undefined);
          });
        });
      }
      case 'fence':
        return then(postgres.process === 'none' ? 1 : machine.quitDelay(), () => {
          if (postgres.process !== 'none') postgres.end();
          if (disk.stalledUntil > this.#world.now) machine.awaitDisk();
          done();
        });
      case 'stop':
        return this.#stop(token, finish);
      case 'configure':
      case 'stop-receiver':
        return onDisk(noise.between(2, 10), () => {
          postgres.configure(operation.settings);
          if (postgres.process !== 'running') return failed('Postgres is not running');
          then(noise.between(1, 10), () => {
            postgres.applied = { ...operation.settings, generation: this.#generation() };
            postgres.observe();
            if (operation.do === 'configure') return done();
            this.#receiverGone(token, this.#world.now, false, done, failed);
          });
        });
      case 'promote':
        return this.#promote(operation, token, done, failed);
      case 'prove-wait':
        return then(noise.between(10, 60), () =>
          postgres.waits ? done() : then(3_000, () => failed('no commit was seen to wait')),
        );
      case 'checkpoint':
        return onDisk(noise.between(5, 100), () => {
          postgres.checkpointed = true;
          done();
        });
      case 'rewind':
      case 'clone':
        return this.#stop(token, () => this.#copy(operation, token, done, failed));
    }
  }

  #stop(token: number, finish: Answer): void {
    const { postgres, disk } = this.#machine;
    const { noise } = this.#world;
    if (postgres.process === 'none')
      return this.#then(token, 1, () => finish({ ok: true, lsn: BigInt(disk.tip.lsn - 1) }));
    const clean = postgres.process === 'running' && !postgres.inRecovery;
    postgres.stopping = true;
    const { incarnation } = postgres;
    this.#then(token, noise.between(10, 100) + Math.max(0, disk.stalledUntil - this.#world.now), () => {
      if (postgres.incarnation !== incarnation)
        return finish({ ok: false, reason: 'NotStoppedCleanly', message: 'Postgres ended by itself' });
      if (!clean) {
        postgres.end();
        return finish({ ok: true, lsn: BigInt(disk.tip.lsn - 1) });
      }
      const stoppedAt = postgres.checkpointAtShutdown();
      const began = this.#world.now;
      const end = () => {
        postgres.observe(); // Closes connections that have been silent for too long.
        const waited = this.#world.now - began;
        if (postgres.incarnation === incarnation && !postgres.allSent && waited < limit.stop)
          return this.#then(token, 20, end);
        if (postgres.incarnation === incarnation) postgres.end();
        finish({ ok: true, lsn: BigInt(stoppedAt) });
      };
      end();
    });
  }

  /** R5: no WAL receiver is left. */
  #receiverGone(
    token: number,
    began: number,
    asked: boolean,
    done: () => void,
    failed: (why: string) => void,
  ): void {
    const { postgres } = this.#machine;
    postgres.observe();
    if (postgres.receiver === undefined || this.#world.flaws.receiverStays) return done();
    const waited = this.#world.now - began;
    if (waited > limit.receiverGone) return failed('the WAL receiver did not end');
    const ask = !asked && waited >= limit.receiverPatience;
    if (ask) postgres.terminateReceiver();
    this.#then(token, 10, () => this.#receiverGone(token, began, asked || ask, done, failed));
  }

  #promote(
    operation: Extract<Operation, { do: 'promote' }>,
    token: number,
    done: (lsn: number) => void,
    failed: (message: string) => void,
  ): void {
    const machine = this.#machine;
    const { postgres, disk } = machine;
    const { noise } = this.#world;
    const then = (ms: number, what: () => void) =>
      this.#then(token, ms, () => (postgres.process === 'running' ? what() : failed('Postgres ended')));
    postgres.configure(operation.settings);
    then(noise.between(2, 12), () => {
      postgres.applied = { ...operation.settings, generation: this.#generation() };
      this.#receiverGone(
        token,
        this.#world.now,
        false,
        () => {
          const began = this.#world.now;
          const replay = () => {
            if (postgres.replayed.lsn < disk.tip.lsn && !this.#world.flaws.promotionSkipsReplay) {
              if (this.#world.now - began > limit.replay)
                return failed('what was received could not be replayed');
              return then(10, replay);
            }
            disk.promotedTerm = operation.term;
            then(noise.between(5, 80), () => {
              if (!postgres.inRecovery) return failed('it is no standby');
              postgres.promote(operation.timeline);
              const begin = Number(disk.tip.branch.ancestors.at(-1)?.end ?? 0n);
              then(noise.between(1, 20), () => {
                postgres.observe();
                const { timeline } = disk.tip.branch;
                if (timeline !== operation.timeline)
                  return failed(`the promotion led to timeline ${timeline}`);
                done(begin);
              });
            });
          };
          replay();
        },
        failed,
      );
    });
  }

  #copy(
    operation: Extract<Operation, { do: 'rewind' | 'clone' }>,
    token: number,
    done: () => void,
    failed: (message: string, needsClone?: boolean) => void,
  ): void {
    const machine = this.#machine;
    const { disk, postgres } = machine;
    const { noise, invariants } = this.#world;
    const source = this.#world.machine(operation.upstream.instance);
    const there = () =>
      source?.serves &&
      source.postgres.process === 'running' &&
      !source.postgres.stopping &&
      this.#world.network.connected(machine.number, source.number);
    this.#then(token, noise.between(20, 150), () => {
      if (source === undefined || !there()) return failed('the source cannot be reached');
      if (operation.do === 'rewind') {
        if (source.postgres.inRecovery) return failed('the source is in recovery');
        // pg_rewind goes by the control files' timelines.
        if (!source.postgres.checkpointed || source.disk.tip.branch.timeline === disk.tip.branch.timeline)
          return done();
        invariants.discarding(machine, source, undefined);
        disk.state = 'tainted';
      }
      const { incarnation } = source.postgres;
      this.#then(token, noise.between(100, 800), () => {
        if (!there() || source.postgres.incarnation !== incarnation)
          return failed('the source went away', operation.do === 'rewind');
        const copied =
          operation.do === 'clone' && source.postgres.inRecovery ? source.postgres.replayed : source.disk.tip;
        if (operation.do === 'clone') invariants.discarding(machine, source, copied);
        disk.tip = copied;
        disk.state = 'ready';
        if (operation.do === 'clone') {
          disk.dataId = this.#world.newDataId();
          disk.promotedTerm = 0;
          disk.bootstrap = false;
        }
        postgres.replayed = disk.tip;
        done();
      });
    });
  }

  #generation(): number {
    return this.#machine.agent?.view.config?.value.generation ?? 0;
  }

  #then(token: number, ms: number, what: () => void): void {
    this.#world.after(ms, () =>
      this.#machine.run(() => {
        if (this.#token === token) what();
      }),
    );
  }
}

function failure(message: string): OperationOutcome {
  return { ok: false, reason: 'Simulated', message };
}
