import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hasFaults, healCluster } from '../cluster/cluster.ts';
import { faultNamed } from '../faults/catalogue.ts';
import { type Arena, openCluster } from '../faults/cluster.ts';
import { drill } from '../faults/drill.ts';
import { Journal } from '../faults/journal.ts';

/*
 * The short matrix: one fault of each kind that no other test makes. `npm run faults` has them all (docs/faults.md).
 */
const matrix = [
  'agent-stop',
  'primary-with-clients',
  'etcd-slow',
  'node-freeze',
  'etcd-leader-kill',
  'disk-stall',
].map(faultNamed);

describe.runIf(hasFaults)('faults', () => {
  const journal = new Journal();
  let arena: Arena;

  beforeAll(async () => {
    expect(await journal.undo(), 'nothing is left of an earlier run').toEqual([]);
    await healCluster();
    arena = await openCluster(matrix.map(({ disks }) => disks));
    await arena.healthy();
  }, 400_000);

  afterAll(async () => {
    const problems = await journal.undo();
    await arena?.remove();
    expect(problems).toEqual([]);
  }, 300_000);

  for (const fault of matrix) {
    test(`${fault.name}: ${fault.description}`, async () => {
      const result = await drill(await arena.healthy(), fault, journal);
      const { gaps, fromFault = 0, acknowledged, indeterminate, target } = result;
      console.log(
        `    ${target}: write gap ${gaps.service} ms, multi-host ${gaps['multi-host']} ms; redundant after ` +
          `${(fromFault / 1000).toFixed(1)} s; ${acknowledged} acknowledged, ${indeterminate} indeterminate`,
      );
      expect(result.problems).toEqual([]);
    }, 400_000);
  }
});
