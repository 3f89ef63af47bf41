import { randomUUID } from 'node:crypto';
import type { Cause, Change } from '../domain/rows.js';
import { State } from '../domain/state.js';
import type { Database } from './database.js';

/** A committed revision with its changes and their cause. */
export interface CommittedRevision {
  readonly revision: number;
  readonly nonce: string;
  readonly changes: readonly Change[];
  readonly cause: Cause;
}

/** Is notified of every change of the state. */
export interface RevisionListener {
  /** One revision was applied. Called in the order of the revisions, while the state is exactly at this one. */
  applied?(revision: CommittedRevision): void;
  /** The state was reloaded. Anything derived from the previous state may belong to another store. */
  replaced?(): void;
}

/**
 * The database and the in-memory state that this replica has loaded from it. The state changes only through `apply` and
 * `replaceState`, so listeners are notified of every change.
 */
export class ReplicaState {
  private current = new State();
  private readonly listeners = new Set<RevisionListener>();

  /** The id of this replica, which distinguishes its writes from those of other replicas. */
  readonly replicaId = randomUUID();
  /** Whether the database rejected the last write, or was read-only at the last poll. The feed probes it again. */
  writesFail = false;

  constructor(readonly database: Database) {}

  /** The configuration at the newest revision that this replica has. */
  get state(): State {
    return this.current;
  }

  /** Applies one revision to `state`. Listeners are not notified when that state has been replaced meanwhile. */
  apply(state: State, revision: CommittedRevision): void {
    const before = state.revision;
    state.apply(revision.revision, revision.nonce, revision.changes);
    if (state !== this.current || state.revision === before) return;
    for (const listener of [...this.listeners]) listener.applied?.(revision);
  }

  replaceState(state: State): void {
    state.encryption = this.current.encryption;
    this.current = state;
    for (const listener of [...this.listeners]) listener.replaced?.();
  }

  /**
   * Notifies a listener of every change of the state.
   * @returns a function that unsubscribes.
   */
  subscribe(listener: RevisionListener): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }
}
