import { mkdirSync, writeFileSync } from 'node:fs';
import { context, kubeconfig, kubectl } from './cluster/cluster.ts';
import { foreignContext, repository } from './cluster/settings.ts';
import { report } from './cluster/shell.ts';
import { dumpDiagnostics } from './diagnostics.ts';
import { killPod, now } from './faults.ts';
import { install } from './install.ts';
import { longestGap } from './ledger/history.ts';
import type { Ledger } from './ledger/ledger.ts';
import { PostgresCluster } from './postgres-cluster.ts';
import { gapsSince, startLedger, verifyLedger } from './workload.ts';

const help = `Usage: npm run demo

Brings up a Kubernetes of three nodes on this machine (or uses the one of KOSCHEI_CONTEXT), installs Koschei, applies
deploy/examples/shop.yaml, and shows a failover and a switchover under writes. The first run takes less than 10
minutes, later ones less than 3. Everything stays up afterwards; \`npm run cluster:down\` removes it.
`;

/** Milliseconds within which each step must be done. */
const patience = 180_000;

async function demo(): Promise<void> {
  heading('1. A Kubernetes with Koschei');
  await install();

  heading('2. A Postgres with three standbys: kubectl apply -f deploy/examples/shop.yaml');
  const shop = await PostgresCluster.at('default', 'shop');
  const there =
    (await kubectl(['-n', 'default', 'get', 'pgc', 'shop', '--ignore-not-found', '-o', 'name'])) !== '';
  if (there) report('shop is there already, from an earlier run');
  const applied = now();
  await kubectl(['-n', 'default', 'apply', '-f', `${repository}/deploy/examples/shop.yaml`]);
  try {
    await shop.waitReady(patience);
    report(
      `ready ${seconds(now() - applied)} after the apply: a primary, 1 synchronous and 2 asynchronous standbys`,
    );
    await shop.waitHealthy(patience);
    await show();

    heading('3. Writes, while the pod of the primary is deleted without any grace');
    const ledger = await startLedger(shop);
    const primary = await shop.knownPrimary();
    report(
      `8 writers at work: half through the Service shop-rw, half with all hosts in their connection string`,
    );
    await writeFor(ledger, 3_000);
    report(`kubectl delete pod ${primary}-0 --grace-period=0 --force      <- the primary`);
    const killedAt = await killPod(shop, primary);
    const next = await shop.waitForOtherPrimary({ instance: primary }, patience);
    await ledger.acknowledges(now(), patience);
    report(`${next} is the primary now, and writes go on`);
    await shop.waitHealthy(patience);
    report(
      `${primary} is back as a standby: everything is redundant again ${seconds(now() - killedAt)} after the fault`,
    );
    printGaps(ledger, killedAt);

    heading('4. A planned switchover');
    await writeFor(ledger, 2_000);
    report(`kubectl annotate pgc shop koschei.dev/switchover=${primary}`);
    const askedAt = now();
    await shop.requestSwitchover(primary);
    await shop.waitForOtherPrimary({ instance: next }, patience);
    await ledger.acknowledges(now(), patience);
    await shop.waitHealthy(patience);
    report(`${await shop.knownPrimary()} is the primary again`);
    printGaps(ledger, askedAt);

    heading('5. Was anything lost?');
    const attempts = await ledger.stop();
    const folder = `${repository}/.state/demo`;
    mkdirSync(folder, { recursive: true });
    writeFileSync(`${folder}/writes.jsonl`, attempts.map((each) => `${JSON.stringify(each)}\n`).join(''));
    const verdict = await verifyLedger(shop, ledger.run, attempts);
    const rows = (label: string, count: number, meaning: string) =>
      console.log(`  ${label.padEnd(14)}${String(count).padStart(7)}   ${meaning}`);
    rows('acknowledged', verdict.acknowledged, 'rows whose COMMIT was confirmed to the writer');
    rows('present', verdict.present, 'rows found afterwards, the same on the primary and on every standby');
    rows('lost', verdict.lost.length, 'rows that were acknowledged and are not there');
    rows(
      'in doubt',
      verdict.unknown,
      `rows whose COMMIT was not answered; ${verdict.resolved} of them are there`,
    );
    console.log(
      `\n  Every write of this run, one per line: ${folder.replace(`${repository}/`, '')}/writes.jsonl\n`,
    );
    await show();
    nextSteps(primary);
  } catch (error) {
    console.error(`\nDetails are in ${await dumpDiagnostics('demo', shop)}`);
    throw error;
  }
}

async function writeFor(ledger: Ledger, milliseconds: number): Promise<void> {
  const before = acknowledged(ledger);
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  report(`${acknowledged(ledger) - before} rows acknowledged in ${seconds(milliseconds)}`);
}

const acknowledged = (ledger: Ledger): number =>
  ledger.attempts.filter(({ outcome }) => outcome === 'acknowledged').length;

function printGaps(ledger: Ledger, since: number): void {
  const gaps = gapsSince(ledger.attempts, since);
  const all = longestGap(ledger.attempts, undefined, since);
  const of = (gap: { milliseconds: number } | undefined) => seconds(gap?.milliseconds ?? 0);
  report(
    `WRITE GAP ${of(all)}: for so long nobody could write ` +
      `(through the Service ${of(gaps.service)}, with all hosts ${of(gaps['multi-host'])})`,
  );
}

async function show(): Promise<void> {
  console.log(`\n$ kubectl get pgc,pgi\n${await kubectl(['-n', 'default', 'get', 'pgc,pgi'])}`);
}

function nextSteps(primary: string): void {
  const local = foreignContext === undefined;
  console.log(`Everything is still up. Try:

  export KUBECONFIG=${kubeconfig}${local ? '' : `  # context ${context}`}
  kubectl get koschei                                          # everything Koschei manages
  kubectl get pods -l koschei.dev/cluster=shop -L koschei.dev/role -o wide
  kubectl delete pod ${primary}-0 --grace-period=0 --force          # kill the primary again
  kubectl annotate pgc shop koschei.dev/switchover=any         # hand over as planned
  kubectl scale pgc shop --replicas=3                          # one more asynchronous standby
  kubectl explain pgcluster.spec.replicas
  kubectl exec -it ${primary}-0 -c postgres -- psql -h /run/koschei -U postgres app${
    local
      ? `
  docker kill koschei-node-1; docker start koschei-node-1      # a node loses power, and comes back
  npm run cluster:down                                         # remove everything`
      : ''
  }
`);
}

const heading = (text: string) => console.log(`\n--- ${text}`);
const seconds = (milliseconds: number): string => `${(milliseconds / 1000).toFixed(1)} s`;

if (process.argv.includes('--help') || process.argv.includes('-h')) console.log(help);
else {
  try {
    await demo();
    report('the demo is over');
    process.exit(0);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}
