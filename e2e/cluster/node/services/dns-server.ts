import { createSocket } from 'node:dgram';
import { getServers } from 'node:dns';
import { createServer } from 'node:net';
import * as packet from 'dns-packet';
import { type Answer, answer, type Zone } from './dns.ts';

const port = 53;

/** Milliseconds after which an outside name server is given up. */
const patience = 2_000;

/**
 * Serves the cluster's names over UDP and TCP at `address`, port 53. Other names are asked of the name server that
 * this machine uses. Until `zone` returns something every question about the cluster is answered SERVFAIL.
 */
export function serveDns(address: string, zone: () => Zone | undefined): void {
  const udp = createSocket('udp4', async (query, from) => {
    const response = await respond(query, zone, false);
    if (response !== undefined) udp.send(response, from.port, from.address);
  });
  udp.on('error', (error) => {
    throw error;
  });
  udp.bind(port, address);

  createServer((socket) => {
    socket.setTimeout(10_000, () => socket.destroy());
    socket.on('error', () => socket.destroy());
    let received = Buffer.alloc(0);
    socket.on('data', async (part) => {
      received = Buffer.concat([received, part]);
      while (received.length >= 2 && received.length >= 2 + received.readUInt16BE(0)) {
        const end = 2 + received.readUInt16BE(0);
        const query = received.subarray(2, end);
        received = received.subarray(end);
        const response = await respond(query, zone, true);
        if (response === undefined) continue;
        const length = Buffer.alloc(2);
        length.writeUInt16BE(response.length);
        socket.write(Buffer.concat([length, response]));
      }
    });
  }).listen(port, address);
}

async function respond(
  query: Buffer,
  zone: () => Zone | undefined,
  overTcp: boolean,
): Promise<Buffer | undefined> {
  let decoded: packet.DecodedPacket;
  try {
    decoded = packet.decode(query);
  } catch {
    return undefined;
  }
  const question = decoded.questions?.[0];
  if (question === undefined || decoded.type !== 'query') return undefined;
  const records = zone();
  const result: Answer = answer(records ?? new Map(), question);
  if (result.found === 'not ours') return forward(query, decoded);
  if (records === undefined) return encode(decoded, [], 'SERVFAIL');
  const response = encode(decoded, result.records, result.found === 'yes' ? 'NOERROR' : 'NXDOMAIN');
  const option = decoded.additionals?.find((additional) => additional.type === 'OPT');
  const limit = overTcp ? 65_535 : Math.max(512, option?.type === 'OPT' ? option.udpPayloadSize : 0);
  return response.length <= limit ? response : encode(decoded, [], 'NOERROR', packet.TRUNCATED_RESPONSE);
}

const responseCodes = { NOERROR: 0, SERVFAIL: 2, NXDOMAIN: 3 };

function encode(
  query: packet.DecodedPacket,
  answers: Answer['records'],
  code: keyof typeof responseCodes,
  flags = 0,
): Buffer {
  return packet.encode({
    type: 'response',
    id: query.id ?? 0,
    flags:
      flags |
      responseCodes[code] |
      packet.AUTHORITATIVE_ANSWER |
      packet.RECURSION_AVAILABLE |
      ((query.flags ?? 0) & packet.RECURSION_DESIRED),
    questions: query.questions ?? [],
    answers: [...answers],
  });
}

async function forward(query: Buffer, decoded: packet.DecodedPacket): Promise<Buffer> {
  const [server] = getServers().filter((each) => /^[\d.]+$/.test(each));
  if (server === undefined) return encode(decoded, [], 'SERVFAIL');
  const socket = createSocket('udp4');
  try {
    return await new Promise<Buffer>((resolve, reject) => {
      socket.on('message', resolve).on('error', reject);
      setTimeout(() => reject(new Error(`${server} did not answer`)), patience).unref();
      socket.send(query, port, server);
    });
  } catch {
    return encode(decoded, [], 'SERVFAIL');
  } finally {
    socket.close();
  }
}
