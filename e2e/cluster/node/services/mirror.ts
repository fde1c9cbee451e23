import { readFileSync } from 'node:fs';
import type { IncomingMessage } from 'node:http';
import { Agent, request } from 'node:https';

/** The part of every Kubernetes object that a mirror needs. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly labels?: Readonly<Record<string, string>>;
  };
}

/** Seconds after which the API server ends a watch; a broken connection is noticed at the latest 5 s later. */
const watchSeconds = 20;

/** An answer of the API server other than 2xx. */
export class ApiError extends Error {
  readonly status: number;
  constructor(what: string, status: number, body: string) {
    super(`${what} was answered ${status}: ${body.slice(0, 300)}`);
    this.name = 'ApiError';
    this.status = status;
  }
}

/** The Kubernetes API by client certificate. */
export class Api {
  readonly #server: string;
  readonly #agent: Agent;

  /** @param folder holds `ca.crt`, `node-services.crt` and `node-services.key` */
  constructor(server: string, folder: string) {
    this.#server = server;
    this.#agent = new Agent({
      keepAlive: true,
      ca: readFileSync(`${folder}/ca.crt`),
      cert: readFileSync(`${folder}/node-services.crt`),
      key: readFileSync(`${folder}/node-services.key`),
    });
  }

  /**
   * @param silence milliseconds without a byte after which the request fails
   * @throws {ApiError} unless the answer is 2xx
   */
  async open(method: string, path: string, body?: unknown, silence = 5_000): Promise<IncomingMessage> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const contentType = method === 'PATCH' ? 'application/merge-patch+json' : 'application/json';
      const sent = request(
        `${this.#server}${path}`,
        { method, agent: this.#agent, headers: { 'content-type': contentType }, timeout: silence },
        resolve,
      );
      sent.on('timeout', () => sent.destroy(new Error(`No answer to ${method} ${path} for ${silence} ms`)));
      sent.on('error', reject);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
    response.setEncoding('utf8');
    const status = response.statusCode ?? 0;
    if (status < 200 || status > 299) throw new ApiError(`${method} ${path}`, status, await textOf(response));
    return response;
  }

  /** @throws {ApiError} unless the answer is 2xx */
  async call<Answer>(method: string, path: string, body?: unknown): Promise<Answer> {
    return JSON.parse(await textOf(await this.open(method, path, body))) as Answer;
  }
}

async function textOf(stream: IncomingMessage): Promise<string> {
  let text = '';
  for await (const part of stream) text += part;
  return text;
}

/**
 * A copy of one collection, kept up to date by a watch for as long as the process lives. When the API server is
 * away, the last known state remains.
 */
export class Mirror<Item extends KubeObject> {
  readonly #api: Api;
  readonly #path: string;
  readonly #changed: () => void;
  #items = new Map<string, Item>();
  #synced = false;

  constructor(api: Api, path: string, changed: () => void) {
    this.#api = api;
    this.#path = path;
    this.#changed = changed;
    void this.#follow();
  }

  /** False until the first list has been read. */
  get synced(): boolean {
    return this.#synced;
  }

  items(): Item[] {
    return [...this.#items.values()];
  }

  async #follow(): Promise<never> {
    let version: string | undefined;
    for (;;) {
      try {
        version ??= await this.#list();
        version = await this.#watch(version);
      } catch (error) {
        console.log(`${this.#path}: ${String(error)}`);
        version = undefined;
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    }
  }

  async #list(): Promise<string> {
    const list = await this.#api.call<{ metadata: { resourceVersion: string }; items: Item[] }>(
      'GET',
      this.#path,
    );
    this.#items = new Map(list.items.map((item) => [item.metadata.uid, item]));
    this.#synced = true;
    this.#changed();
    return list.metadata.resourceVersion;
  }

  /** Returns the version to go on from when the server ends the watch. */
  async #watch(from: string): Promise<string> {
    let version = from;
    const query = `watch=true&allowWatchBookmarks=true&timeoutSeconds=${watchSeconds}&resourceVersion=${from}`;
    const stream = await this.#api.open(
      'GET',
      `${this.#path}?${query}`,
      undefined,
      (watchSeconds + 5) * 1000,
    );
    let rest = '';
    for await (const part of stream) {
      const lines = (rest + part).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) {
        const { type, object } = JSON.parse(line) as { type: string; object: Item };
        if (type === 'ERROR') throw new Error(`the watch ended: ${line.slice(0, 300)}`);
        version = object.metadata.resourceVersion;
        if (type === 'DELETED') this.#items.delete(object.metadata.uid);
        else if (type !== 'BOOKMARK') this.#items.set(object.metadata.uid, object);
      }
      this.#changed();
    }
    return version;
  }
}
