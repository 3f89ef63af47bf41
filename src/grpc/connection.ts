import type { Http2Server, Http2Session } from 'node:http2';
import type { Socket } from 'node:net';
import type { Credentials } from '../api/dispatch/call_transport.js';
import { peerIdentities } from '../net/peer_identity.js';
import type { ConnectionResponses } from '../net/unread_responses.js';

/**
 * One HTTP/2 connection, with what the service needs to know of it for each call. grpc-js reads the address and the
 * certificate of the peer through a proxy of the socket, which took 5 % of the time of a read from memory.
 */
export class GrpcConnection {
  private last: Credentials | undefined;

  constructor(
    private readonly socket: Socket,
    readonly responses: ConnectionResponses,
  ) {}

  /**
   * The credentials of a call; the same object as for the previous call if its header is the same.
   * @param authorization the `authorization` header; several are joined.
   */
  credentials(authorization: string | undefined): Credentials {
    if (this.last && this.last.authorization === authorization) return this.last;
    this.last = authorization === undefined ? { identities: peerIdentities(this.socket) } : { authorization };
    return this.last;
  }
}

const connections = new WeakMap<Http2Session, GrpcConnection>();

/** The connection of an HTTP/2 session; undefined after the session has ended. */
export const connectionOf = (session: Http2Session | undefined): GrpcConnection | undefined =>
  session && connections.get(session);

/** The part of a call of grpc-js that has its HTTP/2 stream. */
interface CallOnStream {
  readonly call: { readonly stream: { readonly session?: Http2Session | undefined } };
}

/** The connection of a call of grpc-js, which has no public access to its HTTP/2 stream; its version is pinned. */
export const connectionOfCall = (call: object): GrpcConnection | undefined =>
  connectionOf((call as CallOnStream).call.stream.session);

/** Passes a new connection to an HTTP/2 server. */
export type Accept = (connection: GrpcConnection, inject: () => void) => void;

/**
 * Finds the sessions of new connections. A server creates the session while the socket is injected, and reports it with
 * an event that does not name the socket.
 */
export function sessionTracker(servers: readonly Http2Server[]): Accept {
  let accepted: GrpcConnection | undefined;
  const track = (session: Http2Session) => {
    if (accepted) connections.set(session, accepted);
    accepted = undefined;
  };
  for (const server of servers) server.prependListener('session', track);
  return (connection, inject) => {
    accepted = connection;
    inject();
    accepted = undefined;
  };
}
