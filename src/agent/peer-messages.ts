import { z } from 'zod';
import { formatLsn, parseLsn } from '../postgres/index.ts';
import type { PeerAnswer, PromiseAnswer, PromiseRequest } from './ha/index.ts';

const lsn = z.string().regex(/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/i);

/** A probe's answer on the wire: LSNs as Postgres writes them. Unknown fields are ignored. */
const schema = z.object({
  instance: z.string().min(1).max(253),
  dataId: z.string().optional(),
  bootId: z.string(),
  state: z.enum(['primary', 'standby', 'fenced', 'unknown']),
  term: z.int().min(0),
  openMs: z.number().min(0),
  timeline: z.int().min(1).optional(),
  receivedLsn: lsn.optional(),
  replayedLsn: lsn.optional(),
  streamsFrom: z.string().max(253).optional(),
  failoverSlots: z.array(z.string().max(64)).max(1_000).optional(),
  replaysLocalWal: z.boolean().optional(),
  storageStalled: z.boolean().optional(),
  checkpointed: z.boolean(),
  ancestors: z.array(z.object({ timeline: z.int().min(1), end: lsn })).max(100_000),
});

export function encodeAnswer(answer: PeerAnswer): string {
  return JSON.stringify({
    ...answer,
    receivedLsn: answer.receivedLsn === undefined ? undefined : formatLsn(answer.receivedLsn),
    replayedLsn: answer.replayedLsn === undefined ? undefined : formatLsn(answer.replayedLsn),
    ancestors: answer.ancestors.map((a) => ({ timeline: a.timeline, end: formatLsn(a.end) })),
  });
}

/** Reads an answer; throws ZodError or SyntaxError when it is none. */
export function decodeAnswer(text: string): PeerAnswer {
  const { receivedLsn, replayedLsn, ancestors, ...rest } = schema.parse(JSON.parse(text));
  return {
    ...rest,
    receivedLsn: receivedLsn === undefined ? undefined : parseLsn(receivedLsn),
    replayedLsn: replayedLsn === undefined ? undefined : parseLsn(replayedLsn),
    ancestors: ancestors.map((a) => ({ timeline: a.timeline, end: parseLsn(a.end) })),
  };
}

const name = z.string().min(1).max(253);
const member = z.object({ instance: name, dataId: z.string().regex(/^[0-9a-f]{16}$/) });
/** What a promise is about. An agent that does not know promises answers with an error, which is none. */
const subject = {
  clusterId: name,
  bootId: z.string().min(8).max(253),
  term: z.int().min(1),
  ttlMs: z.int().min(1).max(60_000),
};
const promiseRequest = z.object({ ...subject, leader: member, to: member });
const promiseAnswer = z.object({
  ...subject,
  by: member,
  promised: z.boolean(),
  because: z.string().max(500).optional(),
});

export function encodePromiseRequest(request: PromiseRequest): string {
  return JSON.stringify(request);
}

/** Reads a question for a promise; throws ZodError or SyntaxError when it is none. */
export function decodePromiseRequest(text: string): PromiseRequest {
  return promiseRequest.parse(JSON.parse(text));
}

export function encodePromiseAnswer(answer: PromiseAnswer): string {
  return JSON.stringify(answer);
}

/** Reads the answer to one; throws ZodError or SyntaxError when it is none. */
export function decodePromiseAnswer(text: string): PromiseAnswer {
  return promiseAnswer.parse(JSON.parse(text));
}
