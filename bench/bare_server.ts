import { Server, ServerCredentials } from '@grpc/grpc-js';
import { limits } from '../src/limits.js';

/*
 * The fastest server that grpc-js can be: a process with one handler that returns
 * one constant reply, encoded already, and looks at no request. Its options are
 * those of src/rpc/server.ts, so that it has no handicap and no head start.
 */

const { BARE_PATH = '', BARE_REPLY = '' } = process.env;
const reply = Buffer.from(BARE_REPLY, 'base64');
const same = (bytes: Buffer) => bytes;
const method = {
  path: BARE_PATH,
  requestStream: false,
  responseStream: false,
  requestSerialize: same,
  requestDeserialize: same,
  responseSerialize: same,
  responseDeserialize: same,
} as const;

const server = new Server({
  'grpc.max_receive_message_length': limits.maxRequestBytes,
  'grpc.max_concurrent_streams': limits.maxStreamsPerConnection,
  'grpc.keepalive_time_ms': 30_000,
  'grpc.keepalive_timeout_ms': 10_000,
  'grpc.enable_channelz': 0,
});
server.addService(
  { method },
  { method: (_call: unknown, done: (error: null, reply: Buffer) => void) => done(null, reply) },
);
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.on('disconnect', () => process.exit());
  console.log(`listening on ${port}`);
});
