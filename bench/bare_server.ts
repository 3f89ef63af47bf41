import { Server, ServerCredentials } from '@grpc/grpc-js';
import { serverOptions } from '../src/grpc/server.js';

/*
 * The fastest server that grpc-js can be: a process with one handler that returns
 * one constant reply, encoded already, and looks at no request. It has the
 * service's options, so that it has no handicap and no head start.
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

const server = new Server(serverOptions);
server.addService(
  { method },
  { method: (_call: unknown, done: (error: null, reply: Buffer) => void) => done(null, reply) },
);
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  process.on('disconnect', () => process.exit());
  console.log(`listening on ${port}`);
});
