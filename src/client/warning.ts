/** Something that does not keep the client from its work, but that somebody should know of. */
export interface ClientWarning {
  /**
   * The file of the cache was not used, or could not be written; leased keys that are used end soon and could not be
   * renewed; or a listener has failed.
   */
  readonly kind: 'CACHE_IGNORED' | 'CACHE_NOT_WRITTEN' | 'LEASE_NOT_RENEWED' | 'LISTENER_FAILED';
  /** One sentence for people. */
  readonly message: string;
  /** What was thrown. */
  readonly cause: unknown;
  readonly at: Date;
}

export type Warn = (kind: ClientWarning['kind'], message: string, cause: unknown) => void;
