import type { Command, Facts, HaState, Input, LeaderWrite, Operation } from '../../src/agent/ha/index.ts';
import type { Profile } from '../faults.ts';
import type { InvariantName } from '../invariants.ts';
import type { Flaws, Rules } from '../rules.ts';

/**
 * One rule broken on purpose. The shipped decisions are used as they are; a mutant changes what they are told or what
 * becomes of their commands, or it is a flaw in what the simulator models itself.
 */
export interface Mutant {
  readonly name: string;
  /** What is broken, and where the rule comes from. */
  readonly broken: string;
  /** Any of these catches it. */
  readonly caughtBy: readonly InvariantName[];
  /** Schedules in which it matters. */
  readonly profile: Profile;
  readonly rules?: (shipped: Rules) => Rules;
  readonly flaws?: Flaws;
}

/** The decisions are told something else than what is so. */
export function told(change: (facts: Facts, state: HaState) => Facts): (shipped: Rules) => Rules {
  return (shipped) => ({
    ...shipped,
    decide: (state, input, facts) => shipped.decide(state, input, change(facts, state)),
  });
}

/** Other commands are carried out than those decided on. */
export function commanded(
  change: (command: Command, state: HaState, facts: Facts) => Command | undefined,
): (shipped: Rules) => Rules {
  return (shipped) => ({
    ...shipped,
    decide: (state, input, facts) => {
      const decision = shipped.decide(state, input, facts);
      const commands = decision.commands.map((c) => change(c, decision.state, facts));
      return { state: decision.state, commands: commands.filter((c) => c !== undefined) };
    },
  });
}

/** Writes of the leader key are changed before they are sent. */
export function written(
  change: (write: LeaderWrite, facts: Facts) => LeaderWrite,
): (shipped: Rules) => Rules {
  return commanded((command, _state, facts) =>
    command.kind === 'transact' ? { ...command, write: change(command.write, facts) } : command,
  );
}

/** Operations on Postgres are changed before they are begun. */
export function operated(
  change: (operation: Operation, state: HaState, facts: Facts) => Operation | undefined,
): (shipped: Rules) => Rules {
  return commanded((command, state, facts) => {
    if (command.kind !== 'operate') return command;
    const operation = change(command.operation, state, facts);
    return operation === undefined ? undefined : { ...command, operation };
  });
}

/** Something else is remembered. */
export function remembered(
  change: (state: HaState, before: HaState, facts: Facts, input: Input) => HaState,
): (shipped: Rules) => Rules {
  return (shipped) => ({
    ...shipped,
    decide: (state, input, facts) => {
      const decision = shipped.decide(state, input, facts);
      return { ...decision, state: change(decision.state, state, facts, input) };
    },
  });
}

/** Something else has come back. */
export function answered(
  change: (input: Input, state: HaState, facts: Facts) => Input,
): (shipped: Rules) => Rules {
  return (shipped) => ({
    ...shipped,
    decide: (state, input, facts) => shipped.decide(state, change(input, state, facts), facts),
  });
}

/** Such a command is decided on, but then neither carried out nor waited for. */
export function withheld(which: (command: Command) => boolean): (shipped: Rules) => Rules {
  return (shipped) => ({
    ...shipped,
    decide: (state, input, facts) => {
      const decision = shipped.decide(state, input, facts);
      const dropped = decision.commands.filter(which);
      if (dropped.length === 0) return decision;
      const { transaction, operation, ...rest } = decision.state;
      const waits = (kind: Command['kind']) => !dropped.some((c) => c.kind === kind);
      return {
        state: {
          ...rest,
          ...(transaction !== undefined && waits('transact') ? { transaction } : {}),
          ...(operation !== undefined && waits('operate') ? { operation } : {}),
        },
        commands: decision.commands.filter((c) => !which(c)),
      };
    },
  });
}
