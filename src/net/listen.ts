import { lookup } from 'node:dns/promises';
import { type AddressInfo, createServer, isIP, type Server, type Socket } from 'node:net';
import { createServer as createTlsServer } from 'node:tls';
import type { Address } from '../config.js';
import { StartError } from '../errors.js';
import { limits } from '../limits.js';
import type { ServerTls } from './tls.js';

/** Takes connections and hands them on. */
export interface Listener {
  readonly port: number;
  /** Takes no more connections. */
  stop(): void;
  /** Ends those that are left, half-made ones too. */
  destroy(): void;
}

/**
 * Takes connections for the gRPC server. It would listen by itself, but then nothing limits their number, and nothing
 * says which TLS they speak.
 */
export async function listen(
  address: Address,
  tls: ServerTls | undefined,
  onConnection: (socket: Socket) => void,
): Promise<Listener> {
  const open: OpenSockets[] = [];
  const servers: Server[] = [];
  const failures: Error[] = [];
  let { port } = address;
  for (const host of await hostsOf(address)) {
    const server = serverOf(tls, onConnection);
    open.push(openSockets(server));
    const failure = await started(server, port, host);
    if (failure) failures.push(failure);
    else servers.push(server);
    // A name of several addresses has one port.
    if (!failure) port = (server.address() as AddressInfo).port;
  }
  if (servers.length === 0)
    throw new StartError(`GRPC_ADDRESS ${address.text} cannot be listened on: ${failures[0]?.message}`);
  return {
    port,
    stop: () => servers.forEach((server) => void server.close()),
    destroy: () => open.forEach((sockets) => void sockets.destroy()),
  };
}

/** The connections of a server, also those that have not agreed on TLS yet and that nothing else knows. */
export interface OpenSockets {
  destroy(): void;
}

export function openSockets(server: Server): OpenSockets {
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  return { destroy: () => sockets.forEach((socket) => void socket.destroy()) };
}

/** All addresses of a name: `localhost` has two. */
async function hostsOf({ host, text }: Address): Promise<readonly string[]> {
  if (isIP(host)) return [host];
  try {
    return [...new Set((await lookup(host, { all: true })).map(({ address }) => address))];
  } catch {
    throw new StartError(`GRPC_ADDRESS ${text} cannot be listened on: ${host} has no address`);
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
      // One connection that could not be taken, for want of file descriptors, is not the end of the process.
      server.off('error', resolve).on('error', () => {});
      resolve(undefined);
    });
  });
}
