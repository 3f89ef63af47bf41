/**
 * The messages between the main thread and the engine's worker. The worker executes one request at a time. Each request
 * has one final response.
 */

export interface WorkerSettings {
  /** undefined: the database is in memory. */
  directory?: { cluster: string; unfinished: string };
  /** A tarball from `dump`, from which a new database is created. */
  loadDump?: Uint8Array<ArrayBuffer>;
}

export type Request =
  /** Protocol bytes of the client: complete messages, up to one that the backend responds to. */
  | { kind: 'exchange'; bytes: Uint8Array<ArrayBuffer> }
  /** The client has disconnected: reset the session for the next one. */
  | { kind: 'reset' }
  | { kind: 'dump' }
  /** Vacuum and analyze a table, whose name is quoted where necessary. */
  | { kind: 'vacuum'; table: string }
  | { kind: 'close' };

export type Response =
  | { kind: 'opened' }
  /** Part of the response to an exchange; more follows. */
  | { kind: 'output'; bytes: Uint8Array<ArrayBuffer> }
  | { kind: 'done'; bytes?: Uint8Array<ArrayBuffer> }
  /** The request failed; the engine continues. */
  | { kind: 'failed'; message: string }
  /** The engine crashed, and its later messages are invalid. Before `opened`: it could not open the database. */
  | { kind: 'crashed'; message: string; code?: string };
