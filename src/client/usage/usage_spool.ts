import type { AgentLLMError } from '../error.js';

/** The numbers of attempts of this client. */
export interface UsageStats {
  /** Attempts of the model calls of this client. */
  readonly recorded: number;
  /** Attempts that the service has stored, including attempts of ended processes that this client has sent. */
  readonly acknowledged: number;
  /** Attempts that the service has rejected. */
  readonly rejected: number;
  /** Attempts that were dropped because the spool was full. */
  readonly dropped: number;
  /** Attempts in memory that the service has not acknowledged. */
  readonly inMemory: number;
  /** Attempts that would be lost if the process ended now. */
  readonly unkept: number;
  /** Bytes on disk. */
  readonly diskBytes: number;
  /** The reason why the service currently accepts no attempts; undefined if it does. */
  readonly error: AgentLLMError | undefined;
}

/** The spool of a client: the attempts that the service has not yet acknowledged. */
export interface UsageSpool {
  stats(): UsageStats;
  /** Resolves with true if all attempts so far are on disk or acknowledged by the service. */
  sync(): Promise<boolean>;
  /**
   * Sends all attempts now. Resolves with true if the service acknowledges all of them within `ms`. Default: `closeMs`.
   */
  flush(ms?: number): Promise<boolean>;
}

/** The spool of a client that does not record usage. */
export const NO_USAGE: UsageSpool = {
  stats: () => ({
    recorded: 0,
    acknowledged: 0,
    rejected: 0,
    dropped: 0,
    inMemory: 0,
    unkept: 0,
    diskBytes: 0,
    error: undefined,
  }),
  sync: async () => true,
  flush: async () => true,
};
