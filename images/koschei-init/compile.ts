import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const source = fileURLToPath(new URL('koschei-init.c', import.meta.url));

/** Compiles koschei-init to one static program at `output`, with `CC` or gcc. Throws with the compiler's words. */
export async function compileKoscheiInit(output: string): Promise<void> {
  const compiler = process.env.CC ?? 'gcc';
  await promisify(execFile)(compiler, [
    '-Os',
    '-static',
    '-s',
    '-Wall',
    '-Wextra',
    '-Werror',
    '-o',
    output,
    source,
  ]);
}
