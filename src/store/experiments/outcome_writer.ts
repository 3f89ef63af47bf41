import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { databaseFailure } from '../failure.js';
import type { Store } from '../store.js';
import { WriteQueue } from '../write/write_queue.js';
import { type NewOutcome, type OutcomeResult, storeOutcomes } from './outcomes.js';

/** SQLSTATEs of a conflict with another transaction; the transaction is repeated. */
const CONFLICT = /^(40001|40P01)$/;
const TRIES = 3;

/**
 * Stores outcomes. One batch at a time uses one connection, so that writes of the configuration never wait for the pool
 * because of outcomes.
 */
export class OutcomeWriter {
  private readonly queue: WriteQueue<readonly NewOutcome[], readonly OutcomeResult[]>;

  constructor(private readonly store: Store) {
    const options = { items: 1, weight: 1, longestWaitMs: limits.maxCallMs };
    this.queue = new WriteQueue(options, ([batch = []]) => this.commit(batch));
  }

  /** Stores a batch of outcomes with different ids; resolves with one result for each when it is committed. */
  add(batch: readonly NewOutcome[], signal: AbortSignal | undefined): Promise<readonly OutcomeResult[]> {
    return this.queue.add({ item: batch, weight: 1, signal });
  }

  private async commit(
    batch: readonly NewOutcome[],
  ): Promise<readonly PromiseSettledResult<readonly OutcomeResult[]>[]> {
    for (let tries = 1; ; tries++) {
      try {
        const value = await this.store.database.knex.transaction((tx) => storeOutcomes(tx, batch));
        return [{ status: 'fulfilled', value }];
      } catch (error) {
        if (!CONFLICT.test(errorCode(error) ?? '') || tries === TRIES)
          return [{ status: 'rejected', reason: databaseFailure(error) }];
      }
    }
  }
}
