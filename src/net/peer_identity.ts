import type { Socket } from 'node:net';
import { type PeerCertificate, TLSSocket } from 'node:tls';
import { certificateIdentities } from '../domain/certificate.js';

/** The TLS part of a gRPC call: grpc-js provides a certificate only if it was verified. */
interface TlsCall {
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate | undefined };
}

/**
 * Reads the certificate of a peer once per connection: Node takes 100 µs for it, and grpc-js reads it for each call.
 * Fields that are never used are dropped, because a server has many connections.
 */
export function rememberPeer(socket: TLSSocket): void {
  const { pubkey, modulus, exponent, ...peer } = socket.getPeerCertificate() ?? {};
  const remembered = Object.freeze(peer) as PeerCertificate;
  socket.getPeerCertificate = (() => remembered) as TLSSocket['getPeerCertificate'];
}

/** The certificate of the peer, if a configured authority has signed it; the same object for the whole connection. */
export function verifiedPeer(from: TlsCall | Socket): PeerCertificate | undefined {
  if ('getAuthContext' in from) return from.getAuthContext().sslPeerCertificate;
  if (!(from instanceof TLSSocket) || !from.authorized) return undefined;
  // A resumed session counts as authorized even if it had no certificate.
  const peer = from.getPeerCertificate();
  return peer?.raw ? peer : undefined;
}

const identitiesByPeer = new WeakMap<PeerCertificate, readonly string[]>();
const NO_IDENTITIES: readonly string[] = [];

/** The identities in the verified certificate of the peer; cached after the first call of a connection. */
export function peerIdentities(from: TlsCall | Socket): readonly string[] {
  const peer = verifiedPeer(from);
  if (!peer) return NO_IDENTITIES;
  const identities = identitiesByPeer.get(peer) ?? certificateIdentities(peer);
  identitiesByPeer.set(peer, identities);
  return identities;
}
