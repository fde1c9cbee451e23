import { Agent as HttpsAgent, request } from 'node:https';
import type { Certificates } from './certificates.ts';
import type { PeerAnswer, PeerFacts, PromiseFacts, PromiseRequest } from './ha/index.ts';
import { decodeAnswer, decodePromiseAnswer, encodeAnswer, encodePromiseRequest } from './peer-messages.ts';

/** Where another agent is reached: by address, checked by name. */
export interface PeerAddress {
  readonly instance: string;
  readonly address: string;
  readonly host: string;
  /** How often it is asked, ms. */
  readonly everyMs: number;
  /** It is to look at its Postgres before it answers; an agent that does not know this answers with its last look. */
  readonly look?: boolean;
}

/** How often it is looked whether somebody is to be asked, ms, unless one is to be asked more often. */
const pollMs = 50;

/** What the kernel of a machine says, or the last router, where nobody listens or a connection has no owner any more. */
const refusals = ['ECONNREFUSED', 'ECONNRESET', 'EHOSTUNREACH', 'ENETUNREACH'];
/** How often somebody who refuses is asked again at once. */
const askAgainTimes = 10;

export interface PeersOptions {
  readonly port: number;
  readonly now: () => number;
  /** Deadline of one question, ms. */
  readonly timeoutMs: number;
  readonly certificates: () => Certificates;
  readonly onAnswer: () => void;
}

/** How often a leader without etcd asks each for its promise, ms, and how long one question may take. */
const promise = { everyMs: 500, timeoutMs: 1_000 } as const;

/**
 * Asks the other agents, each at its own pace, over kept connections, one question at a time. What matters is when the
 * newest *answered* question was sent; a peer that does not answer simply grows old.
 */
export class Peers {
  readonly #o: PeersOptions;
  readonly #facts = new Map<string, PeerFacts>();
  readonly #asked = new Map<string, { at: number; busy: boolean; agent: HttpsAgent; key: string }>();
  readonly #promises = new Map<string, PromiseFacts>();
  readonly #promiseAsked = new Map<string, { at: number; busy: boolean }>();
  #wanted: readonly PeerAddress[] = [];
  #timer: NodeJS.Timeout | undefined;
  #pollMs = 0;

  constructor(options: PeersOptions) {
    this.#o = options;
  }

  get facts(): ReadonlyMap<string, PeerFacts> {
    return this.#facts;
  }

  /** What came of the newest question for a promise, by instance. */
  get promises(): ReadonlyMap<string, PromiseFacts> {
    return this.#promises;
  }

  /** To how many peers connections are kept. */
  get connections(): number {
    return this.#asked.size;
  }

  start(): void {
    this.#poll(pollMs);
  }

  #poll(everyMs: number): void {
    if (everyMs === this.#pollMs) return;
    clearInterval(this.#timer);
    this.#pollMs = everyMs;
    this.#timer = setInterval(() => this.#ask(), everyMs);
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const { agent } of this.#asked.values()) agent.destroy();
  }

  /** Whom to ask from now on. */
  watch(wanted: readonly PeerAddress[]): void {
    this.#wanted = wanted;
    if (this.#timer !== undefined) this.#poll(Math.min(pollMs, ...wanted.map((w) => w.everyMs)));
    for (const instance of this.#facts.keys())
      if (!wanted.some((w) => w.instance === instance)) this.#facts.delete(instance);
    for (const [instance, { agent }] of this.#asked)
      if (!wanted.some((w) => w.instance === instance)) {
        agent.destroy();
        this.#asked.delete(instance);
      }
  }

  /**
   * Takes in what a peer said by itself. The certificates are the cluster's, not an instance's, so the sender is not
   * known for certain: nothing that is said makes anything possible that silence would not, in time. Only `fenced` is
   * believed (it lets a member of the synchronous set begin at once what it may begin after 1.25 s of silence); after
   * anything else the peer is asked itself, at its own address, at once. Strangers are not listened to.
   */
  hear(answer: PeerAnswer): void {
    const peer = this.#wanted.find((w) => w.instance === answer.instance);
    if (peer === undefined) return;
    if (answer.state === 'fenced') {
      this.#facts.set(answer.instance, { at: this.#o.now(), answer });
      this.#o.onAnswer();
    } else {
      this.#connection(peer).at = Number.NEGATIVE_INFINITY;
      this.#ask();
    }
  }

  /** Tells every peer what this agent would answer. Best effort: it saves time and nothing rests on it. */
  announce(answer: PeerAnswer): void {
    const body = encodeAnswer(answer);
    for (const peer of this.#wanted) {
      this.#send(peer, 'POST', '/v1/announce', body).catch(() => undefined);
    }
  }

  /**
   * Asks each of these for its promise, if that is due; to be called for as long as promises are needed. Where one is
   * reached is known from `watch`. That somebody cannot be asked is an answer, too: there is no promise.
   */
  askPromises(requests: readonly PromiseRequest[]): void {
    const now = this.#o.now();
    for (const asked of requests) {
      const { instance } = asked.to;
      const last = this.#promiseAsked.get(instance);
      if (last?.busy === true || now - (last?.at ?? Number.NEGATIVE_INFINITY) < promise.everyMs) continue;
      const entry = { at: now, busy: true };
      this.#promiseAsked.set(instance, entry);
      this.#askPromise(asked)
        .catch((error: Error) => ({ promised: false, because: error.message }) as const)
        .then((answer) => {
          entry.busy = false;
          this.#promises.set(instance, { at: now, answer });
          this.#o.onAnswer();
        });
    }
  }

  async #askPromise(asked: PromiseRequest): Promise<PromiseFacts['answer']> {
    const peer = this.#wanted.find((w) => w.instance === asked.to.instance);
    if (peer === undefined) return { promised: false, because: 'its agent has no known address' };
    return decodePromiseAnswer(
      await this.#send(peer, 'POST', '/v1/promise', encodePromiseRequest(asked), promise.timeoutMs),
    );
  }

  #ask(): void {
    const now = this.#o.now();
    for (const peer of this.#wanted) {
      const last = this.#connection(peer);
      if (last.busy || now - last.at < this.#everyMs(peer)) continue;
      last.busy = true;
      last.at = now;
      this.#send(peer, 'GET', peer.look === true ? '/v1/state?look' : '/v1/state')
        .then((text) => {
          const answer = decodeAnswer(text);
          // Another instance at a reused address is not this peer's answer.
          if (answer.instance !== peer.instance) return;
          this.#facts.set(peer.instance, { at: now, answer });
          this.#o.onAnswer();
        })
        .catch((error: NodeJS.ErrnoException) => this.#failed(peer.instance, now, error))
        .finally(() => {
          last.busy = false;
        });
    }
  }

  /** To be refused says more than no answer: somebody is there to say that nobody listens. */
  #failed(instance: string, now: number, { code }: NodeJS.ErrnoException): void {
    const known = this.#facts.get(instance);
    if (known === undefined) return;
    const { refused, ...answered } = known;
    if (code === undefined || !refusals.includes(code)) {
      if (refused !== undefined) this.#facts.set(instance, answered);
      return;
    }
    const { since, times } = refused ?? { since: now, times: 0 };
    this.#facts.set(instance, { ...answered, refused: { since, times: times + 1 } });
    this.#o.onAnswer();
  }

  /** Whoever has just refused for the first time is asked again soon, for a while. */
  #everyMs(peer: PeerAddress): number {
    const times = this.#facts.get(peer.instance)?.refused?.times ?? 0;
    return times > 0 && times <= askAgainTimes ? Math.min(pollMs, peer.everyMs) : peer.everyMs;
  }

  #connection(peer: PeerAddress): { at: number; busy: boolean; agent: HttpsAgent; key: string } {
    const { cert, key, ca } = this.#o.certificates();
    const identity = `${peer.address} ${cert.toString('base64').slice(0, 200)} ${ca.length}`;
    const known = this.#asked.get(peer.instance);
    if (known?.key === identity) return known;
    known?.agent.destroy();
    const agent = new HttpsAgent({ keepAlive: true, maxSockets: 3, cert, key, ca, servername: peer.host });
    const entry = { at: Number.NEGATIVE_INFINITY, busy: false, agent, key: identity };
    this.#asked.set(peer.instance, entry);
    return entry;
  }

  #send(
    peer: PeerAddress,
    method: 'GET' | 'POST',
    path: string,
    body?: string,
    timeoutMs = this.#o.timeoutMs,
  ): Promise<string> {
    const { agent } = this.#connection(peer);
    return new Promise((resolve, reject) => {
      const call = request(
        {
          agent,
          host: peer.address,
          port: this.#o.port,
          method,
          path,
          servername: peer.host,
          headers: { host: peer.host },
        },
        (response) => {
          let text = '';
          response.setEncoding('utf8');
          response.on('data', (chunk: string) => {
            text += chunk;
          });
          response.on('end', () => {
            clearTimeout(timer);
            if (response.statusCode === 200) resolve(text);
            else reject(new Error(`${peer.instance} answered ${response.statusCode}`));
          });
          response.on('error', reject);
        },
      );
      // A frozen peer keeps its connection: give up on both.
      const timer = setTimeout(
        () => call.destroy(new Error(`${peer.instance} did not answer in time`)),
        timeoutMs,
      );
      call.on('error', (error) => {
        clearTimeout(timer);
        reject(error);
      });
      call.end(body);
    });
  }
}
