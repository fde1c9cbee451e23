import type { Random } from './random.ts';

/** One direction between two places. */
interface Link {
  cutUntil: number;
  slowUntil: number;
  delay: number;
}

/**
 * The network: from each place to each other a link of its own, so that a partition may be asymmetric. Places are the
 * machines, by number, and etcd.
 */
export class Network {
  readonly #links: Link[];
  readonly #size: number;
  readonly #noise: Random;
  readonly #now: () => number;
  readonly #at: (time: number, run: () => void) => void;

  constructor(
    machines: number,
    noise: Random,
    now: () => number,
    at: (time: number, run: () => void) => void,
  ) {
    this.#size = machines + 1;
    this.#noise = noise;
    this.#now = now;
    this.#at = at;
    this.#links = Array.from({ length: this.#size * this.#size }, () => ({
      cutUntil: 0,
      slowUntil: 0,
      delay: 0,
    }));
  }

  /** The place of etcd. */
  get etcd(): number {
    return this.#size - 1;
  }

  cut(from: number, to: number, until: number): void {
    const link = this.#link(from, to);
    link.cutUntil = Math.max(link.cutUntil, until);
  }

  slow(from: number, to: number, until: number, delay: number): void {
    const link = this.#link(from, to);
    link.slowUntil = until;
    link.delay = delay;
  }

  /** When something sent now could arrive at the earliest: the end of the cut, or now. */
  openAt(from: number, to: number): number {
    return Math.max(this.#link(from, to).cutUntil, this.#now());
  }

  connected(a: number, b: number): boolean {
    const now = this.#now();
    return this.#link(a, b).cutUntil <= now && this.#link(b, a).cutUntil <= now;
  }

  /** How long a request takes, ms. */
  delay(from: number, to: number): number {
    return this.#delay(this.#link(from, to));
  }

  /** A message that is lost when the link is cut; on a slow link it may be overtaken and may come twice. */
  send(from: number, to: number, deliver: () => void): void {
    const now = this.#now();
    const link = this.#link(from, to);
    if (link.cutUntil > now) return;
    this.#at(now + this.#delay(link), deliver);
    if (link.slowUntil > now && this.#noise.chance(0.3)) this.#at(now + this.#delay(link), deliver);
  }

  /** A message on a TCP connection: repeated until the cut is over. Returns when it arrives. Order is the caller's. */
  stream(from: number, to: number, notBefore: number, deliver: () => void): number {
    const link = this.#link(from, to);
    const arrival = Math.max(Math.max(link.cutUntil, this.#now()) + this.#delay(link), notBefore);
    this.#at(arrival, deliver);
    return arrival;
  }

  #delay(link: Link): number {
    const usual = this.#noise.between(1, 4);
    return link.slowUntil > this.#now() ? usual + this.#noise.between(0, link.delay) : usual;
  }

  #link(from: number, to: number): Link {
    const link = this.#links[from * this.#size + to];
    if (link === undefined) throw new RangeError(`there is no link from ${from} to ${to}`);
    return link;
  }
}
