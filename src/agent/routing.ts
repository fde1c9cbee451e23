import type { RoleLabel } from '../api/names.ts';
import type { Logger } from '../log/logger.ts';

/** What the Kubernetes API should say about this pod. */
export interface WantedRouting {
  readonly role: RoleLabel | undefined;
  /** This instance leads in this term: the `-rw` Service points here. */
  readonly leads: { readonly term: number } | undefined;
}

/** What an agent says to the Kubernetes API. All of it may fail for as long as the API is away. */
export interface RoutingApi {
  /**
   * Points the `-rw` Service at this pod unless a later term did so already, and writes nothing if it points here;
   * `false`: leave it, a later term owns it.
   */
  claim(term: number): Promise<boolean>;
  /** Takes this pod off the `-rw` Service if it is the one on it. */
  release(): Promise<void>;
  setRole(role: RoleLabel | undefined): Promise<void>;
}

export interface RoutingOptions {
  readonly log: Logger;
  /** A clock in milliseconds that never goes back. */
  readonly now: () => number;
  /** The pause after a call that failed, ms. */
  readonly retryMs?: number;
  /** How often a leader looks whether the slice still points at it: somebody may have emptied it or made it anew, ms. */
  readonly lookMs?: number;
  /** How often the role is said again: somebody may have changed the label by hand, ms. */
  readonly roleMs?: number;
}

/**
 * Brings the Kubernetes API into line with what is wanted: the slice first, as clients wait for it, the label after it;
 * one call at a time, retried with a pause for as long as it differs.
 */
export class Routing {
  readonly #api: RoutingApi;
  readonly #o: Required<RoutingOptions>;
  #wanted: WantedRouting = { role: undefined, leads: undefined };
  /** The newest claim: of this term, asked when, and whether the slice points here since. */
  #claim: { readonly term: number; readonly at: number; readonly granted: boolean | undefined } | undefined;
  #role: WantedRouting['role'] | 'unknown' = 'unknown';
  #roleAt = Number.NEGATIVE_INFINITY;
  #busy = false;
  #failures = 0;

  constructor(api: RoutingApi, options: RoutingOptions) {
    this.#api = api;
    this.#o = { retryMs: 500, lookMs: 5_000, roleMs: 60_000, ...options };
  }

  /** To be called again and again: it looks at what is due. */
  want(wanted: WantedRouting): void {
    this.#wanted = wanted;
    if (!this.#busy) void this.#work();
  }

  /** Why clients of the `-rw` Service do not get here though they should. */
  get problem(): { readonly reason: string; readonly message: string } | undefined {
    const { leads } = this.#wanted;
    if (leads === undefined || this.#claim?.term !== leads.term || this.#claim.granted !== false)
      return undefined;
    return {
      reason: 'ServiceOfLaterTerm',
      message: `the EndpointSlice of the -rw Service says that a later term than ${leads.term} owns it, so it does not lead here; if this primary is the right one, remove the annotation with the term`,
    };
  }

  async #work(): Promise<void> {
    this.#busy = true;
    try {
      for (;;) {
        const { role, leads } = this.#wanted;
        if (leads !== undefined && this.#isDue(leads.term)) await this.#look(leads.term);
        else if (leads === undefined && this.#claim !== undefined) {
          await this.#api.release();
          this.#claim = undefined;
        } else if (role !== this.#role || this.#o.now() - this.#roleAt >= this.#o.roleMs) {
          // An agent may not read its pod; to say what is there already changes nothing.
          this.#roleAt = this.#o.now();
          await this.#api.setRole(role);
          this.#role = role;
        } else break;
        this.#failures = 0;
      }
      this.#busy = false;
    } catch (error) {
      this.#failures += 1;
      if (this.#failures === 1 || this.#failures % 60 === 0)
        this.#o.log.warn(
          { err: error, failures: this.#failures },
          'the Kubernetes API cannot be told who leads; clients with all hosts in their connection string still find the primary',
        );
      setTimeout(() => {
        this.#busy = false;
        this.want(this.#wanted);
      }, this.#o.retryMs).unref();
    }
  }

  #isDue(term: number): boolean {
    const last = this.#claim;
    return last?.term !== term || last.granted === undefined || this.#o.now() - last.at >= this.#o.lookMs;
  }

  async #look(term: number): Promise<void> {
    const { log, now } = this.#o;
    const before = this.#claim?.term === term ? this.#claim.granted : undefined;
    // Even a claim that nobody hears the end of may have happened, and is to be taken back.
    this.#claim = { term, at: now(), granted: undefined };
    const granted = await this.#api.claim(term);
    this.#claim = { term, at: now(), granted };
    if (granted === before) return;
    if (granted) log.info({ term }, 'the -rw Service leads here');
    else log.warn({ term }, 'a later term owns the -rw Service: it does not lead here');
  }
}
