import { Server, ServerCredentials, type ServerWritableStream } from '@grpc/grpc-js';
import { serverOptions } from '../src/grpc/server.js';

/*
 * The reference for watches: the fastest possible fan-out of grpc-js. Every stream receives the same encoded buffer, as
 * many times as the benchmark requests, and waits when its buffer is full (backpressure). The server has the same
 * options as the service.
 */

const { BARE_PATH = '', BARE_MESSAGE = '' } = process.env;
const message = Buffer.from(BARE_MESSAGE, 'base64');
const identity = (bytes: Buffer) => bytes;
const method = {
  path: BARE_PATH,
  requestStream: false,
  responseStream: true,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
} as const;
type Stream = ServerWritableStream<Buffer, Buffer>;
const streams = new Set<Stream>();

function open(stream: Stream): void {
  streams.add(stream);
  stream.on('cancelled', () => streams.delete(stream));
  stream.write(message);
}

function send(stream: Stream, times: number): void {
  for (let remaining = times; remaining > 0; remaining--)
    if (!stream.write(message)) {
      stream.once('drain', () => send(stream, remaining - 1));
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
