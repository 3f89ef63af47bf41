/** What the main thread and the engine's worker say to each other. One request at a time; each has one final answer. */

export interface WorkerSettings {
  /** Absent: the database lives in memory. */
  directory?: { cluster: string; unfinished: string };
  /** The tarball of a data directory, made by `dump`, to start a new database from. */
  loadDump?: Uint8Array<ArrayBuffer>;
  fsync: boolean;
}

export type Request =
  /** Protocol bytes of the client: whole messages, up to one that makes the backend answer. */
  | { kind: 'exchange'; bytes: Uint8Array<ArrayBuffer> }
  /** The client has gone: leave nothing of its session to the next one. */
  | { kind: 'reset' }
  | { kind: 'dump' }
  | { kind: 'close' };

export type Answer =
  | { kind: 'opened' }
  /** Part of the answer to an exchange; more follows. */
  | { kind: 'output'; bytes: Uint8Array<ArrayBuffer> }
  | { kind: 'done'; bytes?: Uint8Array<ArrayBuffer> }
  /** The request failed, the engine is well. */
  | { kind: 'failed'; message: string }
  /** The engine is lost: nothing that it says from now on can be trusted. Before `opened`: it could not open. */
  | { kind: 'crashed'; message: string; code?: string };
