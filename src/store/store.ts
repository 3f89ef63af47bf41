import { randomUUID } from 'node:crypto';
import type { Change } from '../domain/rows.js';
import { State } from '../domain/state.js';
import { limits } from '../limits.js';
import { commitTogether } from './commit.js';
import type { Database } from './database.js';
import { Line } from './line.js';
import type { Ready } from './write.js';

/**
 * The database together with the state that is held of it. Whoever moves the
 * state, the tail of the log or the writer of a revision, does it here, so that
 * those who wait for a revision hear of it.
 */
export class Store {
  private current = new State();
  private readonly listeners = new Set<() => void>();

  /** By which this store's writes are told from those of other replicas. */
  readonly mark = randomUUID();
  /** Whether the last write was refused by a database that only reads now; the feed tries again. */
  writesFail = false;
  /** The line in which writes wait. */
  readonly writers: Line<Ready, Uint8Array>;

  constructor(readonly database: Database) {
    const { batchWrites: items, batchChanges: weight, maxCallMs: longestWaitMs } = limits;
    this.writers = new Line({ items, weight, longestWaitMs }, (writes) => commitTogether(this, writes));
  }

  /** The configuration at the newest revision that is known here. */
  get state(): State {
    return this.current;
  }

  /** Moves `state` on by one revision; has no effect on a state that has been replaced meanwhile. */
  apply(state: State, revision: number, nonce: string, changes: readonly Change[]): void {
    const before = state.revision;
    state.apply(revision, nonce, changes);
    if (state === this.current && state.revision !== before) this.announce();
  }

  replaceState(state: State): void {
    state.vault = this.current.vault;
    this.current = state;
    this.announce();
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
