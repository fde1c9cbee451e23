import type { Logger } from '../log/logger.ts';

/** What the Kubernetes API should say about this pod. */
export interface WantedRouting {
  readonly role: 'primary' | 'standby' | undefined;
  /** This instance leads in this term: the `-rw` Service points here. */
  readonly leads: { readonly term: number } | undefined;
}

/** The two writes to the Kubernetes API that an agent does. Both may fail for as long as the API is away. */
export interface RoutingApi {
  /**
   * Points the `-rw` Service at this pod unless a later term did so already; `false`: leave it, a later term owns it.
   */
  claim(term: number): Promise<boolean>;
  /** Takes this pod off the `-rw` Service if it is the one on it. */
  release(): Promise<void>;
  setRole(role: 'primary' | 'standby' | undefined): Promise<void>;
}

/**
 * Brings the Kubernetes API into line with what is wanted: the slice first, as clients wait for it, the label after it;
 * one call at a time, retried with a pause for as long as it differs.
 */
export class Routing {
  readonly #api: RoutingApi;
  readonly #log: Logger;
  readonly #retryMs: number;
  #wanted: WantedRouting = { role: undefined, leads: undefined };
  #term: number | undefined;
  #role: WantedRouting['role'] | 'unknown' = 'unknown';
  #busy = false;
  #failures = 0;
  #claimed = false;

  constructor(api: RoutingApi, log: Logger, retryMs = 500) {
    this.#api = api;
    this.#log = log;
    this.#retryMs = retryMs;
  }

  want(wanted: WantedRouting): void {
    this.#wanted = wanted;
    if (!this.#busy) void this.#work();
  }

  async #work(): Promise<void> {
    this.#busy = true;
    try {
      for (;;) {
        const { role, leads } = this.#wanted;
        if (leads !== undefined && this.#term !== leads.term) {
          await this.#api.claim(leads.term);
          this.#term = leads.term;
          this.#claimed = true;
          this.#log.info({ term: leads.term }, 'the -rw Service leads here');
        } else if (leads === undefined && this.#claimed) {
          await this.#api.release();
          this.#term = undefined;
          this.#claimed = false;
        } else if (role !== this.#role) {
          await this.#api.setRole(role);
          this.#role = role;
        } else break;
        this.#failures = 0;
      }
      this.#busy = false;
    } catch (error) {
      this.#failures += 1;
      if (this.#failures === 1 || this.#failures % 60 === 0)
        this.#log.warn(
          { err: error, failures: this.#failures },
          'the Kubernetes API cannot be told who leads; clients with all hosts in their connection string still find the primary',
        );
      setTimeout(() => {
        this.#busy = false;
        this.want(this.#wanted);
      }, this.#retryMs).unref();
    }
  }
}
