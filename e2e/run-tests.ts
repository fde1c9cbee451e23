import { spawn } from 'node:child_process';
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import * as z from 'zod';
import { cache, repository } from './cluster/settings.ts';
import { succeeds } from './cluster/shell.ts';
import { bringUp, install } from './install.ts';
import { installMissing } from './packages.ts';

const help = `Usage: npm test [-- <part> ...] [-- <part> <filter>]

Runs all tests and ends with the line "N passed, N failed". Parts, in this order:

  check         types, lint and format
  unit          no processes, no network
  sim           20,000 schedules of faults in a simulated world, and rules broken on purpose (docs/simulator.md)
  model         the protocol's models, searched with spin, and rules broken on purpose (docs/model.md)
  integration   real Postgres, etcd and kube-apiserver processes on this machine
  e2e           Koschei on a Kubernetes of three nodes on this machine, with faults (or on that of KOSCHEI_CONTEXT)

What is missing on this machine is installed (root on Debian). A word that is no part picks test files by name:
npm test -- e2e failover
`;

const parts = ['check', 'unit', 'sim', 'model', 'integration', 'e2e'] as const;
type Part = (typeof parts)[number];

interface Count {
  readonly passed: number;
  readonly failed: number;
}

/** What vitest's JSON reporter writes, as far as it is used. */
const VitestReport = z.object({
  numPassedTests: z.int(),
  numFailedTests: z.int(),
  testResults: z.array(
    z.object({ name: z.string(), status: z.string(), assertionResults: z.array(z.unknown()) }),
  ),
});

async function test(part: Part, filters: readonly string[]): Promise<Count> {
  if (part === 'check') return check();
  if (part === 'model') await installMissing('compiler', 'spin');
  if (part === 'integration') await prepareIntegration();
  if (part === 'e2e') await install();
  return vitest(part, filters);
}

/** Each of the two counts as one test. */
async function check(): Promise<Count> {
  const commands: [string, string[]][] = [
    [process.execPath, ['node_modules/typescript/bin/tsc', '--noEmit']],
    [`${repository}/node_modules/.bin/biome`, ['check', '.']],
  ];
  let failed = 0;
  for (const [program, args] of commands) if (!(await show(program, args))) failed += 1;
  return { passed: commands.length - failed, failed };
}

async function vitest(part: Part, filters: readonly string[]): Promise<Count> {
  const file = `${repository}/.state/test-results/${part}.json`;
  mkdirSync(`${repository}/.state/test-results`, { recursive: true });
  rmSync(file, { force: true });
  const args = ['node_modules/vitest/vitest.mjs', 'run', '--project', part, ...filters];
  const options = ['--reporter=default', '--reporter=json', `--outputFile.json=${file}`, '--passWithNoTests'];
  const good = await show(process.execPath, [...args, ...options]);
  try {
    const { numPassedTests, numFailedTests, testResults } = VitestReport.parse(
      JSON.parse(readFileSync(file, 'utf8')),
    );
    // A file that fails outside its tests counts as one.
    const broken = testResults.filter(
      ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
    ).length;
    const failed = numFailedTests + broken;
    return { passed: numPassedTests, failed: good ? failed : Math.max(1, failed) };
  } catch {
    console.error(`${part}: the test runner left no result`);
    return { passed: 0, failed: 1 };
  }
}

/** Runs a program with its output shown, and tells whether it ended well. */
function show(program: string, args: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(program, args, { cwd: repository, stdio: 'inherit' });
    child.on('error', (error) => {
      console.error(error.message);
      resolve(false);
    });
    child.on('close', (code) => resolve(code === 0));
  });
}

/** The integration tests start these as processes on this machine; kube-apiserver comes from the local cluster. */
async function prepareIntegration(): Promise<void> {
  await installMissing('compiler', 'postgres', 'etcd', 'openssl');
  if (await succeeds('sh', ['-c', `ls ${cache}/kubernetes-*/kube-apiserver`])) return;
  await bringUp();
}

async function main(words: readonly string[]): Promise<void> {
  const isPart = (word: string): word is Part => (parts as readonly string[]).includes(word);
  const chosen = parts.filter((part) => words.includes(part));
  const filters = words.filter((word) => !isPart(word));
  const total = { passed: 0, failed: 0 };
  for (const part of chosen.length === 0 ? parts : chosen) {
    const began = performance.now();
    console.log(`\n=== ${part}`);
    let count: Count;
    try {
      count = await test(part, filters);
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      count = { passed: 0, failed: 1 };
    }
    total.passed += count.passed;
    total.failed += count.failed;
    const seconds = Math.round((performance.now() - began) / 1000);
    console.log(`=== ${part}: ${count.passed} passed, ${count.failed} failed, ${seconds} s`);
  }
  console.log(`\n${total.passed} passed, ${total.failed} failed`);
  process.exit(total.failed === 0 ? 0 : 1);
}

const words = process.argv.slice(2);
if (words.includes('--help') || words.includes('-h')) console.log(help);
else await main(words);
