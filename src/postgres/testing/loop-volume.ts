import { type ChildProcessByStdio, execFileSync, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';

/** A file system of its own in a file: mounting needs root, a loop device, and e2fsprogs. */
export function loopVolumesAreAvailable(): boolean {
  if (process.getuid?.() !== 0 || !existsSync('/dev/loop-control')) return false;
  try {
    execFileSync('sh', ['-c', 'command -v fsfreeze mkfs.ext4 losetup'], { stdio: 'ignore' });
    execFileSync('losetup', ['--find'], { stdio: 'ignore' });
    return true;
  } catch {
    return false;
  }
}

/**
 * A real file system whose disk can be stalled: whoever writes to it while it is frozen sleeps uninterruptibly. A shell
 * that stays root does it, also when the test is root no more, and takes everything away when the test is gone.
 */
export class LoopVolume {
  readonly directory: string;
  readonly #shell: ChildProcessByStdio<Writable, Readable, null>;
  #answered: (code: number) => void = () => undefined;

  private constructor(directory: string, shell: ChildProcessByStdio<Writable, Readable, null>) {
    this.directory = directory;
    this.#shell = shell;
    createInterface({ input: shell.stdout }).on('line', (line) => this.#answered(Number(line)));
  }

  static async create(megabytes: number): Promise<LoopVolume> {
    const root = await mkdtemp(join(tmpdir(), 'koschei-volume-'));
    const directory = join(root, 'mnt');
    const end = `fsfreeze -u ${directory}; umount ${directory} || umount -l ${directory}; rm -r ${root}`;
    const loop = `trap '' INT TERM; while read -r line; do eval "$line" >&2; echo $?; done; { ${end}; } 2>/dev/null`;
    const shell = spawn('sh', ['-c', loop], { stdio: ['pipe', 'pipe', 'ignore'], detached: true });
    const volume = new LoopVolume(directory, shell);
    await volume.#run(`chmod 755 ${root} && truncate -s ${megabytes}M ${root}/image && mkfs.ext4 -q ${root}/image
      mkdir ${directory} && mount -o loop ${root}/image ${directory} && chmod 777 ${directory}`);
    return volume;
  }

  /** From now on everybody who writes to it waits. */
  async freeze(): Promise<void> {
    await this.#run(`fsfreeze -f ${this.directory}`);
  }

  async thaw(): Promise<void> {
    await this.#run(`fsfreeze -u ${this.directory}`);
  }

  async remount(option: 'ro' | 'rw'): Promise<void> {
    await this.#run(`mount -o remount,${option} ${this.directory}`);
  }

  /** Takes it away, thawed or not. */
  async remove(): Promise<void> {
    const ended = new Promise((resolve) => this.#shell.once('close', resolve));
    this.#shell.stdin.end();
    await ended;
  }

  async #run(script: string): Promise<void> {
    const code = await new Promise<number>((resolve) => {
      this.#answered = resolve;
      this.#shell.stdin.write(`${script.split('\n').join(' && ')}\n`);
    });
    if (code !== 0) throw new Error(`exit code ${code} of: ${script}`);
  }
}
