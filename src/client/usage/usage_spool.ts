import type { AgentLLMError } from '../error.js';

/** What has become of the attempts of this client. */
export interface UsageStats {
  /** Attempts of the model calls of this client. */
  readonly recorded: number;
  /** Attempts that the service has stored, now or before, including those of processes that have ended. */
  readonly acknowledged: number;
  /** Attempts that the service has rejected. */
  readonly rejected: number;
  /** Attempts that were dropped, because the spool had no room. */
  readonly dropped: number;
  /** Attempts in memory that the service has not acknowledged. */
  readonly inMemory: number;
  /** Attempts that would be lost if the process ended now. */
  readonly unkept: number;
  /** Bytes on disk. */
  readonly diskBytes: number;
  /** Why the service does not accept attempts at present. */
  readonly error: AgentLLMError | undefined;
}

/** The usage that a client records. */
export interface UsageSpool {
  stats(): UsageStats;
  /** Resolves with whether all attempts so far are kept: on disk, or acknowledged by the service. */
  sync(): Promise<boolean>;
  /**
   * Sends all attempts now. Resolves with whether the service has acknowledged all of them within `ms`. Default: `closeMs`.
   */
  flush(ms?: number): Promise<boolean>;
}

/** In place of a recorder when usage is not recorded. */
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
