import { Client, type ClientReadableStream, credentials } from '@grpc/grpc-js';
import { serveJobs } from './script.js';

/* A process with many streams on separate connections. It counts the messages with changes without decoding them. */

export type StreamJob =
  | {
      readonly kind: 'open';
      readonly port: number;
      readonly path: string;
      readonly request: string;
      readonly streams: number;
    }
  | { readonly kind: 'count'; readonly each: number }
  | { readonly kind: 'close' };

export interface Counted {
  /** When the last stream had received all messages, in ms since 1970. */
  readonly at: number;
}

/** The first byte of a WatchConfigs message with `changes`. Bookmarks begin with another byte. */
const CHANGES = (6 << 3) | 2;
const identity = (bytes: Buffer) => bytes;

let clients: Client[] = [];
const streams: ClientReadableStream<Buffer>[] = [];
let remaining = 0;
let onComplete = () => {};

serveJobs(async (job: StreamJob) => {
  if (job.kind === 'open') return await open(job);
  if (job.kind === 'count') return await count(job.each);
  for (const stream of streams.splice(0)) stream.cancel();
  for (const client of clients.splice(0)) client.close();
  return {};
});

async function open({ port, path, request, streams: number }: StreamJob & { kind: 'open' }): Promise<object> {
  const body = Buffer.from(request, 'base64');
  clients = Array.from(
    { length: number },
    () => new Client(`127.0.0.1:${port}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 }),
  );
  const opened = clients.map((client) => {
    const stream = client.makeServerStreamRequest(path, identity, identity, body);
    streams.push(stream);
    return new Promise<void>((resolve, reject) => {
      stream.once('data', () => resolve());
      stream.on('error', reject);
      stream.on('data', (message: Buffer) => {
        if (message[0] === CHANGES && --remaining === 0) onComplete();
      });
    });
  });
  await Promise.all(opened);
  return {};
}

/** Resolves when every stream has received `each` more messages. */
function count(each: number): Promise<Counted> {
  remaining = each * streams.length;
  return new Promise((resolve) => {
    onComplete = () => resolve({ at: performance.timeOrigin + performance.now() });
  });
}
