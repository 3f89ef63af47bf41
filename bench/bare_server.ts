import { readFileSync } from 'node:fs';
import { Server, ServerCredentials } from '@grpc/grpc-js';
import { serverOptions } from '../src/grpc/server.js';

/*
 * The reference for reads: the fastest possible grpc-js server. Its only handler returns one constant, already encoded
 * response and does not decode the request. It has the same server options as the service, and uses
 * TLS if TLS_CERT_FILE and TLS_KEY_FILE are set.
 */

const { BARE_PATH = '', BARE_REPLY = '', TLS_CERT_FILE, TLS_KEY_FILE } = process.env;
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
function credentials(): ServerCredentials {
  if (TLS_CERT_FILE === undefined || TLS_KEY_FILE === undefined) return ServerCredentials.createInsecure();
  const pair = { cert_chain: readFileSync(TLS_CERT_FILE), private_key: readFileSync(TLS_KEY_FILE) };
  return ServerCredentials.createSsl(null, [pair]);
}

server.bindAsync('127.0.0.1:0', credentials(), (error, port) => {
  if (error) throw error;
  process.on('disconnect', () => process.exit());
  console.log(`listening on ${port}`);
});
