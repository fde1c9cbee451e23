import { createServer, type Server } from 'node:http';
import type { Registry } from 'prom-client';

/** What is wrong, for people; undefined when nothing is. */
export type HealthCheck = () => string | undefined;

export interface HttpEndpointsOptions {
  readonly host?: string;
  /** 0 picks a free one. */
  readonly port: number;
  readonly registry: Registry;
  /** By name. A failing one means: restart this process. */
  readonly live: Readonly<Record<string, HealthCheck>>;
  /** By name. A failing one means: this process is not ready to take over work. */
  readonly ready: Readonly<Record<string, HealthCheck>>;
}

/** `/healthz`, `/readyz` (200 or 503 with the reasons) and `/metrics`, over plain HTTP. */
export class HttpEndpoints {
  readonly #options: HttpEndpointsOptions;
  #server: Server | undefined;

  constructor(options: HttpEndpointsOptions) {
    this.#options = options;
  }

  /** The port it listens on; 0 before `start`. */
  get port(): number {
    const address = this.#server?.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  /** Resolves when it listens. */
  async start(): Promise<void> {
    const { host = '0.0.0.0', port } = this.#options;
    const server = createServer((request, response) => {
      void this.#answer(request.url ?? '/').then(({ status, type, body }) => {
        response.writeHead(status, { 'content-type': type }).end(body);
      });
    });
    server.requestTimeout = 10_000;
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(port, host, resolve);
    });
    this.#server = server;
  }

  async stop(): Promise<void> {
    const server = this.#server;
    if (server === undefined) return;
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }

  async #answer(url: string): Promise<{ status: number; type: string; body: string }> {
    const { registry, live, ready } = this.#options;
    switch (url.split('?')[0]) {
      case '/healthz':
        return report(live);
      case '/readyz':
        return report(ready);
      case '/metrics':
        try {
          return { status: 200, type: registry.contentType, body: await registry.metrics() };
        } catch (error) {
          return { status: 500, type: 'text/plain', body: `${String(error)}\n` };
        }
      default:
        return { status: 404, type: 'text/plain', body: 'not found\n' };
    }
  }
}

function report(checks: Readonly<Record<string, HealthCheck>>): {
  status: number;
  type: string;
  body: string;
} {
  const failing = Object.entries(checks).flatMap(([name, check]) => {
    const reason = check();
    return reason === undefined ? [] : [`${name}: ${reason}`];
  });
  const body = failing.length === 0 ? 'ok\n' : `${failing.join('\n')}\n`;
  return { status: failing.length === 0 ? 200 : 503, type: 'text/plain', body };
}
