import { Server, ServerCredentials } from '@grpc/grpc-js';
import { serverOptions } from '../src/grpc/server.js';

/*
 * The reference for reads: the fastest possible grpc-js server. Its only handler returns one constant, already encoded
 * response and does not decode the request. It has the same server options as the service.
 */

const { BARE_PATH = '', BARE_REPLY = '' } = process.env;
const reply = Buffer.from(BARE_REPLY, 'base64');
const identity = (bytes: Buffer) => bytes;
const method = {
  path: BARE_PATH,
  requestStream: false,
  responseStream: false,
  requestSerialize: identity,
  requestDeserialize: identity,
  responseSerialize: identity,
  responseDeserialize: identity,
} as const;

const server = new Server(serverOptions);
server.addService(
  { method },
  { method: (_call: unknown, callback: (error: null, reply: Buffer) => void) => callback(null, reply) },
);
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.on('disconnect', () => process.exit());
  console.log(`listening on ${port}`);
});
