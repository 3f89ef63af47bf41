import type { Socket } from 'node:net';
import { type PeerCertificate, TLSSocket } from 'node:tls';
import { certificateIdentities } from '../domain/certificate.js';

/**
 * Reads the certificate of a peer once per connection: Node takes 100 µs for it.
 * Fields that are never used are dropped, because a server has many connections.
 */
export function rememberPeer(socket: TLSSocket): void {
  const { pubkey, modulus, exponent, ...peer } = socket.getPeerCertificate() ?? {};
  const remembered = Object.freeze(peer) as PeerCertificate;
  socket.getPeerCertificate = (() => remembered) as TLSSocket['getPeerCertificate'];
}

/** The certificate of the peer, if a configured authority has signed it; the same object for the whole connection. */
export function verifiedPeer(socket: Socket): PeerCertificate | undefined {
  if (!(socket instanceof TLSSocket) || !socket.authorized) return undefined;
  // A resumed session counts as authorized even if it had no certificate.
  const peer = socket.getPeerCertificate();
  return peer?.raw ? peer : undefined;
}

const identitiesByPeer = new WeakMap<PeerCertificate, readonly string[]>();
const NO_IDENTITIES: readonly string[] = [];

/** The identities in the verified certificate of the peer; cached after the first call of a connection. */
export function peerIdentities(socket: Socket): readonly string[] {
  const peer = verifiedPeer(socket);
  if (!peer) return NO_IDENTITIES;
  const identities = identitiesByPeer.get(peer) ?? certificateIdentities(peer);
  identitiesByPeer.set(peer, identities);
  return identities;
}
