import { randomUUID } from 'node:crypto';
import type { Cause, Change } from '../domain/rows.js';
import { State } from '../domain/state.js';
import type { Database } from './database.js';

/** A revision, with all that is known of it. */
export interface CommittedRevision {
  readonly revision: number;
  readonly nonce: string;
  readonly changes: readonly Change[];
  readonly cause: Cause;
}

/** Hears of everything that happens to the state. */
export interface Follower {
  applied(made: CommittedRevision): void;
  /** The state was read anew: what was known of it may be of another store. */
  replaced(): void;
}

/**
 * The database together with the state that this replica holds of it. The state moves only through `apply` and
 * `replaceState`, so that followers and waiters are notified of every move.
 */
export class ReplicaState {
  private current = new State();
  private readonly listeners = new Set<() => void>();
  private readonly followers = new Set<Follower>();

  /** By which this store's writes are told from those of other replicas. */
  readonly mark = randomUUID();
  /** Whether the last write was refused by a database that only reads now; the feed tries again. */
  writesFail = false;

  constructor(readonly database: Database) {}

  /** The configuration at the newest revision that is known here. */
  get state(): State {
    return this.current;
  }

  /** Moves `state` on by one revision; has no effect on a state that has been replaced meanwhile. */
  apply(state: State, made: CommittedRevision): void {
    const before = state.revision;
    state.apply(made.revision, made.nonce, made.changes);
    if (state !== this.current || state.revision === before) return;
    for (const hear of [...this.followers]) hear.applied(made);
    this.announce();
  }

  replaceState(state: State): void {
    state.vault = this.current.vault;
    this.current = state;
    for (const hear of [...this.followers]) hear.replaced();
    this.announce();
  }

  /** Tells of every revision, in order and while the state is exactly at it, until the returned function is called. */
  follow(follower: Follower): () => void {
    this.followers.add(follower);
    return () => this.followers.delete(follower);
  }

  /** Calls back after every move of the state, until the returned function is called. */
  onAdvance(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private announce(): void {
    for (const listener of [...this.listeners]) listener();
  }
}
