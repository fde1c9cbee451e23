import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect } from 'vitest';
import { instanceName, podName } from '../../src/api/names.ts';
import { historyValue, parseJson } from '../../src/dcs/index.ts';
import { resources } from '../../src/kube/index.ts';
import { hasFaults, healCluster, killNode, kubectl, startNode, waitForNode } from '../cluster/cluster.ts';
import { stateInEtcd } from '../etcd.ts';
import { now, uncordon } from '../faults.ts';
import { eventually, kubernetes } from '../kubernetes.ts';
import type { Ledger } from '../ledger/ledger.ts';
import type { PostgresCluster } from '../postgres-cluster.ts';
import { healthyCluster, scenario, underLoad } from '../scenario.ts';

/* What people decide about failovers: none for a while, and one that may lose commits. */

let shop: PostgresCluster;

beforeAll(async () => {
  if (hasFaults) await healCluster();
  shop = await healthyCluster('decisions', {
    postgres: { parameters: { shared_buffers: '32MB', max_connections: 50 } },
    replicas: { synchronous: 1, asynchronous: 1 },
    storage: { size: '512Mi' },
    resources: { requests: { cpu: '50m', memory: '128Mi' } },
  });
}, 300_000);

afterAll(async () => {
  if (hasFaults) await healCluster();
  for (const node of cordoned) await uncordon(node);
  await shop?.remove();
}, 180_000);

const cordoned = new Set<string>();

/** Takes an instance away until its node is uncordoned: its volume is there. */
async function takeAway(instance: string): Promise<void> {
  const { node } = await shop.podOf(instance);
  await kubectl(['cordon', node]);
  cordoned.add(node);
  await kubectl(['-n', shop.namespace, 'delete', 'pod', podName(instance), '--timeout=120s']);
}

async function bringBack(): Promise<void> {
  for (const node of cordoned) await uncordon(node);
  cordoned.clear();
}

/** Waits for an Event about the cluster, and returns its message. */
async function eventSays(reason: string, says: RegExp, deadline: number): Promise<string> {
  const { client } = await kubernetes();
  return eventually(`an Event ${reason} that says ${says}`, deadline, async () => {
    const { items } = await client.list(resources.events, { namespace: shop.namespace });
    return items.find((each) => each.reason === reason && says.test(each.message ?? ''))?.message;
  });
}

describe('decisions of people', () => {
  describe.runIf(hasFaults)('with faults of nodes', () => {
    scenario(
      'in a pause the lost primary is not replaced; when the pause is ended, it is',
      () => shop,
      async () => {
        await shop.waitHealthy(60_000);
        const primary = await shop.knownPrimary();
        const { node } = await shop.podOf(primary);
        const { term } = await shop.status();
        const until = new Date(Date.now() + 3_600_000).toISOString();
        await shop.patch({ paused: { until, reason: 'a test' } });
        await shop.waitForCondition('Paused', { status: 'True', says: /a test/ }, 20_000);
        await eventSays('FailoverPaused', /paused until/, 20_000);
        await eventually('the phase Paused', 20_000, async () => (await shop.status()).phase === 'Paused');
        await underLoad(shop, async (ledger: Ledger) => {
          const at = now();
          await killNode(node);
          try {
            // Without the pause another one leads after 2 to 4 s.
            await sleep(15_000);
            const status = await shop.status();
            expect(status).toMatchObject({ term, primary });
            await shop.waitForCondition('Ready', { status: 'False', says: /is paused until/ }, 20_000);
            await shop.patch({ paused: null });
            await shop.waitForOtherPrimary({ instance: primary }, 30_000);
            await ledger.acknowledges(now(), 30_000);
          } finally {
            await startNode(node);
            await waitForNode(node);
          }
          return at;
        });
        await shop.waitForCondition('Paused', { status: 'False' }, 20_000);
      },
      300_000,
    );
  });

  scenario(
    'with the primary and the synchronous standby lost, a person has another one take over, and the loss is recorded',
    () => shop,
    async () => {
      await shop.waitHealthy(120_000);
      const primary = await shop.knownPrimary();
      const [sync = ''] = await shop.synchronousStandbys();
      const left =
        [1, 2, 3].map((n) => instanceName(shop.name, n)).find((each) => each !== primary && each !== sync) ??
        '';
      // Else it would become synchronous as soon as the other one is away.
      await shop.patch({ instances: [{ name: left, noFailover: true }] });
      await eventually('every agent to know', 30_000, async () => {
        const { conditions } = await shop.status();
        return conditions?.some((each) => each.type === 'SettingsApplied' && each.status === 'True');
      });
      try {
        await takeAway(sync);
        await shop.waitForCondition('SynchronousReplication', { status: 'False' }, 60_000);
        await takeAway(primary);
        await shop.patch({ instances: null });
        await shop.waitForCondition('Ready', { status: 'False' }, 30_000);
        await sleep(10_000);
        expect((await shop.status()).primary).toBe(primary);

        await shop.annotate({ 'koschei.dev/failover': left });
        const refused = await eventSays('FailoverRefused', /acceptLoss=/, 30_000);
        expect(refused).toContain('acknowledged commits may be lost');
        const [, words = ''] = /koschei\.dev\/failover='([^']+)'/.exec(refused) ?? [];
        expect(words).toMatch(new RegExp(`^${left} acceptLoss=\\d+ primaryIsOff$`));
        await shop.annotate({ 'koschei.dev/failover': words });
        // Clients are let in when somebody else confirms their commits.
        const recorded = await eventually(`the history to name ${left}`, 60_000, async () => {
          const last = (await stateInEtcd(shop.namespace)).findLast(({ key }) => key.includes('/history/'));
          const read = last === undefined ? undefined : parseJson(last.value, historyValue);
          return typeof read === 'object' && read.value.instance === left && read.value;
        });
        expect(recorded.lossAccepted).toBe(true);
        expect(recorded.why).toContain('may be lost');
        await eventually(`${left} in the status`, 20_000, async () => (await shop.status()).primary === left);
      } finally {
        await bringBack();
      }
      // The others come back with what they had, and follow.
      await shop.waitHealthy(180_000);
      expect(await shop.knownPrimary()).toBe(left);
      await shop.annotate({ 'koschei.dev/failover': `${primary} acceptLoss=1` });
      await eventSays('FailoverRefused', /use a switchover/, 30_000);
    },
    500_000,
  );
});
