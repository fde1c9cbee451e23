import { availableParallelism } from 'node:os';
import { defineConfig } from 'vitest/config';

/**
 * Test projects, from fast to slow. `unit` does no I/O beyond temporary files; `sim` plays
 * clusters in a simulated world, in this process alone; `model` searches models with spin; `integration` starts real
 * Postgres, etcd or kube-apiserver processes on this machine; `e2e` needs the local cluster (or KOSCHEI_CONTEXT).
 */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'unit',
          include: ['src/**/*.test.ts', 'e2e/**/*.unit.test.ts', 'bench/**/*.test.ts'],
          exclude: ['**/*.integration.test.ts'],
        },
      },
      {
        test: {
          name: 'sim',
          include: ['sim/**/*.test.ts'],
          exclude: ['sim/model/**'],
          testTimeout: 60_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'model',
          include: ['sim/model/**/*.test.ts'],
          testTimeout: 120_000,
          fileParallelism: false,
          maxConcurrency: availableParallelism(),
        },
      },
      {
        test: {
          name: 'integration',
          include: [
            'src/**/*.integration.test.ts',
            'images/**/*.integration.test.ts',
            'e2e/**/*.integration.test.ts',
          ],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
      {
        test: {
          name: 'e2e',
          include: ['e2e/tests/**/*.e2e.ts'],
          testTimeout: 300_000,
          hookTimeout: 600_000,
          fileParallelism: false,
          sequence: { concurrent: false },
        },
      },
    ],
  },
});
