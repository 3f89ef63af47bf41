import { onAbort } from '../../abort.js';
import type { ConnectionResponses } from '../../net/unread_responses.js';

/** The credentials of a caller. */
export interface Credentials {
  /** The `authorization` header; repeated headers are joined, which makes them invalid. */
  readonly authorization?: string | undefined;
  /** The identities in the verified client certificate, in order of preference. */
  readonly identities?: readonly string[] | undefined;
}

/** What a transport provides for a call. */
export interface CallTransport {
  readonly cancelled: boolean;
  getDeadline(): Date | number;
  /** The headers; undefined for a transport without retries. */
  readonly metadata?: { get(name: string): readonly (string | Buffer)[] };
  /** Counts the responses that the peer has not read; undefined for a transport that counts them itself. */
  readonly connection?: ConnectionResponses | undefined;
  readonly credentials: Credentials;
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
    credentials,
    on: (_, listener) => onAbort(signal, listener),
  };
}
