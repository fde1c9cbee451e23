import { afterAll, beforeAll, beforeEach, describe, expect } from 'vitest';
import {
  hasFaults,
  healCluster,
  killNode,
  kubectl,
  startApiServer,
  startNode,
  stopApiServer,
  waitForNode,
} from '../cluster/cluster.ts';
import {
  drain,
  killPod,
  killPostgres,
  now,
  startOperator,
  stopAgent,
  stopOperator,
  uncordon,
} from '../faults.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { expectShortGaps, healthyCluster, scenario, underLoad } from '../scenario.ts';

/*
 * One cluster with one synchronous and two asynchronous standbys, four instances on three nodes, goes through all
 * faults one after the other. After each: one primary, every standby streams, no acknowledged row is lost.
 */

let shop: PostgresCluster;

/** Milliseconds without an acknowledgement, by fault. See {@link expectShortGaps}. */
const longest = {
  podDeleted: 12_000,
  postgresKilled: 7_500,
  agentStopped: 8_000,
  switchover: 9_000,
  nodeOfPrimary: 9_000,
  nodeOfStandby: 6_000,
  apiServerStopped: 6_000,
  drained: 12_000,
};

beforeAll(async () => {
  if (hasFaults) await healCluster();
  shop = await healthyCluster('failover', {
    postgres: { parameters: { shared_buffers: '64MB', max_connections: 50 } },
    replicas: { synchronous: 1, asynchronous: 2 },
    storage: { size: '1Gi' },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
  });
}, 300_000);

afterAll(async () => {
  if (hasFaults) await healCluster();
  await shop?.remove();
}, 180_000);

beforeEach(async () => {
  if (hasFaults) await healCluster();
  await shop.waitHealthy(60_000);
}, 150_000);

/** Waits until somebody else leads and writes are acknowledged. */
async function takenOver(ledger: Ledger, old: string): Promise<string> {
  const next = await shop.waitForOtherPrimary({ instance: old }, 40_000);
  await ledger.acknowledges(now(), 30_000);
  return next;
}

describe('failover', () => {
  scenario(
    'the pod of the primary is deleted without grace',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const report = await underLoad(shop, async (ledger) => {
        const at = await killPod(shop, primary);
        await takenOver(ledger, primary);
        return at;
      });
      expectShortGaps(report, longest.podDeleted);
    },
  );

  scenario(
    'kill -9 of postgres',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const report = await underLoad(shop, async (ledger) => {
        const at = await killPostgres(shop, primary);
        await takenOver(ledger, primary);
        return at;
      });
      expectShortGaps(report, longest.postgresKilled);
    },
  );

  scenario(
    'the agent of the primary is stopped, and its Postgres goes on',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const report = await underLoad(shop, async (ledger) => {
        const at = await stopAgent(shop, primary);
        await takenOver(ledger, primary);
        return at;
      });
      expectShortGaps(report, longest.agentStopped);
    },
  );

  scenario(
    'switchover to the instance that is asked for',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const standby = (await shop.pods())
        .map(({ instance }) => instance)
        .findLast((each) => each !== primary);
      const report = await underLoad(shop, async (ledger) => {
        const at = now();
        await shop.requestSwitchover(standby);
        expect(await takenOver(ledger, primary)).toBe(standby);
        return at;
      });
      expectShortGaps(report, longest.switchover);
    },
  );

  scenario(
    'the primary dies while the operator is stopped',
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      try {
        await stopOperator();
        const report = await underLoad(shop, async (ledger) => {
          const at = await killPod(shop, primary);
          await takenOver(ledger, primary);
          await startOperator();
          return at;
        });
        expectShortGaps(report, longest.podDeleted);
      } finally {
        await startOperator();
      }
    },
  );

  describe.runIf(hasFaults)('with faults of nodes', () => {
    scenario(
      'the primary dies while the API server is stopped',
      () => shop,
      async () => {
        const primary = await shop.knownPrimary();
        const { node } = await shop.podOf(primary);
        const report = await underLoad(shop, async (ledger) => {
          await stopApiServer();
          try {
            // The whole node: a container alone would be started again by its kubelet, and lead again.
            const at = now();
            await killNode(node);
            // The -rw Service cannot follow without the API; clients that know all hosts do.
            await ledger.acknowledgesOn('multi-host', now() + 500, 40_000);
            return at;
          } finally {
            await startApiServer();
            await startNode(node);
            await waitForNode(node);
          }
        });
        expectShortGaps(report, longest.apiServerStopped, ['multi-host']);
        expect(await shop.knownPrimary()).not.toBe(primary);
      },
    );

    scenario(
      'the node of the synchronous standby is killed',
      () => shop,
      async () => {
        const primary = await shop.knownPrimary();
        const [standby = ''] = await shop.synchronousStandbys();
        const { node } = await shop.podOf(standby);
        expect(node, 'the synchronous standby is on another node').not.toBe((await shop.podOf(primary)).node);
        const report = await underLoad(shop, async (ledger) => {
          const at = now();
          await killNode(node);
          await ledger.acknowledges(now() + 500, 40_000);
          expect(await shop.primary()).toBe(primary);
          await startNode(node);
          await waitForNode(node);
          return at;
        });
        expectShortGaps(report, longest.nodeOfStandby);
      },
    );

    scenario(
      'the node of the primary is killed, and comes back',
      () => shop,
      async () => {
        const primary = await shop.knownPrimary();
        await killNodeOf(primary);
      },
    );

    scenario(
      'the node of the primary and one more instance is killed',
      () => shop,
      async () => {
        const pods = await shop.pods();
        const crowded = pods.filter(({ node }) => pods.filter((other) => other.node === node).length > 1);
        const [first = ''] = crowded.map(({ instance }) => instance);
        const primary = await shop.knownPrimary();
        if (!crowded.some(({ instance }) => instance === primary)) {
          await shop.requestSwitchover(first);
          await shop.waitForOtherPrimary({ instance: primary }, 60_000);
          await shop.waitHealthy(60_000);
        }
        await killNodeOf(await shop.knownPrimary());
      },
    );

    async function killNodeOf(primary: string): Promise<void> {
      const { node } = await shop.podOf(primary);
      const report = await underLoad(shop, async (ledger) => {
        const at = now();
        await killNode(node);
        await takenOver(ledger, primary);
        await startNode(node);
        await waitForNode(node);
        return at;
      });
      expectShortGaps(report, longest.nodeOfPrimary);
    }
  });

  scenario(
    "the primary's node is drained",
    () => shop,
    async () => {
      const primary = await shop.knownPrimary();
      const { node } = await shop.podOf(primary);
      try {
        const report = await underLoad(shop, async (ledger) => {
          const at = await drain(node);
          await takenOver(ledger, primary);
          await uncordon(node);
          return at;
        });
        expectShortGaps(report, longest.drained);
      } finally {
        await uncordon(node);
      }
    },
  );

  describe.runIf(hasFaults)('with the loss of a machine', () => {
    scenario(
      'a node that is lost for good: its instances are made anew on the others',
      () => shop,
      async () => {
        const primary = await shop.knownPrimary();
        const { node } = await shop.podOf(primary);
        const lost = (await shop.pods()).filter((pod) => pod.node === node);
        try {
          const report = await underLoad(
            shop,
            async (ledger) => {
              const at = now();
              await killNode(node);
              await takenOver(ledger, primary);
              // As docs/operations.md says.
              await kubectl(['delete', 'node', node]);
              const claims = lost.map(({ instance }) => instance);
              await kubectl(['-n', shop.namespace, 'delete', 'pvc', ...claims, '--timeout=180s']);
              return at;
            },
            { healthyWithin: 180_000 },
          );
          expectShortGaps(report, longest.nodeOfPrimary);
          expect((await shop.pods()).map((pod) => pod.node)).not.toContain(node);
        } finally {
          await startNode(node);
          await waitForNode(node);
        }
        await shop.waitHealthy(60_000);
      },
      500_000,
    );
  });
});
