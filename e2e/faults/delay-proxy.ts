import { connect, createServer, type Socket } from 'node:net';

/*
 * A TCP proxy that passes on everything some milliseconds later, in both directions and in order. Its only argument is
 * {"milliseconds": 200, "ways": [{"listen": 17000, "to": "10.244.1.7", "port": 2379}]}. Runs inside a node; imports
 * nothing but Node's own.
 */

interface Way {
  readonly listen: number;
  readonly to: string;
  readonly port: number;
}
const { milliseconds, ways } = JSON.parse(process.argv[2] ?? '') as {
  readonly milliseconds: number;
  readonly ways: readonly Way[];
};

/** Timers of one length fire in the order in which they were set, so the bytes stay in order. */
function pass(from: Socket, to: Socket): void {
  from.setNoDelay(true);
  from.on('data', (bytes) => setTimeout(() => to.writable && to.write(bytes), milliseconds));
  from.on('end', () => setTimeout(() => to.end(), milliseconds));
  from.on('close', () => setTimeout(() => to.destroy(), milliseconds));
  from.on('error', () => {});
}

const listening = ways.map(({ listen, to, port }) => {
  const server = createServer({ allowHalfOpen: true }, (client) => {
    const upstream = connect({ host: to, port, allowHalfOpen: true });
    pass(client, upstream);
    pass(upstream, client);
  });
  return new Promise<void>((resolve) => server.listen(listen, '0.0.0.0', resolve));
});
await Promise.all(listening);
process.stdout.write('ready\n');
