import { z } from 'zod';
import { routes } from '../../e2e/ledger/history.ts';
import type { Row } from './rows.ts';

/** Who is measured. Patroni: with the shortest times that its documentation allows, and with its defaults. */
export const subjects = ['koschei', 'koschei-without-api', 'patroni-minimum', 'patroni-default'] as const;
export type Subject = (typeof subjects)[number];

export const isPeer = (subject: Subject): boolean => subject.startsWith('patroni');

const byRoute = z.partialRecord(z.enum(routes), z.number());

/** One run, as it is kept. Times in milliseconds. */
export const Run = z.object({
  subject: z.enum(subjects),
  /** Of the subject's programs: runs of another version do not count. */
  version: z.string(),
  row: z.string(),
  /** When the fault was there, ISO 8601. */
  at: z.string(),
  /** The longest time without an acknowledgement that touches the fault, by route. */
  gaps: byRoute,
  /** The same after the fault was undone. */
  gapsAfter: byRoute,
  /** Routes on which nothing was acknowledged before the fault was undone, so that their gap says little. */
  unrecovered: z.array(z.enum(routes)),
  phases: z.record(z.string(), z.number()),
  /** Whether the leader of etcd was on the node that was hit. */
  etcdLeaderHit: z.boolean(),
  /** Whether another instance took the writes over. */
  moved: z.boolean(),
  /** From the fault, or from its undoing if it lasts, until everything was redundant again. */
  redundantAfter: z.number(),
  acknowledged: z.int(),
  lost: z.int(),
  /** What else the checker found, as sentences. */
  faults: z.array(z.string()),
});
export type Run = z.infer<typeof Run>;

/** Runs to be made, in order. */
export interface Block {
  readonly row: Row;
  readonly subject: Subject;
  readonly runs: number;
}

export interface Plan {
  readonly rows: readonly Row[];
  readonly subjects: readonly Subject[];
  /** Runs wanted of Koschei for each row; of the peer at most as many, and at most what the row says. */
  readonly runs: number;
}

/** How many runs of a row are wanted of a subject. */
export function wantedRuns({ runs }: Pick<Plan, 'runs'>, row: Row, subject: Subject): number {
  if (subject === 'koschei-without-api' && !row.withoutApi) return 0;
  return isPeer(subject) ? Math.min(runs, row.peerRuns) : runs;
}

/**
 * What is left to be measured: row by row, one subject after the other, so that figures of one row stem from about the
 * same time.
 * @param versions of the subjects' programs; runs of other versions do not count
 */
export function blocksLeft(
  plan: Plan,
  done: readonly Run[],
  versions: Readonly<Partial<Record<Subject, string>>>,
): Block[] {
  return plan.rows.flatMap((row) =>
    plan.subjects.flatMap((subject) => {
      const there = done.filter(
        (run) => run.row === row.id && run.subject === subject && run.version === versions[subject],
      ).length;
      const runs = wantedRuns(plan, row, subject) - there;
      return runs > 0 ? [{ row, subject, runs }] : [];
    }),
  );
}

/** Of each subject, the runs of the version that was measured last. */
export function newestVersions(runs: readonly Run[]): Run[] {
  const versions = new Map(runs.map((run) => [run.subject, run.version]));
  return runs.filter((run) => versions.get(run.subject) === run.version);
}
