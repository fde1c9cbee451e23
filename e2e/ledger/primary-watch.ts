import { setTimeout as sleep } from 'node:timers/promises';

/** What a watch asks a host, again and again. */
export interface Probe {
  /** The timeline that the host writes on as primary; undefined while it is a standby. @throws if it does not answer. */
  timeline(): Promise<number | undefined>;
  close(): void;
}

export interface WatchOptions {
  /** All hosts, as they are known at the moment. */
  readonly addresses: () => Promise<readonly string[]>;
  /** @throws {Error} if the host lets nobody in. */
  readonly connect: (address: string) => Promise<Probe>;
  /** Called when another host than before is the primary. */
  readonly changed: (primary: string) => void;
  readonly signal: AbortSignal;
}

/** Milliseconds between two questions to a host, and between two attempts to reach one. */
const pause = 25;
/** Milliseconds between two looks at which hosts there are. */
const discoveryPause = 500;

/**
 * Knows at every moment which host is the primary: it keeps a session with each and asks. Of two that say they are, the
 * one on the later timeline is right; the other has been replaced and does not know it yet.
 */
export class PrimaryWatch {
  readonly #options: WatchOptions;
  /** Hosts by address: whether one is followed, and the timeline of those that say that they are the primary. */
  readonly #hosts = new Map<string, number | undefined>();
  #known: readonly string[] = [];
  #primary: string | undefined;

  constructor(options: WatchOptions) {
    this.#options = options;
    void this.#discover();
  }

  /** The primary at the moment, as far as known. */
  get primary(): string | undefined {
    return this.#primary;
  }

  async #discover(): Promise<void> {
    const { addresses, signal } = this.#options;
    while (!signal.aborted) {
      this.#known = await addresses().catch(() => this.#known);
      for (const address of this.#known) {
        if (this.#hosts.has(address)) continue;
        this.#hosts.set(address, undefined);
        void this.#follow(address);
      }
      await sleep(discoveryPause);
    }
  }

  /** Asks a host until it is gone and nobody names it any more. */
  async #follow(address: string): Promise<void> {
    const { connect, signal } = this.#options;
    while (!signal.aborted) {
      let probe: Probe | undefined;
      try {
        probe = await connect(address);
        while (!signal.aborted) {
          this.#learn(address, await probe.timeline());
          await sleep(pause);
        }
      } catch {
        this.#learn(address, undefined);
        if (!this.#known.includes(address)) break;
        await sleep(pause);
      } finally {
        probe?.close();
      }
    }
    this.#hosts.delete(address);
  }

  #learn(address: string, timeline: number | undefined): void {
    this.#hosts.set(address, timeline);
    let best: { address: string; timeline: number } | undefined;
    for (const [each, found] of this.#hosts) {
      if (found !== undefined && found > (best?.timeline ?? 0)) best = { address: each, timeline: found };
    }
    if (best?.address === this.#primary) return;
    this.#primary = best?.address;
    if (best !== undefined) this.#options.changed(best.address);
  }
}
