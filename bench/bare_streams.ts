import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { serverOptions } from '../src/grpc/server.js';

/*
 * The fastest fan-out that grpc-js can be: every stream gets one and the same buffer, encoded already, as often as the
 * bench says, and no stream is written to before it has taken what it got. It has the service's options.
 */

const { BARE_PATH = '', BARE_MESSAGE = '' } = process.env;
const message = Buffer.from(BARE_MESSAGE, 'base64');
const same = (bytes: Buffer) => bytes;
const method = {
  path: BARE_PATH,
  requestStream: false,
  responseStream: true,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
} as const;
type Stream = ServerWritableStream<Buffer, Buffer>;
const streams = new Set<Stream>();

function open(stream: Stream): void {
  streams.add(stream);
  stream.on('cancelled', () => streams.delete(stream));
  stream.write(message);
}

function send(stream: Stream, times: number): void {
  for (let left = times; left > 0; left--)
    if (!stream.write(message)) {
      stream.once('drain', () => send(stream, left - 1));
      return;
    }
}

const server = new Server(serverOptions);
server.addService({ method }, { method: open });
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.on('disconnect', () => process.exit());
  process.on('message', ({ times }: { times: number }) => {
    for (const stream of streams) send(stream, times);
  });
  console.log(`listening on ${port}`);
});
