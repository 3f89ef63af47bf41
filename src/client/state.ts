import type { AgentLLMError } from './error.js';

/**
 * How far a resident client can be trusted to hold what the store has:
 *
 * - `CONNECTING`: nothing is held yet, and the service has not answered;
 * - `READY`: the stream stands, and everything up to `revision` is held;
 * - `STALE`: the stream is broken, or the client was closed; what was held is served on;
 * - `FAILED`: the service refuses the token or the request, which only somebody else can mend. It is tried again every
 *   few seconds all the same, and what is held is served on.
 */
export type Status = 'CONNECTING' | 'READY' | 'STALE' | 'FAILED';

/** The state of a resident client. */
export interface ClientState {
  readonly status: Status;
  /** Since when it is so; of STALE, when what is held was known to be the newest for the last time. */
  readonly since: Date;
  /** The store revision that is held; 0n: none. */
  readonly revision: bigint;
  /** Why it is not READY, of the last attempt. */
  readonly error: AgentLLMError | undefined;
  /** The replica of the service that the stream is, or was, on; empty before the first. */
  readonly replica: string;
}
