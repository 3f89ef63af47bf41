import type { Socket } from 'node:net';
import { type PeerCertificate, TLSSocket } from 'node:tls';
import { certificateIdentities } from '../domain/certificate.js';

/** A call of gRPC, as far as TLS goes: grpc-js gives a certificate only if it was verified. */
interface TlsCall {
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate | undefined };
}

/**
 * Reads the certificate of a peer, once for the connection: Node takes 100 µs for it, and grpc-js asks at each call.
 * What nobody asks for is not kept, because a server has many connections.
 */
export function rememberPeer(socket: TLSSocket): void {
  const { pubkey, modulus, exponent, ...peer } = socket.getPeerCertificate() ?? {};
  const remembered = Object.freeze(peer) as PeerCertificate;
  socket.getPeerCertificate = (() => remembered) as TLSSocket['getPeerCertificate'];
}

/** The certificate of who calls, if an authority of ours has signed it; the same object for a whole connection. */
export function verifiedPeer(from: TlsCall | Socket): PeerCertificate | undefined {
  if ('getAuthContext' in from) return from.getAuthContext().sslPeerCertificate;
  if (!(from instanceof TLSSocket) || !from.authorized) return undefined;
  // A session that is resumed counts as authorized also where there was no certificate.
  const peer = from.getPeerCertificate();
  return peer?.raw ? peer : undefined;
}

const read = new WeakMap<PeerCertificate, readonly string[]>();
const NOBODY: readonly string[] = [];

/** Who calls, by the names in a verified certificate; free of cost but for the first call of a connection. */
export function peerIdentities(from: TlsCall | Socket): readonly string[] {
  const peer = verifiedPeer(from);
  if (!peer) return NOBODY;
  const known = read.get(peer) ?? certificateIdentities(peer);
  read.set(peer, known);
  return known;
}
