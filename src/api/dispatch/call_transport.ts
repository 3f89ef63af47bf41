import type { PeerCertificate } from 'node:tls';
import { onAbort } from '../../abort.js';
import { peerIdentities } from '../../net/peer_identity.js';

/** The credentials of a caller. */
export interface Credentials {
  /** The `authorization` header; repeated headers are joined, which makes them invalid. */
  readonly authorization?: string | undefined;
  /** The identities in the verified client certificate, in order of preference. */
  readonly identities?: readonly string[] | undefined;
}

/**
 * What a transport provides for a call. The call object of grpc-js implements this interface, so that a gRPC call needs
 * no additional object.
 */
export interface CallTransport {
  readonly cancelled: boolean;
  getDeadline(): Date | number;
  /** The headers; undefined for a transport without retries. */
  readonly metadata?: { get(name: string): readonly (string | Buffer)[] };
  /** The address of the peer; undefined for a transport that counts its unread responses itself. */
  getPeer?(): string;
  /** The verified certificate of the peer. */
  getAuthContext(): { readonly sslPeerCertificate?: PeerCertificate | undefined };
  /** The credentials, for a transport that does not have gRPC headers. */
  readonly credentials?: Credentials;
  on(event: 'cancelled', listener: () => void): unknown;
}

export interface InvokeOptions {
  /** Aborts when the caller disconnects. */
  readonly signal?: AbortSignal;
  /** The deadline of the call, in ms; at most `limits.maxCallMs`. */
  readonly deadlineMs?: number;
  /** The credentials of the caller. */
  readonly credentials?: Credentials;
}

/** The transport of a call that does not use gRPC. */
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

/** The credentials of the caller. */
export function credentialsOf(
  transport: Pick<CallTransport, 'credentials' | 'metadata' | 'getAuthContext'>,
): Credentials {
  if (transport.credentials) return transport.credentials;
  const headers = transport.metadata?.get('authorization') ?? [];
  return headers.length > 0 ? { authorization: headers.join(', ') } : { identities: peerIdentities(transport) };
}
