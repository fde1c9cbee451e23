import { z } from 'zod';
import type { Route } from '../../e2e/ledger/history.ts';

/** A line of an agent's log, as far as it is used here. */
const Line = z.looseObject({
  time: z.string().optional(),
  operation: z.string().optional(),
  because: z.string().optional(),
  msg: z.string().optional(),
});

export interface Entry extends z.infer<typeof Line> {
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** The entries of a log that are not older than `since` (milliseconds since the epoch); other lines are left out. */
export function entriesOf(text: string, since: number): Entry[] {
  return text.split('\n').flatMap((line) => {
    if (!line.startsWith('{')) return [];
    const entry = Line.parse(JSON.parse(line));
    const at = entry.time === undefined ? Number.NaN : Date.parse(entry.time);
    return at >= since ? [{ ...entry, at }] : [];
  });
}

/** In the order in which they follow each other; the last ones count from when a write could be acknowledged. */
export const phaseNames = [
  'detect',
  'stop receiver',
  'take',
  'promote',
  'sync set usable',
  'route',
  'first ack, Service',
  'first ack, all hosts',
  'first ack, direct',
] as const;
export type Phase = (typeof phaseNames)[number];
export type Phases = Partial<Record<Phase, number>>;

/** What the writers saw: when each route was first acknowledged again, milliseconds since the epoch. */
export type FirstAcks = Readonly<Partial<Record<Route, number>>>;

/**
 * The phases of a takeover in milliseconds, from the new primary's log; each counts from the end of the one before,
 * `route` from the promotion. Absent where there was none.
 */
export function takeoverPhases(log: readonly Entry[], faultAt: number, acks: FirstAcks): Phases {
  const began = (operation: string) =>
    log.find((e) => e.operation === operation && e.because !== undefined)?.at;
  const promoted = ended(log, 'promote');
  const usable = setUsable(log);
  const routed = log.find((e) => e.msg === 'the -rw Service leads here')?.at;
  return {
    ...consecutive(faultAt, [
      ['detect', began('stop-receiver')],
      ['stop receiver', ended(log, 'stop-receiver')],
      ['take', began('promote')],
      ['promote', promoted],
      ['sync set usable', usable],
    ]),
    ...(routed === undefined || promoted === undefined ? {} : { route: routed - promoted }),
    ...firstAcks(acks, usable, routed),
  };
}

/** The phases of the replacement of a synchronous standby, from the primary's log. */
export function replacementPhases(log: readonly Entry[], faultAt: number, acks: FirstAcks): Phases {
  const usable = setUsable(log);
  return {
    ...consecutive(faultAt, [
      ['detect', log.find((e) => e.because?.endsWith('becomes synchronous'))?.at],
      ['sync set usable', usable],
    ]),
    ...firstAcks(acks, usable, usable),
  };
}

/**
 * The phases of a takeover by Patroni, from the log of the new leader, which holds that of its Postgres as well: until it
 * has the lock (`detect`), and until it is promoted. Then any standby may confirm commits.
 */
export function patroniPhases(log: string, faultAt: number, acks: FirstAcks): Phases {
  const lines = log.split('\n').flatMap((line) => {
    const [, date, time, fraction] = /^(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)[.,](\d{3})/.exec(line) ?? [];
    const at = date === undefined ? Number.NaN : Date.parse(`${date}T${time}.${fraction}Z`);
    return at >= faultAt ? [{ at, line }] : [];
  });
  const first = (words: RegExp, after: number | undefined) =>
    after === undefined ? undefined : lines.find(({ at, line }) => at >= after && words.test(line))?.at;
  const took = first(/promoted self to leader/, faultAt);
  const promoted = first(/LOG: +database system is ready to accept connections/, took);
  return {
    ...consecutive(faultAt, [
      ['detect', took],
      ['promote', promoted],
    ]),
    ...firstAcks(acks, promoted, undefined),
  };
}

/** When the first operation of a kind ended, not before `after`. */
const ended = (log: readonly Entry[], operation: string, after = 0) =>
  log.find((e) => e.operation === operation && e.because === undefined && e.at >= after)?.at;

/** When Postgres required the new synchronous standbys and nobody else, so that commits were acknowledged again. */
function setUsable(log: readonly Entry[]): number | undefined {
  const settled = log.find((e) => e.because === 'only names in etcd need to confirm')?.at;
  return settled === undefined ? undefined : ended(log, 'configure', settled);
}

function consecutive(from: number, marks: readonly [Phase, number | undefined][]): Phases {
  const found: Phases = {};
  let last = from;
  for (const [name, at] of marks) {
    if (at === undefined) continue;
    found[name] = at - last;
    last = at;
  }
  return found;
}

/** From when a write could be acknowledged to when the first one was: connecting anew is in it. */
function firstAcks(acks: FirstAcks, usable: number | undefined, routed: number | undefined): Phases {
  if (usable === undefined) return {};
  const { service, 'multi-host': allHosts, direct } = acks;
  return {
    ...(service === undefined || routed === undefined
      ? {}
      : { 'first ack, Service': service - Math.max(usable, routed) }),
    ...(allHosts === undefined ? {} : { 'first ack, all hosts': allHosts - usable }),
    ...(direct === undefined ? {} : { 'first ack, direct': direct - usable }),
  };
}
