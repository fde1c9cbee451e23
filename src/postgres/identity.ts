import { z } from 'zod';
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
});

/** The greatest term this volume was promoted in, and the timeline allotted then (`agent/promotion.json`). */
export type Promotion = z.infer<typeof promotionSchema>;

/** `undefined`: the volume holds no data yet. Throws PostgresError `UnreadableIdentity`. */
export async function readIdentity(_paths: PostgresPaths): Promise<Identity | undefined> {
  throw new Error('not written yet');
}

/** The taint of the data of `dataId`, if any. */
export async function readTaint(_paths: PostgresPaths, _dataId: string): Promise<Taint | undefined> {
  throw new Error('not written yet');
}

/** Durable when it returns. */
export async function writeTaint(_paths: PostgresPaths, _taint: Taint): Promise<void> {
  throw new Error('not written yet');
}

export async function clearTaint(_paths: PostgresPaths): Promise<void> {
  throw new Error('not written yet');
}

/** `{ term: 0, timeline: 0 }` before the first promotion. */
export async function readPromotion(_paths: PostgresPaths): Promise<Promotion> {
  throw new Error('not written yet');
}

/** R5: durable when it returns; call it before `promote`. Throws RangeError unless the term grows. */
export async function writePromotion(_paths: PostgresPaths, _promotion: Promotion): Promise<void> {
  throw new Error('not written yet');
}
