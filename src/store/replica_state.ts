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

/** Receives every change of the state. */
export interface Follower {
  applied(revision: CommittedRevision): void;
  /** The state was reloaded. Anything derived from the previous state may belong to another store. */
  replaced(): void;
}

/**
 * The database and the in-memory state that this replica has loaded from it. The state changes only through `apply` and
 * `replaceState`, so followers and listeners are notified of every change.
 */
export class ReplicaState {
  private current = new State();
  private readonly listeners = new Set<() => void>();
  private readonly followers = new Set<Follower>();

  /** The id of this replica, which distinguishes its writes from those of other replicas. */
  readonly replicaId = randomUUID();
  /** Whether the database rejected the last write, or was read-only at the last poll. The feed probes it again. */
  writesFail = false;

  constructor(readonly database: Database) {}

  /** The configuration at the newest revision that this replica has. */
  get state(): State {
    return this.current;
  }

  /** Applies one revision to `state`. Followers are not notified when that state has been replaced meanwhile. */
  apply(state: State, revision: CommittedRevision): void {
    const before = state.revision;
    state.apply(revision.revision, revision.nonce, revision.changes);
    if (state !== this.current || state.revision === before) return;
    for (const follower of [...this.followers]) follower.applied(revision);
    this.notifyListeners();
  }

  replaceState(state: State): void {
    state.vault = this.current.vault;
    this.current = state;
    for (const follower of [...this.followers]) follower.replaced();
    this.notifyListeners();
  }

  /**
   * Notifies a follower of every revision, in order and while the state is exactly at it.
   * @returns a function that unsubscribes.
   */
  follow(follower: Follower): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }

  /**
   * Calls a listener after every change of the state.
   * @returns a function that unsubscribes.
   */
  onAdvance(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private notifyListeners(): void {
    for (const listener of [...this.listeners]) listener();
  }
}
