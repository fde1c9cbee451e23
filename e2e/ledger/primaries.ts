import type { History, Server } from './history.ts';

/*
 * One primary at a time, as clients saw it. A life is one postmaster that acknowledged writes on one timeline; lives
 * have an order, by timeline and then by start. Once a later life has acknowledged something, no earlier one may
 * acknowledge a transaction that begins after that. (One that began before may still be: it is in the history of
 * the later life.)
 */

/** A transaction that a primary acknowledged. */
export interface Acknowledgement extends Server {
  readonly what: string;
  readonly invokedAt: number;
  readonly completedAt: number;
}

/** One record of `history/` in etcd, as far as it is judged. */
export interface TermRecord {
  readonly term: number;
  readonly timeline: number;
  readonly instance: string;
  /** When the leader wrote it, before it opened for traffic, milliseconds since the epoch. */
  readonly at: number;
}

/** Milliseconds that the clock of the workload and that of an agent may differ, on one machine. */
const clockError = 20;

/** Everything acknowledged of which the server is known. */
export function acknowledgements({
  attempts,
  transfers,
}: Pick<History, 'attempts' | 'transfers'>): Acknowledgement[] {
  const found: Acknowledgement[] = [];
  const add = (what: string, each: History['attempts'][number] | History['transfers'][number]) => {
    const { outcome, timeline, server, started = 0, invokedAt, completedAt } = each;
    if (outcome !== 'acknowledged' || timeline === undefined) return;
    found.push({ what, timeline, server: server ?? '', started, invokedAt, completedAt });
  };
  for (const each of attempts) add(`${each.worker}/${each.seq}`, each);
  for (const each of transfers) add(`transfer ${each.client}/${each.seq}`, each);
  return found;
}

/** Whether one life is earlier than another. */
export const isEarlier = (one: Server, other: Server): boolean =>
  one.timeline === other.timeline ? one.started < other.started : one.timeline < other.timeline;

/** Those that an earlier life acknowledged although they began after a later one had acknowledged something. */
export function afterReplacement(acknowledged: readonly Acknowledgement[]): Acknowledgement[] {
  const byEnd = acknowledged.toSorted((a, b) => a.completedAt - b.completedAt);
  const wrong: Acknowledgement[] = [];
  let ended = 0;
  let newest: Server | undefined;
  for (const each of acknowledged.toSorted((a, b) => a.invokedAt - b.invokedAt)) {
    for (
      let next = byEnd[ended];
      next !== undefined && next.completedAt < each.invokedAt;
      next = byEnd[ended]
    ) {
      if (newest === undefined || isEarlier(newest, next)) newest = next;
      ended += 1;
    }
    if (newest !== undefined && isEarlier(each, newest)) wrong.push(each);
  }
  return wrong;
}

/** Addresses that acknowledged writes on one timeline at once: each began something after the other had ended something. */
export function sharedTimelines(acknowledged: readonly Acknowledgement[]): string[] {
  const groups = Map.groupBy(acknowledged, ({ timeline }) => timeline);
  return [...groups].flatMap(([timeline, mine]) => {
    const lives = [...Map.groupBy(mine, ({ server, started }) => `${server} started ${started}`)].map(
      ([name, acks]) => ({
        name,
        from: Math.min(...acks.map(({ completedAt }) => completedAt)),
        to: Math.max(...acks.map(({ invokedAt }) => invokedAt)),
      }),
    );
    return lives.flatMap((one, index) =>
      lives
        .slice(index + 1)
        .filter((other) => one.from < other.to && other.from < one.to)
        .map((other) => `timeline ${timeline}: ${one.name}, ${other.name}`),
    );
  });
}

/**
 * Compares acknowledgements with the terms that etcd knows, on machines that share a clock.
 * @param instanceOf the instance at an address; undefined: not known, and then not judged
 * @returns sentences: who acknowledged on a timeline of somebody else's, or of nobody's, and transactions that began
 *   after a later term had begun, but on an older timeline.
 */
export function againstTerms(
  acknowledged: readonly Acknowledgement[],
  terms: readonly TermRecord[],
  instanceOf: (address: string) => string | undefined,
): string[] {
  const problems = new Map<string, Acknowledgement[]>();
  const complain = (problem: string, each: Acknowledgement) =>
    problems.set(problem, [...(problems.get(problem) ?? []), each]);
  for (const each of acknowledged) {
    const owners = terms.filter(({ timeline }) => timeline === each.timeline);
    const instance = instanceOf(each.server);
    if (owners.length === 0) complain(`on timeline ${each.timeline}, of which etcd knows no term`, each);
    else if (instance !== undefined && !owners.some((owner) => owner.instance === instance)) {
      const names = owners.map((owner) => owner.instance).join(', ');
      complain(`by ${instance} on timeline ${each.timeline}, which is that of ${names}`, each);
    }
    const later = terms.find(
      ({ timeline, at }) => timeline > each.timeline && at + clockError < each.invokedAt,
    );
    if (later !== undefined) {
      complain(`on timeline ${each.timeline} after term ${later.term} had begun on ${later.timeline}`, each);
    }
  }
  return [...problems].map(
    ([problem, all]) =>
      `${all.length} transactions were acknowledged ${problem}: ${some(all.map(({ what }) => what))}`,
  );
}

/** The first few of many. */
export const some = (names: readonly string[]): string =>
  `${names.slice(0, 5).join(', ')}${names.length > 5 ? ', ...' : ''}`;
