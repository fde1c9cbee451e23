import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { compileKoscheiInit } from '../../images/koschei-init/compile.ts';
import { createLogger } from '../log/logger.ts';
import { processesNamed } from '../postgres/index.ts';
import { LoopVolume, loopVolumesAreAvailable } from '../postgres/testing/loop-volume.ts';
import type { StorageFacts } from './ha/index.ts';
import { Storage } from './storage.ts';

let programs: string;
let program: string;
let volume: LoopVolume;
const started: Storage[] = [];

beforeAll(async () => {
  programs = await mkdtemp(join(tmpdir(), 'koschei-'));
  program = join(programs, 'koschei-init');
  await compileKoscheiInit(program);
  return () => rm(programs, { recursive: true });
});

/** As a new agent on the volume would. */
function tried(): Storage {
  const storage = new Storage({
    program,
    paths: { agentDir: volume.directory, walRoot: undefined },
    now: () => performance.now(),
    log: createLogger({ name: 'test', level: 'silent' }),
  });
  started.push(storage);
  storage.start();
  return storage;
}

const factsOf = (storage: Storage): StorageFacts => {
  const [facts] = storage.facts;
  if (facts === undefined) throw new Error('nothing is tried');
  return facts;
};
const silenceMs = (storage: Storage) => factsOf(storage).lookedAt - factsOf(storage).goodAt;
const isGoodSince = (storage: Storage, since: number) =>
  vi.waitFor(() => expect(factsOf(storage).goodAt).toBeGreaterThan(since), { timeout: 5_000 });
const probes = () => processesNamed(started[0]?.names[0] ?? '');

describe.skipIf(!loopVolumesAreAvailable())('a volume', () => {
  beforeEach(async () => {
    volume = await LoopVolume.create(16);
  });
  afterEach(async () => {
    for (const storage of started.splice(0)) storage.stop();
    await volume.remove();
  });

  test('that takes in what is written is seen to', async () => {
    const storage = tried();
    await isGoodSince(storage, performance.now() + 1_000);
    expect(silenceMs(storage)).toBeLessThan(1_900);
  });

  test('that is stalled is seen to be, by one process that nobody can end and nobody starts again', async () => {
    const before = tried();
    await isGoodSince(before, performance.now());
    await volume.freeze();
    await vi.waitFor(() => expect(silenceMs(before)).toBeGreaterThan(2_500), { timeout: 6_000 });
    expect(probes()).toMatchObject([{ state: 'D' }]);

    // The agent is started anew.
    before.stop();
    const after = tried();
    await vi.waitFor(() => expect(silenceMs(after)).toBeGreaterThan(2_500), { timeout: 6_000 });
    expect(probes()).toMatchObject([{ state: 'D' }]);

    await volume.thaw();
    await isGoodSince(after, performance.now());
    expect(probes()).toHaveLength(1);
  });

  test('that fails says why', async () => {
    const storage = tried();
    await isGoodSince(storage, performance.now());
    await volume.remount('ro');
    await vi.waitFor(() => expect(factsOf(storage).failure).toContain('EROFS'), { timeout: 5_000 });
    await vi.waitFor(() => expect(silenceMs(storage)).toBeGreaterThan(2_500), { timeout: 6_000 });
    await volume.remount('rw');
    await isGoodSince(storage, performance.now());
    expect(factsOf(storage).failure).toBeUndefined();
  });

  test('that is full is none that is stalled', async () => {
    await writeFile(join(volume.directory, 'filler'), Buffer.alloc(15 << 20)).catch(() => undefined);
    const storage = tried();
    await isGoodSince(storage, performance.now() + 1_000);
  });

  test('says nothing through a process that is stopped', async () => {
    const storage = tried();
    await isGoodSince(storage, performance.now());
    for (const { pid } of probes()) process.kill(pid, 'SIGSTOP');
    await sleep(4_000);
    expect(silenceMs(storage)).toBeLessThan(2_500);
    for (const { pid } of probes()) process.kill(pid, 'SIGCONT');
    await isGoodSince(storage, performance.now());
  });

  test('is tried again when the process that does it has ended', async () => {
    const storage = tried();
    await isGoodSince(storage, performance.now());
    for (const { pid } of probes()) process.kill(pid, 'SIGKILL');
    await isGoodSince(storage, performance.now());
    expect(probes()).toHaveLength(1);
  });
});
