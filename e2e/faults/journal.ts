import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as z from 'zod';
import { repository } from '../cluster/settings.ts';
import { run } from '../cluster/shell.ts';
import { messageOf } from '../ledger/connection.ts';
import type { Command, Effect } from './fault.ts';

const entry = z.object({
  id: z.int(),
  fault: z.string(),
  at: z.iso.datetime(),
  undo: z.object({ what: z.string(), program: z.string(), args: z.array(z.string()) }),
});
/** An effect that is under way, or may be. */
export type JournalEntry = z.infer<typeof entry>;

/** Runs a command to its end. @throws {Error} if it fails. */
export type Execute = (command: Command) => Promise<unknown>;

/** Milliseconds for one command: a drain, or a restart of the API server, take long. */
const commandTimeout = 150_000;
export const execute: Execute = ({ program, args }) => run(program, args, { timeout: commandTimeout });

/** How often an undoing is tried before a person has to. */
const tries = 3;

/**
 * What faults have to be undone, in a file: written before each effect begins and forgotten when it is undone, so that
 * nothing stays broken when the program that broke it is killed.
 */
export class Journal {
  readonly #file: string;
  readonly #execute: Execute;
  #closed = false;

  constructor(file: string = join(repository, '.state/faults/under-way.json'), run: Execute = execute) {
    this.#file = file;
    this.#execute = run;
  }

  /** What may still have to be undone, in the order in which it began. @throws {Error} if the file is damaged. */
  entries(): readonly JournalEntry[] {
    let text: string;
    try {
      text = readFileSync(this.#file, 'utf8');
    } catch (error) {
      if ((error as { code?: unknown }).code === 'ENOENT') return [];
      throw error;
    }
    const parsed = z.array(entry).safeParse(JSON.parse(text));
    if (!parsed.success)
      throw new Error(`${this.#file} is no journal of faults: ${z.prettifyError(parsed.error)}`);
    return parsed.data;
  }

  /** Refuses new effects from now on: this program is about to end. */
  close(): void {
    this.#closed = true;
  }

  /** Makes one effect happen, after writing down how to undo it. */
  async apply(fault: string, { apply, undo }: Effect): Promise<void> {
    if (this.#closed) throw new Error(`not begun, because this program ends: ${apply.what}`);
    if (undo !== undefined) {
      const entries = this.entries();
      const id = Math.max(0, ...entries.map((each) => each.id)) + 1;
      const { what, program, args } = undo;
      this.#write([
        ...entries,
        { id, fault, at: new Date().toISOString(), undo: { what, program, args: [...args] } },
      ]);
    }
    await this.#execute(apply);
  }

  /**
   * Undoes what is under way, the last first. What cannot be undone stays in the journal.
   * @returns why some could not be undone, as sentences.
   */
  async undo(concerns: (entry: JournalEntry) => boolean = () => true): Promise<string[]> {
    const problems: string[] = [];
    for (const each of this.entries().filter(concerns).toReversed()) {
      for (let attempt = 1; ; attempt += 1) {
        try {
          await this.#execute(each.undo);
          this.#write(this.entries().filter(({ id }) => id !== each.id));
          break;
        } catch (error) {
          if (attempt < tries) continue;
          problems.push(`could not ${each.undo.what}: ${messageOf(error)}`);
          break;
        }
      }
    }
    return problems;
  }

  #write(entries: readonly JournalEntry[]): void {
    mkdirSync(dirname(this.#file), { recursive: true });
    const next = `${this.#file}.new`;
    const file = openSync(next, 'w');
    writeSync(file, `${JSON.stringify(entries, undefined, 2)}\n`);
    fsyncSync(file);
    closeSync(file);
    renameSync(next, this.#file);
  }
}
