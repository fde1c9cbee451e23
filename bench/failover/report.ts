import { connectTimeout, statementTimeout } from '../../e2e/ledger/connection.ts';
import type { Route } from '../../e2e/ledger/history.ts';
import { markdown, percentile, summary, thousands } from '../results.ts';
import { phaseNames } from './phases.ts';
import { type Row, rows } from './rows.ts';
import { newestVersions, type Run, type Subject } from './runs.ts';

/** The phases that the log of the peer tells of. */
const peerPhases = ['detect', 'promote', 'first ack, all hosts', 'first ack, direct'] as const;

/** Writers of each route, and milliseconds from the start of one transaction to that of the next. */
export const load = { workersPerRoute: 1, interval: 25 } as const;

/** The tables of docs/benchmarks.md, from the runs of the version measured last of each subject. */
export function reportOf(all: readonly Run[], machine: string): string {
  const runs = newestVersions(all);
  const versions = [...new Map(runs.map((run) => [run.version, run])).values()];
  const of = (row: Row, subject: Subject) =>
    runs.filter((run) => run.row === row.id && run.subject === subject);
  const measured = (...wanted: Subject[]) =>
    rows.filter((row) => wanted.some((subject) => of(row, subject).length > 0));
  const peers: Subject[] = ['patroni-minimum', 'patroni-default'];

  const section = (heading: readonly string[], columns: readonly string[], lines: readonly string[][]) =>
    lines.length === 0 ? [] : [...heading, markdown(columns, lines)];
  return [
    `Milliseconds, median / maximum, on ${machine}. Three writers at once, ${load.workersPerRoute} on each route, a ` +
      `transaction every ${load.interval} ms; statement timeout ${statementTimeout} ms, connect timeout ` +
      `${connectTimeout} ms per host, hosts shuffled.`,
    `Measured: ${versions.map(({ version }) => version).join('; ')}.`,
    ...section(
      ['### Write gaps'],
      ['', 'Service', 'all hosts', 'direct', 'taken over', 'gap after the undoing', 'redundant again'],
      measured('koschei').map((row) => {
        const found = of(row, 'koschei');
        return [
          row.title,
          gaps(found, 'service'),
          gaps(found, 'multi-host'),
          gaps(found, 'direct'),
          `${found.filter((run) => run.moved).length} of ${found.length}`,
          summary(found.flatMap((run) => run.gapsAfter['multi-host'] ?? [])),
          summary(found.map((run) => run.redundantAfter)),
        ];
      }),
    ),
    ...section(
      ['### Where the time goes'],
      ['', ...phaseNames],
      measured('koschei').map((row) => [
        row.title,
        ...phaseNames.map((phase) => summary(of(row, 'koschei').flatMap((run) => run.phases[phase] ?? []))),
      ]),
    ),
    ...section(
      ['The same of Patroni, as far as its log tells (minimum, then default):'],
      ['', ...peers.flatMap(() => peerPhases)],
      measured(...peers).map((row) => [
        row.title,
        ...peers.flatMap((peer) =>
          peerPhases.map((phase) => summary(of(row, peer).flatMap((run) => run.phases[phase] ?? []))),
        ),
      ]),
    ),
    ...section(
      ['### With the API server and the operator stopped'],
      ['', 'all hosts', 'direct', 'runs'],
      measured('koschei-without-api').map((row) => {
        const found = of(row, 'koschei-without-api');
        return [row.title, gaps(found, 'multi-host'), gaps(found, 'direct'), String(found.length)];
      }),
    ),
    ...section(
      [
        '### Beside Patroni',
        'All hosts in the connection string. Ratio: the median of Patroni divided by that of Koschei.',
      ],
      ['', 'Koschei', 'Patroni, minimum', 'ratio', 'Patroni, default', 'ratio', 'runs'],
      measured(...peers).map((row) => {
        const ours = of(row, 'koschei');
        return [
          row.title,
          gaps(ours, 'multi-host'),
          ...peers.flatMap((peer) => [
            gaps(of(row, peer), 'multi-host'),
            ratio(of(row, peer), ours, 'multi-host'),
          ]),
          [ours, ...peers.map((peer) => of(row, peer))].map(({ length }) => length).join(' / '),
        ];
      }),
    ),
    ...section(
      ['Patroni on the other routes (minimum, then default):'],
      ['', 'HAProxy', 'direct', 'HAProxy', 'direct', 'redundant again, minimum', 'default'],
      measured(...peers).map((row) => [
        row.title,
        ...peers.flatMap((peer) => [gaps(of(row, peer), 'service'), gaps(of(row, peer), 'direct')]),
        ...peers.map((peer) => summary(of(row, peer).map((run) => run.redundantAfter))),
      ]),
    ),
    ...losses(runs),
  ].join('\n\n');
}

/** `median / maximum`; with a `>` where a run ended without an acknowledgement before the fault was undone. */
function gaps(runs: readonly Run[], route: Route): string {
  const text = summary(runs.flatMap((run) => run.gaps[route] ?? []));
  const open = runs.filter((run) => run.unrecovered.includes(route)).length;
  return open === 0 || text === '' ? text : `> ${text} (${open} of ${runs.length} until it was undone)`;
}

function ratio(peer: readonly Run[], ours: readonly Run[], route: Route): string {
  const median = (runs: readonly Run[]) =>
    percentile(
      runs.flatMap((run) => run.gaps[route] ?? []),
      50,
    );
  const [theirs, mine] = [median(peer), median(ours)];
  if (theirs === undefined || mine === undefined || mine === 0) return '';
  const open = peer.some((run) => run.unrecovered.includes(route)) ? '> ' : '';
  return `${open}${(theirs / mine).toFixed(1)}`;
}

function losses(runs: readonly Run[]): string[] {
  const of = (subject: 'koschei' | 'patroni') => {
    const found = runs.filter((run) => run.subject.startsWith(subject));
    const sum = (value: (run: Run) => number) => found.reduce((total, run) => total + value(run), 0);
    const name = subject === 'koschei' ? 'Koschei' : 'Patroni';
    return found.length === 0
      ? []
      : [
          `${name}: ${thousands(sum((run) => run.acknowledged))} acknowledged transactions in ${found.length} runs, ` +
            `${sum((run) => run.lost)} lost, ${found.filter((run) => run.faults.length > 0).length} runs in which the ` +
            'checker found anything wrong.',
        ];
  };
  return [...of('koschei'), ...of('patroni')];
}
