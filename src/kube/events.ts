import { randomUUID } from 'node:crypto';
import type { Logger } from 'pino';
import type { KubeClient } from './client.ts';
import { type Clock, systemClock } from './clock.ts';
import { isNotFound } from './errors.ts';
import { resources } from './resources.ts';
import { type CoreEvent, type KubeObject, objectKey } from './types.ts';

export interface EventNote {
  readonly type: 'Normal' | 'Warning';
  /** CamelCase, from a closed list. */
  readonly reason: string;
  /** For people; at most 1024 characters are kept. */
  readonly message: string;
}

export interface EventRecorderOptions {
  readonly client: KubeClient;
  /** Who says it, e.g. `koschei-operator`. */
  readonly component: string;
  /** Which process says it, e.g. the pod's name. */
  readonly instance: string;
  readonly log: Logger;
  readonly clock?: Clock;
  readonly newId?: () => string;
}

/** The same note about the same object is written at most this often, milliseconds; in between it is only counted. */
const repeatMs = 600_000;
/** Notes of one type about one object: this many at once, then one per `refillMs`. */
const burst = 25;
const refillMs = 30_000;
const maxPending = 200;
const maxRemembered = 2_000;

/**
 * Writes Events, in the background and in order. Nothing that goes wrong here ever reaches the caller: an Event is a
 * courtesy. Call it on transitions only.
 */
export class EventRecorder {
  readonly #options: EventRecorderOptions;
  readonly #clock: Clock;
  readonly #newId: () => string;
  /** By object, reason and message; the oldest first. */
  readonly #known = new Map<string, { name: string; namespace: string; count: number; writtenAt: number }>();
  readonly #budgets = new Map<string, { tokens: number; at: number }>();
  #pending = 0;
  #tail: Promise<void> = Promise.resolve();

  constructor(options: EventRecorderOptions) {
    this.#options = options;
    this.#clock = options.clock ?? systemClock;
    this.#newId = options.newId ?? randomUUID;
  }

  record(object: KubeObject, note: EventNote): void {
    const subject = `${object.kind}/${objectKey(object)}/${object.metadata.uid ?? ''}`;
    const key = `${subject}/${note.type}/${note.reason}/${note.message}`;
    const now = this.#clock.monotonic();
    const known = this.#known.get(key);
    if (known !== undefined) {
      known.count += 1;
      if (now - known.writtenAt < repeatMs) return;
    }
    // What goes its way must not crowd out what does not.
    if (!this.#allowed(`${subject}/${note.type}`, now) || this.#pending >= maxPending) {
      this.#options.log.debug({ ...note, subject }, 'an event was left out: too many');
      return;
    }
    const entry = known ?? {
      name: `${object.metadata.name.slice(0, 200)}.${this.#newId().replaceAll('-', '').slice(0, 16)}`,
      namespace: object.metadata.namespace ?? 'default',
      count: 1,
      writtenAt: now,
    };
    entry.writtenAt = now;
    this.#known.delete(key);
    this.#known.set(key, entry);
    dropOldest(this.#known, maxRemembered);
    const event = this.#event(object, note, entry);
    this.#pending += 1;
    this.#tail = this.#tail.then(async () => {
      await this.#write(event, known !== undefined);
      this.#pending -= 1;
    });
  }

  /** Resolves when everything recorded so far is written or given up. */
  async flush(): Promise<void> {
    await this.#tail;
  }

  async #write(event: CoreEvent, repeated: boolean): Promise<void> {
    const { client, log } = this.#options;
    try {
      if (repeated) {
        try {
          const { count, lastTimestamp } = event;
          await client.mergePatch(resources.events, event.metadata, { count, lastTimestamp });
          return;
        } catch (error) {
          // Events live for about an hour; then a new one is written.
          if (!isNotFound(error)) throw error;
        }
      }
      await client.create(resources.events, event);
    } catch (error) {
      log.debug({ err: error, reason: event.reason }, 'an event could not be written');
    }
  }

  #event(
    object: KubeObject,
    note: EventNote,
    entry: { name: string; namespace: string; count: number },
  ): CoreEvent {
    const { namespace, name, uid, resourceVersion } = object.metadata;
    const time = new Date(this.#clock.now()).toISOString().replace(/\.\d+Z$/, 'Z');
    return {
      apiVersion: 'v1',
      kind: 'Event',
      metadata: { name: entry.name, namespace: entry.namespace },
      involvedObject: {
        ...{ apiVersion: object.apiVersion, kind: object.kind, name },
        ...(namespace === undefined ? {} : { namespace }),
        ...(uid === undefined ? {} : { uid }),
        ...(resourceVersion === undefined ? {} : { resourceVersion }),
      },
      type: note.type,
      reason: note.reason,
      message: note.message.slice(0, 1024),
      count: entry.count,
      firstTimestamp: time,
      lastTimestamp: time,
      source: { component: this.#options.component },
      reportingComponent: this.#options.component,
      reportingInstance: this.#options.instance,
    };
  }

  #allowed(subject: string, now: number): boolean {
    const budget = this.#budgets.get(subject) ?? { tokens: burst, at: now };
    const tokens = Math.min(burst, budget.tokens + (now - budget.at) / refillMs);
    this.#budgets.delete(subject);
    this.#budgets.set(subject, { tokens: tokens >= 1 ? tokens - 1 : tokens, at: now });
    dropOldest(this.#budgets, maxRemembered);
    return tokens >= 1;
  }
}

function dropOldest(map: Map<string, unknown>, max: number): void {
  for (const key of map.keys()) {
    if (map.size <= max) return;
    map.delete(key);
  }
}
