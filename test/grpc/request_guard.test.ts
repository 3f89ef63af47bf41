import type { AddressInfo } from 'node:net';
import { createServer } from 'node:net';
import { gzipSync } from 'node:zlib';
import { type handleUnaryCall, Server, ServerCredentials } from '@grpc/grpc-js';
import { BaseServerInterceptingCall } from '@grpc/grpc-js/build/src/server-interceptors.js';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import type { Api } from '../../src/api/api.js';
import { RequestGuard } from '../../src/grpc/request_guard.js';
import { RequestBudget } from '../../src/net/request_budget.js';
import { frame, rawCall } from './http2_client.js';

/*
 * The guard depends on two private parts of grpc-js. When a new version renames one of them, the service must not start
 * without the limits that depend on it.
 */

const servers: Server[] = [];

afterEach(() => {
  for (const server of servers.splice(0)) server.forceShutdown();
});

function install(server: Server): void {
  const guard = new RequestGuard({} as Api, 'on');
  onTestFinished(() => guard.stop());
  guard.install(server);
}

function startedServer(): Server {
  const server = new Server();
  servers.push(server);
  server.createConnectionInjector(ServerCredentials.createInsecure());
  return server;
}

describe('RequestGuard.install', () => {
  it('accepts the pinned version of grpc-js', () => {
    expect(() => install(startedServer())).not.toThrow();
  });

  it('throws when grpc-js has no HTTP/2 servers where they are expected', () => {
    expect(() => install({} as Server)).toThrow(/stores its HTTP\/2 servers or its methods in another field/);
  });

  it('throws when grpc-js decompresses messages in another method', () => {
    const { prototype } = BaseServerInterceptingCall as unknown as { prototype: { decompressMessage?: unknown } };
    const { decompressMessage } = prototype;
    onTestFinished(() => void Object.assign(prototype, { decompressMessage }));
    Object.assign(prototype, { decompressMessage: undefined });
    expect(() => install(startedServer())).toThrow(/decompresses messages in another method/);
  });
});

describe('RequestGuard.interceptor', () => {
  const KIB = 1024;
  const identity = (bytes: Buffer) => bytes;
  const echo: handleUnaryCall<Buffer, Buffer> = (call, callback) => callback(null, call.request);
  const method = {
    path: '/echo.Service/Echo',
    requestStream: false,
    responseStream: false,
    requestSerialize: identity,
    requestDeserialize: identity,
    responseSerialize: identity,
    responseDeserialize: identity,
  };

  /** Starts a server that keeps at most 64 KiB of complete requests. */
  async function startEcho(): Promise<number> {
    const budget = { request: 1024 * KIB, connection: 1024 * KIB, unfinished: 1024 * KIB, inProgress: 64 * KIB };
    const requestBudget = new RequestBudget(budget);
    const guard = new RequestGuard({ requestBudget, anonymous: 'always' } as unknown as Api, 'on');
    const server = new Server({ interceptors: [guard.interceptor] });
    server.addService({ echo: method }, { echo });
    const injector = server.createConnectionInjector(ServerCredentials.createInsecure());
    guard.install(server);
    const listener = createServer((socket) => injector.injectConnection(socket));
    await new Promise<void>((resolve) => listener.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      listener.close();
      server.forceShutdown();
      guard.stop();
      requestBudget.stop();
    });
    return (listener.address() as AddressInfo).port;
  }

  const gzipped = (bytes: number) => ({
    path: method.path,
    headers: { 'grpc-encoding': 'gzip' },
    body: frame(gzipSync(Buffer.alloc(bytes)), { flag: 1 }),
  });

  it('rejects a request that is too large decompressed, with the details of the error', async () => {
    const port = await startEcho();
    expect((await rawCall(port, gzipped(32 * KIB))).result).toBe('grpc OK');
    const { result, message } = await rawCall(port, gzipped(65 * KIB));
    expect(result).toBe('grpc RESOURCE_EXHAUSTED TOO_MANY_REQUEST_BYTES');
    expect(message).toBe(
      'The service keeps at most 65536 bytes of requests in progress in memory; send less, or retry',
    );
  });
});
