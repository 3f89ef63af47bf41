import type { PeerCertificate } from 'node:tls';
import { onAbort } from '../../abort.js';
import { peerIdentities } from '../../net/peer_identity.js';

/** What a caller shows to say who it is. */
export interface Credentials {
  /** The header of that name; several are as good as a wrong one. */
  readonly authorization?: string | undefined;
  /** What the client certificate that was verified says it is, the best first. */
  readonly identities?: readonly string[] | undefined;
}

/**
 * What the transport knows of a call that it brings: grpc-js's own call object
 * is one, so that a gRPC call costs no other.
 */
export interface CallTransport {
  readonly cancelled: boolean;
  getDeadline(): Date | number;
  /** The headers; a transport that retries nothing has none to say so. */
  readonly metadata?: { get(name: string): readonly (string | Buffer)[] };
  /** The address of the other end; a transport that counts its responses itself has none. */
  getPeer?(): string;
  /** What TLS says of the other end. */
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate | undefined };
  /** Of a transport that has other headers. */
  readonly credentials?: Credentials;
  on(event: 'cancelled', listener: () => void): unknown;
}

export interface InvokeOptions {
  /** Aborts when the caller is gone. */
  readonly signal?: AbortSignal;
  /** How long the caller waits; at most `limits.maxCallMs` counts. */
  readonly deadlineMs?: number;
  /** Who the caller is. */
  readonly credentials?: Credentials;
}

/** The origin of a call that did not come over gRPC. */
export function transportOf({ signal, deadlineMs, credentials = {} }: InvokeOptions): CallTransport {
  const deadline = deadlineMs === undefined ? Number.POSITIVE_INFINITY : Date.now() + deadlineMs;
  return {
    get cancelled() {
      return signal?.aborted ?? false;
    },
    getDeadline: () => deadline,
    getAuthContext: () => ({}),
    credentials,
    on: (_, listener) => onAbort(signal, listener),
  };
}

/** What the caller of a call shows. */
export function credentialsOf(origin: Pick<CallTransport, 'credentials' | 'metadata' | 'getAuthContext'>): Credentials {
  if (origin.credentials) return origin.credentials;
  const given = origin.metadata?.get('authorization') ?? [];
  return given.length > 0 ? { authorization: given.join(', ') } : { identities: peerIdentities(origin) };
}
