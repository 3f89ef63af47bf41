import { Server, ServerCredentials } from '@grpc/grpc-js';
import { BaseServerInterceptingCall } from '@grpc/grpc-js/build/src/server-interceptors.js';
import { afterEach, describe, expect, it, onTestFinished } from 'vitest';
import type { Api } from '../../src/api/api.js';
import { RequestGuard } from '../../src/grpc/request_guard.js';

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
