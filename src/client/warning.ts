/** A problem that does not stop the client, but that its operator should know. */
export interface ClientWarning {
  /**
   * - `CACHE_IGNORED`: the cache file was not used;
   * - `CACHE_NOT_WRITTEN`: the cache file could not be written;
   * - `LEASE_NOT_RENEWED`: leased keys in use expire soon and could not be renewed;
   * - `LISTENER_FAILED`: a listener threw or rejected.
   */
  readonly kind: 'CACHE_IGNORED' | 'CACHE_NOT_WRITTEN' | 'LEASE_NOT_RENEWED' | 'LISTENER_FAILED';
  /** One sentence, for a log. */
  readonly message: string;
  /** The error that was thrown. */
  readonly cause: unknown;
  readonly at: Date;
}

export type Warn = (kind: ClientWarning['kind'], message: string, cause: unknown) => void;
