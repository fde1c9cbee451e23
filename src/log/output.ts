import type { DestinationStream } from 'pino';

/** What an output needs of a stream such as `process.stdout`. */
export interface Stream {
  /** Bytes that wait to be written. */
  readonly writableLength: number;
  write(text: string): boolean;
  on(event: 'error', listener: () => void): unknown;
}

/** How much may wait for a reader before lines are dropped, bytes: a busy moment fits, memory is not at risk. */
export const waitingBytes = 1024 * 1024;

/**
 * Lines of a log to a stream that may never be read. A write to a full pipe would stop the whole process, and with it
 * its heartbeats and its fence; Node keeps pipes and sockets from blocking, and here what waits in memory is bounded:
 * lines beyond it are dropped, and counted in a line as soon as there is room again.
 */
export function boundedOutput(stream: Stream, name: string): DestinationStream {
  let dropped = 0;
  // Whoever reads the log may go away; that must not end us.
  stream.on('error', () => undefined);
  return {
    write(line) {
      if (stream.writableLength + line.length > waitingBytes) {
        dropped += 1;
        return;
      }
      if (dropped > 0) {
        const time = new Date().toISOString();
        const msg = 'nobody read the log: lines of it were dropped';
        stream.write(`${JSON.stringify({ level: 'warn', time, name, dropped, msg })}\n`);
        dropped = 0;
      }
      stream.write(line);
    },
  };
}
