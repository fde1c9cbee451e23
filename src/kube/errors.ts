import { z } from 'zod';

/** The API answered with an error. The request took no effect, unless the status is 5xx. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status, e.g. 404. */
  readonly status: number;
  /** Machine-readable reason of the Status object, e.g. `NotFound`; empty when there was none. */
  readonly reason: string;
  /** How long the server asks to wait before the next try, milliseconds. */
  readonly retryAfterMs: number | undefined;

  constructor(status: number, reason: string, message: string, retryAfterMs?: number) {
    super(message);
    this.status = status;
    this.reason = reason;
    this.retryAfterMs = retryAfterMs;
  }
}

/** The API gave no usable answer: not reachable, connection lost, deadline passed. Whether a write took effect is unknown. */
export class NoAnswerError extends Error {
  override readonly name = 'NoAnswerError';
  readonly timedOut: boolean;
  constructor(message: string, timedOut: boolean, cause?: unknown) {
    super(message, { cause });
    this.timedOut = timedOut;
  }
}

/** The API sent something that is not what the protocol says. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError';
}

/** The credentials for the API cannot be read. */
export class CredentialsError extends Error {
  override readonly name = 'CredentialsError';
}

/** What was read is no longer so, by what the API or etcd says now: look again. */
export class OutdatedError extends Error {
  override readonly name = 'OutdatedError';
}

/** Trying again cannot help until the object changes; the controller does not retry. */
export class TerminalError extends Error {
  override readonly name = 'TerminalError';
}

/** Another process holds the lease now, or it could not be renewed in time: this process must end. */
export class LeadershipLostError extends Error {
  override readonly name = 'LeadershipLostError';
}

const has = (error: unknown, status: number): boolean => error instanceof ApiError && error.status === status;

export const isNotFound = (error: unknown): boolean => has(error, 404);
export const isAlreadyExists = (error: unknown): boolean =>
  has(error, 409) && error instanceof ApiError && error.reason === 'AlreadyExists';
/** A resourceVersion or uid that is no longer current, a field that another manager owns, or an `OutdatedError`. */
export const isConflict = (error: unknown): boolean =>
  error instanceof OutdatedError || (has(error, 409) && !isAlreadyExists(error));
/** The resourceVersion is older than what the server remembers: list again. */
export const isGone = (error: unknown): boolean => has(error, 410);
export const isForbidden = (error: unknown): boolean => has(error, 403);
/** The object breaks the schema, a validation rule or immutability. */
export const isInvalid = (error: unknown): boolean => has(error, 422);
export const isTooManyRequests = (error: unknown): boolean => has(error, 429);
/** Whether it is unknown if a write took effect. */
export const isUncertain = (error: unknown): boolean =>
  error instanceof NoAnswerError || (error instanceof ApiError && error.status >= 500);

const statusSchema = z.looseObject({
  kind: z.literal('Status'),
  message: z.string().optional(),
  reason: z.string().optional(),
  code: z.int().optional(),
  details: z.looseObject({ retryAfterSeconds: z.number().optional() }).optional(),
});

/**
 * The error that an unsuccessful answer means.
 * @param what the request, for the message: `GET /api/v1/...`
 * @param retryAfter the header of that name, seconds
 */
export function apiError(what: string, status: number, body: unknown, retryAfter?: string): ApiError {
  const parsed = statusSchema.safeParse(body);
  const code = parsed.data?.code ?? status;
  const seconds = retryAfter !== undefined ? Number(retryAfter) : parsed.data?.details?.retryAfterSeconds;
  const retryAfterMs = seconds !== undefined && Number.isFinite(seconds) ? seconds * 1000 : undefined;
  const text = parsed.data?.message ?? (typeof body === 'string' ? body.slice(0, 200).trim() : '');
  return new ApiError(code, parsed.data?.reason ?? '', `${what}: ${code} ${text}`.trimEnd(), retryAfterMs);
}
