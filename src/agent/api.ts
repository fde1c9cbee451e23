import { createServer, type Server } from 'node:https';
import type { TLSSocket } from 'node:tls';
import type { Certificates } from './certificates.ts';
import type { PeerAnswer } from './ha/index.ts';
import { decodeAnswer, encodeAnswer } from './peer-messages.ts';

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
      if (path === '/v1/announce' && request.method === 'POST') {
        let body = '';
        request.setEncoding('utf8');
        request.on('data', (chunk: string) => {
          body += chunk;
          if (body.length > 65_536) request.destroy();
        });
        request.on('end', () => {
          try {
            source.heard(decodeAnswer(body));
            reply(200, '');
          } catch {
            reply(400, 'not an announcement\n');
          }
        });
        return;
      }
      reply(404, 'no such path\n');
    },
  );
  return server;
}
