import type { Etcd, KeyValue } from './etcd.ts';
import { EtcdError } from './etcd.ts';
import type { ClusterKeys } from './keys.ts';
import { type ClusterView, emptyView, parseView } from './view.ts';

export interface StoreOptions {
  readonly etcd: Etcd;
  readonly keys: ClusterKeys;
  /** Milliseconds on a clock that never goes back. */
  readonly now: () => number;
  /** A watch that has been silent for this long is read again, milliseconds. */
  readonly silenceMs: number;
  readonly onChange: () => void;
  readonly onProblem?: (message: string) => void;
}

/** A watch that lived shorter did not fail by chance, ms. */
const shortWatchMs = 1_000;

/**
 * Keeps a view of one cluster's keys up to date: a linearizable read, then a watch from that revision on; the watch is
 * a wake-up, and is replaced whenever it ends, is compacted or falls silent. It never gives up and never hides that it
 * is behind: `contactAt` tells when etcd last answered.
 */
export class ClusterStore {
  readonly #o: StoreOptions;
  #raw = new Map<string, KeyValue>();
  /** The newest revision known of each key, deletions included: the watch may bring what `learn` already knows. */
  #newest = new Map<string, bigint>();
  #view: ClusterView = emptyView;
  #dirty = false;
  #revision = 0n;
  /** Everything up to this revision is in the last full read. */
  #readRevision = 0n;
  #contactAt: number | undefined;
  #readAt: number | undefined;
  #endWatch: (() => void) | undefined;
  /** Watches in a row that ended soon. */
  #shortWatches = 0;
  #timer: NodeJS.Timeout | undefined;
  #reading: Promise<void> | undefined;
  #stopped = false;
  #failures = 0;

  constructor(options: StoreOptions) {
    this.#o = options;
  }

  /** The newest view. */
  get view(): ClusterView {
    if (this.#dirty) {
      this.#view = parseView(this.#o.keys, String(this.#revision), this.#raw.values());
      this.#dirty = false;
    }
    return this.#view;
  }

  /** When etcd was last heard of (a read or a watch message); undefined: never. */
  get contactAt(): number | undefined {
    return this.#contactAt;
  }

  /** When the last linearizable read that has been answered was *sent*; undefined: never. */
  get readAt(): number | undefined {
    return this.#readAt;
  }

  start(): void {
    void this.#resume();
    this.#timer = setInterval(() => {
      const silent = this.#o.now() - (this.#contactAt ?? Number.NEGATIVE_INFINITY) > this.#o.silenceMs;
      if (silent && this.#reading === undefined) void this.#resume();
    }, this.#o.silenceMs / 2);
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
    this.#endWatch?.();
  }

  /** A linearizable read of everything, sent after this call. Throws EtcdError. */
  async refresh(): Promise<ClusterView> {
    const sentAt = this.#o.now();
    const known = this.#revision;
    const { revision, keys } = await this.#o.etcd.readPrefix(this.#o.keys.prefix);
    const at = BigInt(revision);
    if (at < known) this.#forget(known, at);
    // The watch, or a write of this process, may already have brought newer values of some keys than this answer has.
    const present = new Set(keys.map((kv) => kv.key));
    for (const kv of keys) {
      const modRevision = BigInt(kv.modRevision);
      if (modRevision <= (this.#newest.get(kv.key) ?? -1n)) continue;
      this.#raw.set(kv.key, kv);
      this.#newest.set(kv.key, modRevision);
    }
    for (const key of [...this.#raw.keys()])
      if (!present.has(key) && (this.#newest.get(key) ?? 0n) <= at) this.#raw.delete(key);
    if (at > this.#readRevision) this.#readRevision = at;
    if (at > this.#revision) this.#revision = at;
    this.#dirty = true;
    this.#readAt = Math.max(this.#readAt ?? sentAt, sentAt);
    this.#contactAt = this.#o.now();
    return this.view;
  }

  /**
   * A linearizable read is never older than what was known before it was sent: this is another etcd, made anew or
   * restored from a snapshot, and nothing that the former one said is true any more.
   */
  #forget(known: bigint, at: bigint): void {
    this.#o.onProblem?.(
      `etcd has lost its state: it is at revision ${at}, and was at ${known}. It was made anew or restored`,
    );
    this.#raw.clear();
    this.#newest.clear();
    this.#revision = 0n;
    this.#readRevision = 0n;
    // A watch from a revision of before would wait until the new etcd gets there.
    if (this.#reading === undefined) void this.#resume();
  }

  /** Takes in what a transaction of this process wrote, without waiting for the watch to bring it. */
  learn(changes: readonly { key: string; value: string | undefined }[], revision: string): void {
    this.#apply(
      changes.map(({ key, value }) =>
        value === undefined
          ? ({ type: 'delete', key, modRevision: revision } as const)
          : ({ type: 'put', kv: { key, value, modRevision: revision } } as const),
      ),
    );
  }

  async #resume(): Promise<void> {
    if (this.#reading !== undefined || this.#stopped) return;
    this.#endWatch?.();
    this.#endWatch = undefined;
    this.#reading = (async () => {
      try {
        await this.refresh();
        if (this.#stopped) return;
        this.#failures = 0;
        const began = this.#o.now();
        this.#endWatch = this.#o.etcd.watch(this.#o.keys.prefix, String(this.#readRevision + 1n), {
          onStarted: () => {
            this.#contactAt = this.#o.now();
          },
          onEvents: (events) => {
            this.#contactAt = this.#o.now();
            this.#apply(events);
            this.#o.onChange();
          },
          onEnded: (reason) => {
            this.#o.onProblem?.(`watch of etcd ended: ${reason}`);
            this.#endWatch = undefined;
            // One that is ended as soon as it is made, by whatever etcd has against it, is not made again at once.
            if (this.#o.now() - began >= shortWatchMs) {
              this.#shortWatches = 0;
              void this.#resume();
            } else this.#resumeAfter(this.#shortWatches++);
          },
        });
        this.#o.onChange();
      } catch (error) {
        if (!(error instanceof EtcdError)) throw error;
        this.#failures += 1;
        if (this.#failures === 1 || this.#failures % 30 === 0) this.#o.onProblem?.(error.message);
      }
    })().finally(() => {
      this.#reading = undefined;
      if (this.#failures > 0 && !this.#stopped) this.#resumeAfter(this.#failures);
    });
    await this.#reading;
  }

  #resumeAfter(failures: number): void {
    setTimeout(() => void this.#resume(), Math.min(100 * 2 ** Math.min(failures, 4), 1_000)).unref();
  }

  #apply(
    events: readonly ({ type: 'put'; kv: KeyValue } | { type: 'delete'; key: string; modRevision: string })[],
  ): void {
    for (const event of events) {
      const key = event.type === 'put' ? event.kv.key : event.key;
      const revision = BigInt(event.type === 'put' ? event.kv.modRevision : event.modRevision);
      if (revision <= (this.#newest.get(key) ?? this.#readRevision)) continue;
      this.#newest.set(key, revision);
      if (event.type === 'put') this.#raw.set(key, event.kv);
      else this.#raw.delete(key);
      if (revision > this.#revision) this.#revision = revision;
      this.#dirty = true;
    }
  }
}
