import { limits } from '../../limits.js';
import { databaseFailure } from '../failure.js';
import type { Store } from '../store.js';
import { WriteQueue } from '../write/write_queue.js';
import { type ReservationRequest, type ReserveOutcome, reserve } from './reserve.js';

/** Maximum number of reservations of one statement. */
const RESERVATIONS_AT_ONCE = 64;

/**
 * Makes reservations. All callers of a replica change the same few counters, so concurrent statements would wait for
 * each other's row locks. Requests that arrive while a statement runs are therefore combined in the next statement.
 * With eight callers, this makes seven times as many reservations as one statement per request.
 */
export class ReservationWriter {
  private readonly queue: WriteQueue<ReservationRequest, ReserveOutcome>;

  constructor({ database }: Pick<Store, 'database'>) {
    const options = { items: RESERVATIONS_AT_ONCE, weight: RESERVATIONS_AT_ONCE, longestWaitMs: limits.maxCallMs };
    this.queue = new WriteQueue(options, (requests) => reserve(database.knex, requests));
  }

  async reserve(request: ReservationRequest, signal: AbortSignal | undefined): Promise<ReserveOutcome> {
    try {
      return await this.queue.add({ item: request, weight: 1, signal });
    } catch (error) {
      throw databaseFailure(error);
    }
  }
}
