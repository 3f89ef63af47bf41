import type { AgentLLMError } from './error.js';

/**
 * The status of a resident client:
 *
 * - `CONNECTING`: no state is held, and the service has not responded yet;
 * - `READY`: the watch is open, and everything up to `revision` is held;
 * - `STALE`: the watch is interrupted, or the client is closed; the last known good state is served;
 * - `FAILED`: the service rejects the token or the request, which needs other credentials or options. The client retries
 *   every few seconds and serves the last known good state, if it has one.
 */
export type Status = 'CONNECTING' | 'READY' | 'STALE' | 'FAILED';

/** The state of a resident client. */
export interface ClientState {
  readonly status: Status;
  /** When the status began. For STALE: when the held state was last known to be current. */
  readonly since: Date;
  /** The store revision of the held state; 0n if none is held. */
  readonly revision: bigint;
  /** The failure of the last attempt; undefined while READY. */
  readonly error: AgentLLMError | undefined;
  /** The replica that serves the watch, or served the last one; empty before the first. */
  readonly replica: string;
}
