import { parseArgs } from 'node:util';
import { z } from 'zod';
import { rowOf, rows } from './rows.ts';
import type { Plan, Subject } from './runs.ts';

export const help = `Usage: npm run bench:failover [-- options]

Measures the write gap of each fault, of Koschei and of a peer, one after the other on the same machine. Every run is
appended to .state/bench/failover.jsonl at once; what is there already is not measured again, so a measurement that was
interrupted goes on with the same command. Prints the tables of docs/benchmarks.md at the end.

  --rows a,b           these rows only: ${rows
    .filter(({ etcdLeader }) => etcdLeader !== 'here')
    .map(({ id }) => id)
    .join(', ')};
                       <row>-etcd of a node fault: with the leader of etcd on that node (all of Koschei's node faults
                       without it: with the leader elsewhere)
  --runs N             runs of each row (default 20); of the peer at most 5, of freezes and partitions 3
  --peer X             patroni (default): measure Patroni as well; none: do not; only: nothing else
  --no-kubernetes-api  only the runs of Koschei with the API server and the operator stopped (otherwise they follow the
                       others, for the rows for which there are any)
  --minutes M          begin no run later than M minutes after the start
  --report             measure nothing, print the tables
`;

export interface Options extends Plan {
  readonly help: boolean;
  readonly report: boolean;
  /** Minutes after which no run is begun; undefined: no end. */
  readonly minutes: number | undefined;
}

const Values = z.object({
  rows: z.string().optional(),
  runs: z.coerce.number().int().min(1).max(1000).default(20),
  peer: z.enum(['patroni', 'none', 'only']).default('patroni'),
  'no-kubernetes-api': z.boolean().default(false),
  minutes: z.coerce.number().positive().optional(),
  report: z.boolean().default(false),
  help: z.boolean().default(false),
});

/** @throws {Error} naming what was expected. */
export function parseOptions(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      rows: { type: 'string' },
      runs: { type: 'string' },
      peer: { type: 'string' },
      'no-kubernetes-api': { type: 'boolean' },
      minutes: { type: 'string' },
      report: { type: 'boolean' },
      help: { type: 'boolean', short: 'h' },
    },
  });
  const parsed = Values.safeParse(values);
  if (!parsed.success) throw new Error(z.prettifyError(parsed.error));
  const { rows: chosen, runs, peer, minutes, report, help: helpWanted } = parsed.data;
  const koschei: Subject[] = parsed.data['no-kubernetes-api']
    ? ['koschei-without-api']
    : ['koschei', 'koschei-without-api'];
  const patroni: Subject[] = ['patroni-minimum', 'patroni-default'];
  const withPeer = peer !== 'none' && !parsed.data['no-kubernetes-api'];
  return {
    rows: chosen === undefined ? rows : chosen.split(',').map((id) => rowOf(id.trim())),
    subjects: peer === 'only' ? patroni : [...koschei, ...(withPeer ? patroni : [])],
    runs,
    minutes,
    report,
    help: helpWanted,
  };
}
