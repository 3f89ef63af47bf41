/** A problem that does not stop the client, but that its operator should know. */
export interface ClientWarning {
  /**
   * - `CACHE_IGNORED`: the cache file was not used;
   * - `CACHE_NOT_WRITTEN`: the cache file could not be written;
   * - `LEASE_NOT_RENEWED`: leased keys in use expire soon and could not be renewed;
   * - `LISTENER_FAILED`: a listener threw or rejected;
   * - `USAGE_LOST`: attempts were dropped, and the service will not count them;
   * - `USAGE_NOT_RECORDED`: the service does not store the usage that this process reports;
   * - `USAGE_SPOOL_FAILED`: usage cannot be stored on disk.
   */
  readonly kind:
    | 'CACHE_IGNORED'
    | 'CACHE_NOT_WRITTEN'
    | 'LEASE_NOT_RENEWED'
    | 'LISTENER_FAILED'
    | 'USAGE_LOST'
    | 'USAGE_NOT_RECORDED'
    | 'USAGE_SPOOL_FAILED';
  /** One sentence, for a log. */
  readonly message: string;
  /** The error that was thrown. */
  readonly cause: unknown;
  readonly at: Date;
}

export type Warn = (kind: ClientWarning['kind'], message: string, cause: unknown) => void;

const MAX_WARNINGS = 20;

/** The last warnings of a client. */
export class Warnings {
  readonly latest: ClientWarning[] = [];

  constructor(private readonly emit: (warning: ClientWarning) => void) {}

  readonly add: Warn = (kind, message, cause) => {
    const warning = { kind, message, cause, at: new Date() };
    this.latest.push(warning);
    if (this.latest.length > MAX_WARNINGS) this.latest.shift();
    // Deferred, so that the caller of connect() can add a listener for a warning that occurs within it.
    setImmediate(() => this.emit(warning)).unref();
  };
}
