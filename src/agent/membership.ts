import type { ClusterKeys, Etcd, MemberValue } from '../dcs/index.ts';
import type { Logger } from '../log/logger.ts';

const leaseSeconds = 30;
/** Positions alone are worth a write this often, ms. */
const positionsEveryMs = 5_000;
/** Lag within one class is not worth a write: 0, below 1 MiB, below 16 MiB, more. */
const lagClasses = [0, 1 << 20, 16 << 20];

/**
 * Keeps `members/<instance>` up to date: on a lease, written when something changed that a person would notice.
 * Nothing is decided by it, so failures only delay it.
 */
export class Membership {
  readonly #o: { etcd: Etcd; keys: ClusterKeys; now: () => number; log: Logger };
  #lease: string | undefined;
  #keptAt = 0;
  #written: { value: MemberValue; at: number } | undefined;
  #busy = false;

  constructor(options: { etcd: Etcd; keys: ClusterKeys; now: () => number; log: Logger }) {
    this.#o = options;
  }

  /** Writes the value if it is worth it. Never throws. */
  async publish(value: MemberValue): Promise<void> {
    if (this.#busy) return;
    this.#busy = true;
    try {
      const now = this.#o.now();
      if (this.#lease !== undefined && now - this.#keptAt > (leaseSeconds * 1000) / 3) {
        if (await this.#o.etcd.keepLease(this.#lease)) this.#keptAt = now;
        else this.#lease = undefined;
      }
      const last = this.#written;
      if (this.#lease !== undefined && last !== undefined && !this.#worthWriting(last, value, now)) return;
      if (this.#lease === undefined) {
        this.#lease = await this.#o.etcd.grantLease(leaseSeconds);
        this.#keptAt = now;
      }
      const key = this.#o.keys.member(value.instance);
      await this.#o.etcd.transact([], [{ op: 'put', key, value: JSON.stringify(value), lease: this.#lease }]);
      this.#written = { value, at: now };
    } catch (error) {
      this.#o.log.debug({ err: error }, 'the member key could not be written');
    } finally {
      this.#busy = false;
    }
  }

  /** Takes the key away at a planned stop, so that nobody counts on this instance. */
  async withdraw(instance: string): Promise<void> {
    await this.#o.etcd
      .transact([], [{ op: 'delete', key: this.#o.keys.member(instance) }])
      .catch(() => undefined);
  }

  #worthWriting(last: { value: MemberValue; at: number }, value: MemberValue, now: number): boolean {
    if (JSON.stringify(coarse(last.value)) !== JSON.stringify(coarse(value))) return true;
    return now - last.at >= positionsEveryMs && JSON.stringify(last.value) !== JSON.stringify(value);
  }
}

/** The value without what changes all the time. */
function coarse({ receivedLsn: _r, replayedLsn: _p, heldLsn: _h, lagBytes, ...rest }: MemberValue): unknown {
  return { ...rest, lag: lagBytes === undefined ? undefined : lagClasses.filter((c) => lagBytes > c).length };
}
