import { rmSync } from 'node:fs';
import { removeCluster } from './containers.ts';
import { alone } from './machine.ts';
import { foreignContext, localKubeconfig } from './settings.ts';
import { report } from './shell.ts';

const help = `Usage: npm run cluster:down

Removes the local cluster: containers, volumes with all data, network, routes and keys. Docker, its images and the
programs in the cache stay, so that \`npm run cluster:up\` takes seconds. With KOSCHEI_CONTEXT set it does nothing.
`;

if (process.argv.includes('--help') || process.argv.includes('-h')) console.log(help);
else if (foreignContext !== undefined)
  report(`KOSCHEI_CONTEXT is set: the cluster of ${foreignContext} stays.`);
else await alone(down);

async function down(): Promise<void> {
  const removed = await removeCluster();
  rmSync(localKubeconfig, { force: true });
  report(removed ? 'the local cluster is removed' : 'there was no local cluster');
}
