import { lookup } from 'node:dns/promises';
import { type AddressInfo, createServer, isIP, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { Address } from '../config.js';
import { StartError } from '../errors.js';
import { limits } from '../limits.js';
import type { ServerTls } from './tls.js';

/** Servers that listen on all addresses of a host name, on one port. */
export interface Listener {
  readonly port: number;
  /** Stops accepting connections; resolves when all connections are closed. */
  stop(): Promise<void>;
  /** Closes all remaining connections, including those in the TLS handshake. */
  destroy(): void;
}

type Setting = 'GRPC_ADDRESS' | 'HTTP_ADDRESS';

/**
 * Listens on every address of a host name: a client may try any of them first.
 * @param setting the setting that has the address, for errors.
 * @param create creates a server for one of the addresses.
 */
export async function listenOnAll(setting: Setting, address: Address, create: () => Server): Promise<Listener> {
  const open: OpenSockets[] = [];
  const servers: Server[] = [];
  const failures: Error[] = [];
  let { port } = address;
  for (const host of await hostsOf(setting, address)) {
    const server = create();
    open.push(openSockets(server));
    const failure = await started(server, port, host);
    if (failure) failures.push(failure);
    else servers.push(server);
    // All addresses of a name use the same port.
    if (!failure) port = (server.address() as AddressInfo).port;
  }
  if (servers.length === 0)
    throw new StartError(`${setting} ${address.text} cannot be listened on: ${failures[0]?.message}`);
  return {
    port,
    async stop() {
      await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
    },
    destroy: () => open.forEach((sockets) => void sockets.destroy()),
  };
}

/**
 * Accepts connections for the gRPC server. grpc-js can listen itself, but then the number of connections has no limit
 * and the TLS options cannot be set.
 */
export const listen = (
  address: Address,
  tls: ServerTls | undefined,
  onConnection: (socket: Socket) => void,
): Promise<Listener> => listenOnAll('GRPC_ADDRESS', address, () => serverOf(tls, onConnection));

/** The open connections of a server, including those in the TLS handshake, which the server does not report. */
interface OpenSockets {
  destroy(): void;
}

function openSockets(server: Server): OpenSockets {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return { destroy: () => sockets.forEach((socket) => void socket.destroy()) };
}

/** All addresses of a host name; `localhost` has two. */
async function hostsOf(setting: Setting, { host, text }: Address): Promise<readonly string[]> {
  if (isIP(host)) return [host];
  try {
    return [...new Set((await lookup(host, { all: true })).map(({ address }) => address))];
  } catch {
    throw new StartError(`${setting} ${text} cannot be listened on: ${host} has no address`);
  }
}

function serverOf(tls: ServerTls | undefined, onConnection: (socket: Socket) => void): Server {
  const server = tls
    ? createTlsServer({ ...tls.options, ALPNProtocols: ['h2'] }, onConnection)
    : createServer(onConnection);
  if (tls) tls.serve(server as ReturnType<typeof createTlsServer>);
  server.maxConnections = limits.maxConnections;
  return server;
}

function started(server: Server, port: number, host: string): Promise<Error | undefined> {
  return new Promise((resolve) => {
    server.once('error', resolve);
    server.listen(port, host, () => {
      // A connection that cannot be accepted, for lack of file descriptors, must not crash the process.
      server.off('error', resolve).on('error', () => {});
      resolve(undefined);
    });
  });
}
