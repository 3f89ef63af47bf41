import type { Knex } from 'knex';
import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { databaseFailure, isAboutValues } from '../failure.js';
import type { Store } from '../store.js';
import { WriteQueue } from '../write/write_queue.js';
import { insertAttempts, type NewAttempt, readCosts } from './attempts.js';
import { insertLosses, type NewLoss } from './losses.js';

/** Attempts and reports of one call. */
export interface UsageBatch {
  readonly attempts: readonly NewAttempt[];
  readonly losses: readonly NewLoss[];
}

/** What became of the attempts of a batch, by id. An id that is in neither set was rejected by the database. */
export interface StoredBatch {
  readonly fresh: ReadonlySet<string>;
  readonly known: ReadonlySet<string>;
}

/** Runs in the transaction that stores attempts, with those that are new; a rejection aborts the transaction. */
export type AttemptsStored = (tx: Knex, attempts: readonly NewAttempt[]) => Promise<void>;

/** Concurrent batches are stored by one statement with at most this many attempts, so that no statement takes long. */
const ATTEMPTS_AT_ONCE = { postgres: 2000, embedded: 400 };
/** SQLSTATEs of a conflict with another transaction; the transaction is repeated. */
const CONFLICT = /^(40001|40P01)$/;
const TRIES = 3;

/**
 * Stores usage. One batch at a time uses one connection: writes of the configuration never wait for the pool because of
 * usage, and batches that arrive meanwhile are stored together.
 */
export class UsageWriter {
  private readonly queue: WriteQueue<UsageBatch, StoredBatch>;

  /** @param attemptsStored undefined: the attempts have no further effect, and one statement is the transaction. */
  constructor(
    private readonly store: Store,
    private readonly attemptsStored?: AttemptsStored,
  ) {
    const { maxCallMs: longestWaitMs, batchWrites: items } = limits;
    const weight = ATTEMPTS_AT_ONCE[store.database.kind];
    this.queue = new WriteQueue({ items, weight, longestWaitMs }, (batches) => this.storeTogether(batches));
  }

  /** Stores a batch; resolves when it is committed. */
  add(batch: UsageBatch, signal: AbortSignal | undefined): Promise<StoredBatch> {
    return this.queue.add({ item: batch, weight: batch.attempts.length, signal });
  }

  /** The costs of stored attempts by id; null: unknown. */
  async costs(attempts: readonly NewAttempt[]): Promise<ReadonlyMap<string, bigint | null>> {
    try {
      return await readCosts(this.store.database.knex, attempts);
    } catch (error) {
      throw databaseFailure(error);
    }
  }

  private async storeTogether(batches: readonly UsageBatch[]): Promise<readonly PromiseSettledResult<StoredBatch>[]> {
    // The first batch that has an id owns it; in later ones the attempt is known.
    const owners = new Map<string, number>();
    const attempts = batches.flatMap((batch, at) =>
      batch.attempts.filter(({ attempt_id: id }) => !owners.has(id) && owners.set(id, at)),
    );
    try {
      const losses = batches.flatMap((batch) => batch.losses);
      const { fresh, known } = await this.storeValid(attempts, losses);
      return batches.map((batch, at): PromiseFulfilledResult<StoredBatch> => {
        const ids = batch.attempts.map(({ attempt_id }) => attempt_id).filter((id) => fresh.has(id) || known.has(id));
        const mine = new Set(ids.filter((id) => fresh.has(id) && owners.get(id) === at));
        return { status: 'fulfilled', value: { fresh: mine, known: new Set(ids.filter((id) => !mine.has(id))) } };
      });
    } catch (error) {
      return batches.map(() => ({ status: 'rejected', reason: databaseFailure(error) }));
    }
  }

  /** Stores attempts without those that the database rejects: one attempt never affects another one. */
  private async storeValid(attempts: readonly NewAttempt[], losses: readonly NewLoss[]): Promise<StoredBatch> {
    try {
      const fresh = await this.commit(attempts, losses);
      const ids = attempts.map(({ attempt_id }) => attempt_id);
      return { fresh, known: new Set(ids.filter((id) => !fresh.has(id))) };
    } catch (error) {
      if (!isAboutValues(error) || attempts.length === 0) throw error;
      if (attempts.length === 1)
        return this.storeValid([], losses).then(() => ({ fresh: new Set(), known: new Set() }));
    }
    const middle = attempts.length >>> 1;
    const first = await this.storeValid(attempts.slice(0, middle), losses);
    const second = await this.storeValid(attempts.slice(middle), []);
    return { fresh: union(first.fresh, second.fresh), known: union(first.known, second.known) };
  }

  private async commit(attempts: readonly NewAttempt[], losses: readonly NewLoss[]): Promise<ReadonlySet<string>> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.commitOnce(attempts, losses);
      } catch (error) {
        if (!CONFLICT.test(errorCode(error) ?? '') || tries === TRIES) throw error;
      }
    }
  }

  private async commitOnce(attempts: readonly NewAttempt[], losses: readonly NewLoss[]): Promise<ReadonlySet<string>> {
    const { knex } = this.store.database;
    const { attemptsStored } = this;
    if (losses.length === 0 && !attemptsStored)
      return attempts.length === 0 ? new Set() : insertAttempts(knex, attempts);
    return knex.transaction(async (tx) => {
      const fresh = attempts.length === 0 ? new Set<string>() : await insertAttempts(tx, attempts);
      await insertLosses(tx, losses);
      const stored = attempts.filter(({ attempt_id }) => fresh.has(attempt_id));
      if (stored.length > 0) await attemptsStored?.(tx, stored);
      return fresh;
    });
  }
}

const union = <T>(a: ReadonlySet<T>, b: ReadonlySet<T>): ReadonlySet<T> => new Set([...a, ...b]);
