import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { chmodSync, closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterEach, beforeAll, expect, test } from 'vitest';
import { compileKoscheiInit } from './compile.ts';

// Each run is in a PID namespace of its own, where koschei-init is process 1; the agents are shell scripts.

let directory: string;
let program: string;
const running: ChildProcess[] = [];

beforeAll(async () => {
  directory = mkdtempSync(join(tmpdir(), 'koschei-init-'));
  program = join(directory, 'koschei-init');
  await compileKoscheiInit(program);
  return () => rmSync(directory, { recursive: true, force: true });
});
afterEach(() => {
  for (const child of running.splice(0)) child.kill('SIGKILL');
});

class Run {
  readonly lines: string[] = [];
  readonly ended: Promise<number>;
  readonly #child: ChildProcess;
  #wake = (): void => {};

  /** `output`: a descriptor to be its standard output, of which no line is read here. */
  constructor(
    script: string,
    lock: string,
    { namespace = true, output = 'pipe' }: { namespace?: boolean; output?: 'pipe' | number } = {},
  ) {
    const agent = join(directory, `agent-${running.length}-${Math.random()}.sh`);
    writeFileSync(agent, `#!/bin/sh\n${script}\n`);
    chmodSync(agent, 0o755);
    const command = [program, '--lock', lock, '--', agent, 'run'];
    const rootless = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
    const inNamespace = [
      'unshare',
      ...rootless,
      '--pid',
      '--fork',
      '--mount-proc',
      '--kill-child',
      ...command,
    ];
    const [file = '', ...args] = namespace ? inNamespace : command;
    this.#child = spawn(file, args, { stdio: ['pipe', output, 'pipe'] });
    running.push(this.#child);
    for (const stream of [this.#child.stdout, this.#child.stderr]) {
      if (stream === null) continue;
      createInterface({ input: stream }).on('line', (line) => {
        this.lines.push(line);
        this.#wake();
      });
    }
    this.ended = new Promise((resolve) => {
      this.#child.once('close', (code) => resolve(code ?? -1));
    });
  }

  /** The first line at or after `from` that holds `text`. */
  async line(text: string, from = 0, timeoutMs = 10_000): Promise<string> {
    const deadline = performance.now() + timeoutMs;
    for (;;) {
      const found = this.lines.slice(from).find((line) => line.includes(text));
      if (found !== undefined) return found;
      const left = deadline - performance.now();
      if (left <= 0) throw new Error(`no line with "${text}" in:\n${this.lines.join('\n')}`);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        setTimeout(resolve, Math.min(left, 200));
      });
    }
  }

  async record(text: string): Promise<Record<string, unknown>> {
    return JSON.parse(await this.line(text));
  }

  /** Signals koschei-init itself, which is the child of unshare. */
  signal(signal: NodeJS.Signals): void {
    const children = execFileSync('ps', ['-o', 'pid=', '--ppid', String(this.#child.pid)], {
      encoding: 'utf8',
    });
    process.kill(Number(children.trim()), signal);
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

let locks = 0;
const newLock = (): string => join(directory, `volume-${locks++}`, 'lock');
const inMs = (ms: number): string => `$(awk '{printf "%d", $1 * 1000 + ${ms}}' /proc/uptime)`;
/** Names of all processes but the ones that look. */
const survey = `echo "boot $KOSCHEI_BOOT sees: $(ps -A -o pid=,stat=,comm= | grep -v -e ' ps$' -e ' grep$' -e ' tr$' | tr '\\n' ';')"`;
/** The second agent looks around; the first does what the test is about. */
const firstThenSurvey = (first: string): string =>
  `if [ "$KOSCHEI_BOOT" = 1 ]; then ${first}\nelse ${survey}; exec sleep 60; fi`;
/** A postmaster that dies of SIGQUIT only slowly or not at all, with a backend. */
const stubborn = `setsid sh -c 'trap "" QUIT; sleep 60 & while :; do sleep 60; done' & postmaster=$!`;

const nobodyElse = /^boot 2 sees: +1 \S+ +koschei-init; *\d+ \S+ +agent-\S*;( *\d+ \S+ +agent-\S*;)?$/;

test('the deadline ends a stopped agent and all of Postgres, and a new agent starts', async () => {
  const run = new Run(
    firstThenSurvey(`${stubborn}
      echo "postmaster $postmaster" >&3; echo "deadline ${inMs(500)}" >&3; echo armed; kill -STOP $$`),
    newLock(),
  );
  await run.line('armed');
  const armed = performance.now();
  const { msLate } = await run.record('the deadline is reached');
  // The agent comes first.
  expect(msLate).toBeGreaterThanOrEqual(200);
  expect(msLate).toBeLessThan(250);
  const { ms } = await run.record('no other process can run');
  expect(ms).toBeGreaterThanOrEqual(700);
  expect(ms).toBeLessThan(900);
  expect(performance.now() - armed).toBeGreaterThan(1200);
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('an agent that fences at its deadline lives on', async () => {
  const run = new Run(
    `echo "deadline ${inMs(100)}" >&3; sleep 0.2; echo "deadline 0" >&3; sleep 0.4; echo "boot $KOSCHEI_BOOT lives"; sleep 60`,
    newLock(),
  );
  await run.line('boot 1 lives');
  expect(run.lines.join()).not.toContain('deadline is reached');
});

test('the agent reads the clock of its deadlines, whatever /proc/uptime says', async () => {
  const script = join(directory, 'clock.ts');
  writeFileSync(
    script,
    `import { spawnSync } from 'node:child_process';
    import { uptime } from 'node:os';
    import { writeSync } from 'node:fs';
    import { bootClock } from ${JSON.stringify(join(import.meta.dirname, '../../src/agent/boot-clock.ts'))};
    const now = bootClock(process.env);
    const [first, passed] = [now(), performance.now()];
    setTimeout(() => {
      console.log(JSON.stringify({ virtual: uptime() * 1000, now: now(), drift: now() - first - performance.now() + passed }));
      console.log('inherited:', spawnSync('ls', ['/proc/self/fd'], { encoding: 'utf8' }).stdout.split('\\n').join(' '));
      writeSync(3, 'deadline ' + (now() + 1_000) + '\\n');
      setTimeout(() => console.log('alive'), 700);
      setTimeout(() => undefined, 60_000);
    }, 300);`,
  );
  const real = Number(readFileSync('/proc/uptime', 'utf8').split(' ')[0]) * 1000;
  const run = new Run(
    firstThenSurvey(`echo '7.00 3.00' > ${directory}/uptime; mount --bind ${directory}/uptime /proc/uptime
      exec ${process.execPath} ${script}`),
    newLock(),
  );
  const { virtual, now, drift } = await run.record('drift');
  expect(virtual).toBe(7_000);
  expect(Number(now) - real).toBeGreaterThan(0);
  expect(Number(now) - real).toBeLessThan(5_000);
  expect(Math.abs(Number(drift))).toBeLessThan(5);
  // The descriptor that ls has open for itself takes the lowest free number.
  expect(await run.line('inherited')).not.toMatch(/ 4 /);
  await run.line('alive');
  expect((await run.record('the deadline is reached')).msLate).toBeLessThan(300);
});

test('an agent without its clock says why it ends', async () => {
  const run = new Run(
    `exec 4>&-; exec ${process.execPath} --input-type=module -e '
      const { bootClock } = await import("${join(import.meta.dirname, '../../src/agent/boot-clock.ts')}");
      bootClock(process.env);'`,
    newLock(),
  );
  await run.line('ClockError: expected koschei-init');
  await run.line('the agent has ended');
});

test('stopped itself, it goes by what the agent has said since: the agent fences, and lives on', async () => {
  const run = new Run(
    `echo "deadline ${inMs(500)}" >&3; echo armed; sleep 0.7
     echo 'deadline 0' >&3; echo "boot $KOSCHEI_BOOT fenced"; while :; do sleep 0.5; echo "boot $KOSCHEI_BOOT lives"; done`,
    newLock(),
  );
  await run.line('armed');
  run.signal('SIGSTOP');
  await run.line('boot 1 fenced');
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  run.signal('SIGCONT');
  await run.line('boot 1 lives', run.lines.length);
  expect(run.lines.join()).not.toContain('deadline is reached');
});

test('an agent that is stopped with it is fenced when it goes on', async () => {
  const run = new Run(
    firstThenSurvey(`${stubborn}
      echo "postmaster $postmaster" >&3; echo "deadline ${inMs(500)}" >&3; echo armed; kill -STOP $$`),
    newLock(),
  );
  await run.line('armed');
  run.signal('SIGSTOP');
  await new Promise((resolve) => setTimeout(resolve, 1_500));
  expect(run.lines.join()).not.toContain('deadline is reached');
  run.signal('SIGCONT');
  expect((await run.record('the deadline is reached')).msLate).toBeGreaterThan(900);
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('on a busy machine the deadline is kept', async () => {
  const burners = Array.from({ length: 2 * availableParallelism() }, () => '(while :; do :; done) &').join(
    ' ',
  );
  const run = new Run(
    firstThenSurvey(`${stubborn}
      echo "postmaster $postmaster" >&3; ${burners}
      echo "deadline ${inMs(1_500)}" >&3; while :; do :; done`),
    newLock(),
  );
  // The fence budget leaves 400 ms for being late (src/dcs/schemas.ts).
  expect((await run.record('the deadline is reached')).msLate).toBeLessThan(400);
  expect((await run.record('no other process can run')).ms).toBeLessThan(1_100);
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('a volume is tried by writing to it, and told when it fails', async () => {
  const file = join(directory, 'tried');
  const tries = spawn(program, ['--probe', 'probe-test', file], { stdio: ['ignore', 'pipe', 'inherit'] });
  running.push(tries);
  const lines = createInterface({ input: tries.stdout })[Symbol.asyncIterator]();
  expect((await lines.next()).value).toMatch(/^ok [1-9]\d*$/);
  expect(readFileSync(file)).toHaveLength(4096);
  const before = readFileSync(file);
  await lines.next();
  expect(readFileSync(file)).not.toEqual(before);
  const none = spawn(program, ['--probe', 'probe-test', join(directory, 'none', 'x')], { stdio: 'pipe' });
  running.push(none);
  const failures = createInterface({ input: none.stdout })[Symbol.asyncIterator]();
  expect((await failures.next()).value).toBe(`failed ${constants.errno.ENOENT}`);
});

test('a later deadline replaces the earlier one, and 0 takes it away', async () => {
  const run = new Run(
    `echo "deadline ${inMs(150)}" >&3; echo "deadline ${inMs(60_000)}" >&3
     sleep 0.5; echo survived; echo "deadline ${inMs(150)}" >&3; echo "deadline 0" >&3; sleep 0.5; echo again; sleep 60`,
    newLock(),
  );
  await run.line('again');
  expect(run.lines.join()).not.toContain('deadline is reached');
});

test('a deadline in the past ends everything at once', async () => {
  const run = new Run(firstThenSurvey('echo "deadline 1" >&3; sleep 60'), newLock());
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('when the agent dies, the postmaster gets SIGQUIT first, and orphans die too', async () => {
  const run = new Run(
    firstThenSurvey(`
      setsid env --default-signal=QUIT sh -c 'trap "echo quit; exit" QUIT; echo up; while :; do sleep 0.05; done' & postmaster=$!
      setsid sh -c 'trap "" QUIT TERM HUP; sleep 60' &
      sleep 0.3; echo "postmaster $postmaster" >&3; kill -KILL $$`),
    newLock(),
  );
  await run.line('quit');
  expect((await run.record('no other process can run')).ms).toBeLessThan(600);
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('when the agent dies without a postmaster, what it ran is ended, too', async () => {
  const run = new Run(firstThenSurvey('setsid sleep 60 & exit 3'), newLock());
  expect(await run.line('the agent has ended')).toContain(`"waitStatus":${3 << 8}`);
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('garbage is ignored; what follows counts', async () => {
  const run = new Run(
    firstThenSurvey(`
      printf 'postmaster\\n\\ndeadline soon\\npostmaster 1\\npostmaster -5\\ndeadline 5 5\\nhello\\n' >&3
      head -c 100000 /dev/zero | tr '\\0' x >&3; printf '\\npostm' >&3; sleep 0.1; printf 'aster 0\\n' >&3
      sleep 0.3; echo alive; echo "deadline ${inMs(100)}" >&3; sleep 60`),
    newLock(),
  );
  await run.line('alive');
  expect(run.lines.filter((line) => line.includes('ignored a line'))).toHaveLength(8);
  expect(run.lines.join()).not.toContain('deadline is reached');
  await run.line('deadline is reached');
  expect(await run.line('boot 2 sees')).toMatch(nobodyElse);
});

test('a half line of a dead agent is not put before the first line of the next', async () => {
  const run = new Run(
    `if [ "$KOSCHEI_BOOT" = 1 ]; then printf 'deadl' >&3; exit; fi
     printf 'deadline 1\\n' >&3; sleep 60`,
    newLock(),
  );
  await run.line('deadline is reached');
});

test('an agent that writes without end does not keep its deadline from coming', async () => {
  const run = new Run(firstThenSurvey(`echo "deadline ${inMs(300)}" >&3; exec cat /dev/zero >&3`), newLock());
  expect((await run.record('the deadline is reached')).msLate).toBeLessThan(300);
});

test('a log that nobody reads does not keep the deadline from coming', async () => {
  const fifo = join(directory, 'full');
  execFileSync('mkfifo', [fifo]);
  // Open for reading, too, and never read.
  const output = openSync(fifo, 'r+');
  const run = new Run(
    `if [ "$KOSCHEI_BOOT" = 1 ]; then
       setsid sh -c 'echo up >&2; exec sleep 60' & echo "deadline ${inMs(1_000)}" >&3; exec cat /dev/zero
     else ${survey} >&2; exec sleep 60; fi`,
    newLock(),
    { output },
  );
  closeSync(output);
  await run.line('up');
  expect(await run.line('boot 2 sees', 0, 5_000)).toMatch(nobodyElse);
});

test('orphans are reaped', async () => {
  const run = new Run(
    `for i in 1 2 3 4 5; do (sleep 0.1 &); done; sleep 0.5
     echo "zombies: $(ps -A -o stat= | grep -c Z)"; sleep 60`,
    newLock(),
  );
  expect(await run.line('zombies:')).toBe('zombies: 0');
});

test('SIGTERM goes to the agent; its exit code is passed on and the rest is ended', async () => {
  const run = new Run(
    `setsid sleep 60 & trap 'echo stopping; sleep 0.2; exit 7' TERM; echo up; while :; do sleep 0.05; done`,
    newLock(),
  );
  await run.line('up');
  run.signal('SIGTERM');
  expect(await run.ended).toBe(7);
  expect(run.lines.join()).toContain('stopping');
});

test('the deadline counts while the agent is stopping', async () => {
  const run = new Run(
    `stop() { echo "deadline ${inMs(300)}" >&3; sleep 60; }; trap stop TERM; echo up; while :; do sleep 0.05; done`,
    newLock(),
  );
  await run.line('up');
  run.signal('SIGTERM');
  expect(await run.ended).toBe(143);
  await run.line('the deadline is reached');
});

test('an agent that keeps dying is started less and less often', async () => {
  const run = new Run('echo "boot $KOSCHEI_BOOT at $(date +%s%3N)"; exit 1', newLock());
  await run.line('boot 5 at');
  const times = run.lines.flatMap((line) => /^boot \d at (\d+)$/.exec(line)?.[1] ?? []).map(Number);
  const gaps = times.slice(1).map((time, i) => time - (times[i] ?? 0));
  expect(gaps[3]).toBeGreaterThanOrEqual(800);
  expect(gaps[0]).toBeLessThan(400);
});

test('the lock is held by one at a time, and a stop signal ends the wait', async () => {
  const lock = newLock();
  const first = new Run('echo first; sleep 60', lock);
  await first.line('first');
  const second = new Run('echo second; sleep 60', lock);
  const third = new Run('echo third; sleep 60', lock);
  await second.line('in use by another pod');
  await third.line('in use by another pod');
  third.signal('SIGTERM');
  expect(await third.ended).toBe(143);
  expect(second.lines.join()).not.toContain('second');
  first.kill();
  await second.line('second');
});

test('it never fences when it is not process 1', async () => {
  const run = new Run('exit 0', newLock(), { namespace: false });
  expect(await run.ended).toBe(70);
  await run.line('is not process 1');
});

test('wrong use is told', async () => {
  const child = spawn(program, ['--lock', 'x'], { stdio: 'ignore' });
  expect(await new Promise((resolve) => child.once('close', resolve))).toBe(64);
});
