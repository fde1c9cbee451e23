import { createServer, type RequestListener, type ServerResponse } from 'node:http';
import { describe, expect, it, onTestFinished } from 'vitest';
import { KubeClient } from './client.ts';
import { ApiError, isGone, NoAnswerError, ProtocolError } from './errors.ts';
import { resources } from './resources.ts';

/** A client of a server that answers as the test says. */
async function clientOf(listener: RequestListener): Promise<KubeClient> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  const port = typeof address === 'object' && address !== null ? address.port : 0;
  const connection = { server: `http://127.0.0.1:${port}`, tls: {}, headers: { authorization: 'Bearer t' } };
  const client = new KubeClient({
    credentials: { namespace: 'default', connection: async () => connection },
    fieldManager: 'test',
    timeoutMs: 2_000,
  });
  onTestFinished(async () => {
    await client.close();
    server.closeAllConnections();
    server.close();
  });
  return client;
}

const answer = (response: ServerResponse, status: number, body: unknown, headers = {}): void =>
  void response.writeHead(status, headers).end(typeof body === 'string' ? body : JSON.stringify(body));
const caught = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );
const pod = (name: string, resourceVersion: string) => ({
  metadata: { namespace: 'ns', name, resourceVersion },
});

describe('an answer', () => {
  it('that is a Status becomes an error with its reason', async () => {
    const client = await clientOf((_, response) =>
      answer(
        response,
        429,
        { kind: 'Status', code: 429, reason: 'TooManyRequests', message: 'slow down' },
        { 'retry-after': '3' },
      ),
    );
    const error = await caught(client.raw('/apis'));
    expect(error).toMatchObject({ status: 429, reason: 'TooManyRequests', retryAfterMs: 3_000 });
    expect(String(error)).toContain('GET /apis: 429 slow down');
  });

  it('of something in between becomes an error with its text', async () => {
    const client = await clientOf((_, response) => answer(response, 502, '<html>Bad gateway</html>'));
    const error = await caught(client.raw('/apis'));
    expect(error).toBeInstanceOf(ApiError);
    expect(String(error)).toContain('502 <html>Bad gateway');
  });

  it('that is not what was asked for is an error, too', async () => {
    const client = await clientOf(({ url }, response) =>
      answer(response, 200, url === '/apis' ? 'hello' : { kind: 'Surprise' }),
    );
    expect(await caught(client.raw('/apis'))).toBeInstanceOf(ProtocolError);
    expect(await caught(client.get(resources.nodes, { name: 'n1' }))).toBeInstanceOf(ProtocolError);
    expect(await caught(client.list(resources.nodes))).toBeInstanceOf(ProtocolError);
  });

  it('that never ends is cut off at the deadline', async () => {
    const client = await clientOf((_, response) => void response.writeHead(200).write('{"kind":'));
    const error = await caught(client.raw('/apis', { timeoutMs: 100 }));
    expect(error).toBeInstanceOf(NoAnswerError);
    expect(error).toMatchObject({ timedOut: true });
  });
});

it('starts a list over when the server forgets it between two pages', async () => {
  const urls: string[] = [];
  const client = await clientOf(({ url = '' }, response) => {
    urls.push(url);
    if (urls.length === 2) return answer(response, 410, { kind: 'Status', code: 410, reason: 'Expired' });
    const last = url.includes('continue=');
    const metadata = { resourceVersion: String(urls.length), ...(last ? {} : { continue: 'token' }) };
    answer(response, 200, { metadata, items: [pod(last ? 'b' : 'a', '1')] });
  });
  const list = await client.list(resources.pods, { namespace: 'ns' });
  expect(list.items.map((item) => item.metadata.name)).toEqual(['a', 'b']);
  expect(urls).toHaveLength(4);
});

it('passes on what the caller wants to apply, and under which name', async () => {
  let seen = '';
  const client = await clientOf((request, response) => {
    seen = `${request.method} ${request.url} ${request.headers['content-type']}`;
    answer(response, 200, pod('a', '1'));
  });
  const object = { apiVersion: 'v1', kind: 'Pod', metadata: { namespace: 'ns', name: 'a' } };
  await client.apply(resources.pods, object, { force: true, dryRun: true });
  expect(seen).toBe(
    'PATCH /api/v1/namespaces/ns/pods/a?fieldManager=test&dryRun=All&force=true application/apply-patch+yaml',
  );
});

describe('a watch', () => {
  const events = async (listener: RequestListener, inactivityMs = 5_000): Promise<unknown[]> => {
    const client = await clientOf(listener);
    const seen: unknown[] = [];
    try {
      const { signal } = new AbortController();
      const options = { resourceVersion: '1', timeoutSeconds: 300, inactivityMs, signal };
      for await (const event of await client.watch(resources.pods, options)) seen.push(event);
      seen.push('end');
    } catch (error) {
      seen.push(error);
    }
    return seen;
  };
  const line = (type: string, object: unknown): string => `${JSON.stringify({ type, object })}\n`;

  it('gives events and bookmarks, wherever the text is cut into packets', async () => {
    const text =
      line('ADDED', pod('ä', '2')) +
      line('BOOKMARK', { kind: 'Pod', metadata: { resourceVersion: '9' } }) +
      line('DELETED', pod('ä', '10'));
    const seen = await events((request, response) => {
      expect(request.url).toContain('watch=true&allowWatchBookmarks=true&resourceVersion=1');
      response.writeHead(200);
      const bytes = Buffer.from(text);
      const send = (from: number): void => {
        if (from >= bytes.length) return void response.end();
        response.write(bytes.subarray(from, from + 7), () => setImmediate(send, from + 7));
      };
      send(0);
    });
    expect(seen).toEqual([
      { type: 'ADDED', object: { apiVersion: 'v1', kind: 'Pod', ...pod('ä', '2') } },
      { type: 'BOOKMARK', resourceVersion: '9' },
      { type: 'DELETED', object: { apiVersion: 'v1', kind: 'Pod', ...pod('ä', '10') } },
      'end',
    ]);
  });

  it('ends with the error that the server sends', async () => {
    const status = { kind: 'Status', code: 410, reason: 'Expired', message: 'too old' };
    const [error] = await events((_, response) => void response.end(line('ERROR', status)));
    expect(isGone(error)).toBe(true);
    const [other] = await events((_, response) => void response.end(line('ERROR', {})));
    expect(other).toMatchObject({ status: 500 });
  });

  it('never skips what it cannot read', async () => {
    const seen = await events(
      (_, response) => void response.end(`not json\n${line('ADDED', pod('a', '2'))}`),
    );
    expect(seen).toEqual([expect.any(ProtocolError)]);
    expect(await events((_, response) => void response.end(line('NEWS', pod('a', '2'))))).toEqual([
      expect.any(ProtocolError),
    ]);
  });

  it('that breaks within an event is an error, not an end', async () => {
    const seen = await events((_, response) => void response.end('{"type":"ADDED","obj'));
    expect(seen).toEqual([expect.any(NoAnswerError)]);
    const reset = await events((_, response) => {
      response.writeHead(200).write(line('ADDED', pod('a', '2')), () => response.destroy());
    });
    expect(reset.at(-1)).toBeInstanceOf(NoAnswerError);
  });

  it('ends when the server is silent for too long', async () => {
    const seen = await events(
      (_, response) => void response.writeHead(200).write(line('ADDED', pod('a', '2'))),
      500,
    );
    expect(seen.at(-1)).toBe('end');
  });

  it('is refused within the deadline when the server does not answer', async () => {
    const client = await clientOf(() => {});
    const { signal } = new AbortController();
    const options = { resourceVersion: '1', timeoutSeconds: 300, inactivityMs: 60_000, signal };
    expect(await caught(client.watch(resources.pods, options))).toMatchObject({ timedOut: true });
  });

  it('closes its connection when the caller stops reading and when the signal aborts', async () => {
    let open = 0;
    const client = await clientOf((request, response) => {
      open += 1;
      request.socket.once('close', () => {
        open -= 1;
      });
      response.writeHead(200).write(line('ADDED', pod('a', '2')));
    });
    const stop = new AbortController();
    const options = { resourceVersion: '1', timeoutSeconds: 300, inactivityMs: 60_000, signal: stop.signal };
    for await (const _ of await client.watch(resources.pods, options)) break;
    await expect.poll(() => open).toBe(0);
    const watch = await client.watch(resources.pods, options);
    const reason = new Error('stopping');
    const reading = caught(
      (async () => {
        for await (const _ of watch) stop.abort(reason);
      })(),
    );
    await reading;
    await expect.poll(() => open).toBe(0);
  });
});
