import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { ifThere, removeDurably, writeDurably } from './durable-files.ts';
import { PostgresError } from './errors.ts';
import type { PostgresPaths } from './paths.ts';

/** 16 hexadecimal digits, made by initdb, clone or restore: names one copy of the data. */
export const dataIdSchema = z.string().regex(/^[0-9a-f]{16}$/);

export const identitySchema = z.object({
  dataId: dataIdSchema,
  clusterId: z.string().min(1),
  systemIdentifier: z.string().regex(/^\d+$/),
  major: z.number().int(),
  createdBy: z.enum(['initdb', 'clone', 'restore']),
  /** Made by the bootstrap of its cluster, not from another instance. */
  bootstrap: z.boolean(),
});

/** Who the data on the volume is (`agent/identity.json`). */
export type Identity = z.infer<typeof identitySchema>;

export const taintSchema = z.object({
  dataId: dataIdSchema,
  reason: z.string(),
});

/** Why this data may never be started again (`agent/taint.json`): it must be recloned. Counts only for its data id. */
export type Taint = z.infer<typeof taintSchema>;

export const promotionSchema = z.object({
  term: z.number().int().nonnegative(),
  timeline: z.number().int().nonnegative(),
  /** From which timeline it was to lead there; unknown for a start without a promotion. */
  parent: z.number().int().positive().optional(),
});

/** The greatest term this volume was promoted in, and the timeline allotted then (`agent/promotion.json`). */
export type Promotion = z.infer<typeof promotionSchema>;

/** `undefined`: the volume holds no data yet. Throws PostgresError `UnreadableIdentity`. */
export function readIdentity(paths: PostgresPaths): Promise<Identity | undefined> {
  return readRecord(identityFile(paths), identitySchema);
}

/** The taint of the data of `dataId`, if any. Throws PostgresError `UnreadableIdentity`. */
export async function readTaint(paths: PostgresPaths, dataId: string): Promise<Taint | undefined> {
  const taint = await readRecord(taintFile(paths), taintSchema);
  return taint?.dataId === dataId ? taint : undefined;
}

/** Durable when it returns. */
export function writeTaint(paths: PostgresPaths, taint: Taint): Promise<void> {
  return writeRecord(taintFile(paths), taintSchema, taint);
}

/** Durable when it returns. */
export function clearTaint(paths: PostgresPaths): Promise<void> {
  return removeDurably(taintFile(paths));
}

/** `{ term: 0, timeline: 0 }` before the first promotion. Throws PostgresError `UnreadableIdentity`. */
export async function readPromotion(paths: PostgresPaths): Promise<Promotion> {
  return (await readRecord(promotionFile(paths), promotionSchema)) ?? { term: 0, timeline: 0 };
}

/** R5: durable when it returns; call it before `promote`. Throws RangeError unless the term grows. */
export async function writePromotion(paths: PostgresPaths, promotion: Promotion): Promise<void> {
  const stored = await readPromotion(paths);
  if (promotion.term <= stored.term) {
    throw new RangeError(`this volume was promoted in term ${stored.term}: not again in ${promotion.term}`);
  }
  await writeRecord(promotionFile(paths), promotionSchema, promotion);
}

export function identityFile(paths: PostgresPaths): string {
  return join(paths.agentDir, 'identity.json');
}

/** The decision to swap: from the moment this file is durable, `pgdata.new` is the data. */
export function nextIdentityFile(paths: PostgresPaths): string {
  return join(paths.agentDir, 'identity.next.json');
}

function taintFile(paths: PostgresPaths): string {
  return join(paths.agentDir, 'taint.json');
}

function promotionFile(paths: PostgresPaths): string {
  return join(paths.agentDir, 'promotion.json');
}

export async function readRecord<T>(path: string, schema: z.ZodType<T>): Promise<T | undefined> {
  const text = await ifThere(readFile(path, 'utf8'));
  if (text === undefined) return undefined;
  try {
    return schema.parse(JSON.parse(text));
  } catch (cause) {
    throw new PostgresError('UnreadableIdentity', {
      expected: `a valid ${path}`,
      found: cause instanceof z.ZodError ? z.prettifyError(cause) : String(cause),
      advice: 'the volume was changed by something else: reclone the instance or restore the file',
      cause,
    });
  }
}

export function writeRecord<T>(path: string, schema: z.ZodType<T>, record: T): Promise<void> {
  return writeDurably(path, `${JSON.stringify(schema.parse(record))}\n`);
}
