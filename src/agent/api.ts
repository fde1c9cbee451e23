import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { TLSSocket } from 'node:tls';
import type { Certificates } from './certificates.ts';
import type { PeerAnswer, PromiseAnswer, PromiseRequest } from './ha/index.ts';
import { decodeAnswer, decodePromiseRequest, encodeAnswer, encodePromiseAnswer } from './peer-messages.ts';

/** What the API asks of the agent. */
export interface ApiSource {
  /** Computed when asked, never remembered. */
  state(): PeerAnswer;
  /** The same, from a look at Postgres that began after the question was heard. */
  look(): Promise<PeerAnswer>;
  /** The process is alive and not stuck; says nothing about etcd, Kubernetes or leadership. */
  live(): { readonly ok: boolean; readonly why: string };
  ready(): { readonly ok: boolean; readonly why: string };
  status(): unknown;
  metrics(): Promise<string>;
  heard(answer: PeerAnswer): void;
  /** Computed when asked; a promise is remembered by who gives it. */
  promise(asked: PromiseRequest): PromiseAnswer;
}

/**
 * The agent's HTTPS API. `/livez`, `/readyz` and `/metrics` are open (the kubelet has no certificate); everything below
 * `/v1` needs a certificate of the cluster's own authority.
 */
export function createApi(source: ApiSource, certificates: Certificates): Server {
  const server = createServer(
    { ...certificates, requestCert: true, rejectUnauthorized: false, keepAliveTimeout: 60_000 },
    (request, response) => {
      const reply = (code: number, body: string, type = 'text/plain') => {
        response.writeHead(code, { 'content-type': type });
        response.end(body);
      };
      const path = request.url?.split('?')[0];
      if (path === '/livez' || path === '/readyz') {
        const { ok, why } = path === '/livez' ? source.live() : source.ready();
        return reply(ok ? 200 : 503, `${why}\n`);
      }
      if (path === '/metrics') {
        source.metrics().then(
          (text) => reply(200, text),
          () => reply(500, ''),
        );
        return;
      }
      if (!(request.socket as TLSSocket).authorized)
        return reply(403, "a certificate of the cluster's authority is needed\n");
      if (path === '/v1/state' && request.url?.endsWith('?look')) {
        source.look().then(
          (answer) => reply(200, encodeAnswer(answer), 'application/json'),
          () => reply(500, ''),
        );
        return;
      }
      if (path === '/v1/state') return reply(200, encodeAnswer(source.state()), 'application/json');
      if (path === '/v1/status') return reply(200, JSON.stringify(source.status()), 'application/json');
      if (path === '/v1/announce' && request.method === 'POST')
        return read(request, (body) => {
          const said = parsed(() => decodeAnswer(body));
          if (said === undefined) return reply(400, 'not an announcement\n');
          source.heard(said);
          reply(200, '');
        });
      if (path === '/v1/promise' && request.method === 'POST')
        return read(request, (body) => {
          const asked = parsed(() => decodePromiseRequest(body));
          if (asked === undefined) return reply(400, 'not a question for a promise\n');
          reply(200, encodePromiseAnswer(source.promise(asked)), 'application/json');
        });
      reply(404, 'no such path\n');
    },
  );
  return server;
}

/** The whole body, of a sane size. */
function read(request: IncomingMessage, use: (body: string) => void): void {
  let body = '';
  request.setEncoding('utf8');
  request.on('data', (chunk: string) => {
    body += chunk;
    if (body.length > 65_536) request.destroy();
  });
  request.on('end', () => use(body));
}

/** What was sent, or undefined if it cannot be understood. */
function parsed<T>(decode: () => T): T | undefined {
  try {
    return decode();
  } catch {
    return undefined;
  }
}
