import type { Knex } from 'knex';
import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { endReservations, lockReservations } from '../budgets/reservations.js';
import { databaseFailure, isAboutValues } from '../failure.js';
import type { Store } from '../store.js';
import { WriteQueue } from '../write/write_queue.js';
import { insertAttempts, readCosts } from './attempts.js';
import { insertLosses, type NewLoss } from './losses.js';
import type { NewAttempt } from './new_attempt.js';

/** Attempts and reports of one call. */
export interface UsageBatch {
  readonly attempts: readonly NewAttempt[];
  readonly losses: readonly NewLoss[];
  /** The reservation that ends in the same transaction, after the cost of the attempts is taken from it. */
  readonly ending?: EndedReservation | undefined;
}

export interface EndedReservation {
  readonly id: string;
  readonly agentId: number;
}

/** The results of the attempts of a batch, by id. The database has rejected an id that is in neither set. */
export interface StoredBatch {
  readonly fresh: ReadonlySet<string>;
  readonly known: ReadonlySet<string>;
  /** The amount that the end of the reservation released, in nano-USD. */
  readonly released: bigint;
}

/** The combined results of one or more transactions. */
interface Stored extends Omit<StoredBatch, 'released'> {
  /** By the id of the reservation. */
  readonly released: ReadonlyMap<string, bigint>;
}

/**
 * Runs with the new attempts in the transaction that stores them. A rejection aborts the transaction.
 * @param ending the reservations that end later in the same transaction.
 */
export type AttemptsStored = (tx: Knex, attempts: readonly NewAttempt[], ending: readonly string[]) => Promise<void>;

/** Concurrent batches are stored by one statement with at most this many attempts, so that no statement takes long. */
const ATTEMPTS_AT_ONCE = { postgres: 2000, embedded: 400 };
/**
 * Transactions in progress: while the database executes one, the service prepares the next. Both lock rows in the same
 * order. The embedded database has one connection.
 */
const TRANSACTIONS = { postgres: 2, embedded: 1 };
/** SQLSTATEs of a conflict with another transaction; the transaction is repeated. */
const CONFLICT = /^(40001|40P01)$/;
const TRIES = 3;

/**
 * Stores usage on at most two connections, so that usage never makes writes of the configuration wait for the pool.
 * Batches that arrive while both are busy are stored together.
 */
export class UsageWriter {
  private readonly queue: WriteQueue<UsageBatch, StoredBatch>;

  /** @param attemptsStored undefined: the attempts have no further effect, and one statement is the transaction. */
  constructor(
    private readonly store: Store,
    private readonly attemptsStored?: AttemptsStored,
    /** Whether `attemptsStored` currently has an effect on these attempts. */
    private readonly hasEffect: (attempts: readonly NewAttempt[]) => boolean = () => true,
  ) {
    const { maxCallMs: longestWaitMs, batchWrites: items } = limits;
    const weight = ATTEMPTS_AT_ONCE[store.database.kind];
    const concurrency = TRANSACTIONS[store.database.kind];
    const options = { items, weight, longestWaitMs, concurrency };
    this.queue = new WriteQueue(options, (batches) => this.storeTogether(batches));
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
    // The first batch with an id owns it. In later batches the attempt is known.
    const owners = new Map<string, number>();
    const attempts = batches.flatMap((batch, at) =>
      batch.attempts.filter(({ attempt_id: id }) => !owners.has(id) && owners.set(id, at)),
    );
    try {
      const losses = batches.flatMap((batch) => batch.losses);
      const ending = batches.flatMap((batch) => batch.ending ?? []);
      const { fresh, known, released } = await this.storeValid({ attempts, losses, ending });
      return batches.map((batch, at): PromiseFulfilledResult<StoredBatch> => {
        const [mine, rest] = [new Set<string>(), new Set<string>()];
        for (const { attempt_id: id } of batch.attempts)
          if (fresh.has(id) && owners.get(id) === at) mine.add(id);
          else if (fresh.has(id) || known.has(id)) rest.add(id);
        const amount = (batch.ending && released.get(batch.ending.id)) ?? 0n;
        return { status: 'fulfilled', value: { fresh: mine, known: rest, released: amount } };
      });
    } catch (error) {
      return batches.map(() => ({ status: 'rejected', reason: databaseFailure(error) }));
    }
  }

  /** Stores attempts. An attempt that the database rejects does not affect the other attempts. */
  private async storeValid(all: Together): Promise<Stored> {
    const { attempts, losses, ending } = all;
    try {
      const { fresh, released } = await this.commit(all);
      const known = new Set<string>();
      for (const { attempt_id: id } of attempts) if (!fresh.has(id)) known.add(id);
      return { fresh, known, released };
    } catch (error) {
      if (!isAboutValues(error) || attempts.length === 0) throw error;
      if (attempts.length === 1) return this.storeValid({ attempts: [], losses, ending });
    }
    const middle = attempts.length >>> 1;
    const first = await this.storeValid({ attempts: attempts.slice(0, middle), losses, ending: [] });
    const second = await this.storeValid({ attempts: attempts.slice(middle), losses: [], ending });
    return {
      fresh: union(first.fresh, second.fresh),
      known: union(first.known, second.known),
      released: second.released,
    };
  }

  private async commit(all: Together): Promise<Pick<Stored, 'fresh' | 'released'>> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.commitOnce(all);
      } catch (error) {
        if (!CONFLICT.test(errorCode(error) ?? '') || tries === TRIES) throw error;
      }
    }
  }

  private async commitOnce({ attempts, losses, ending }: Together): Promise<Pick<Stored, 'fresh' | 'released'>> {
    const { knex } = this.store.database;
    // Without a further effect one statement is the transaction.
    const attemptsStored = this.hasEffect(attempts) ? this.attemptsStored : undefined;
    const released = new Map<string, bigint>();
    if (losses.length === 0 && ending.length === 0 && !attemptsStored)
      return { fresh: attempts.length === 0 ? new Set() : await insertAttempts(knex, attempts), released };
    return knex.transaction(async (tx) => {
      const fresh = attempts.length === 0 ? new Set<string>() : await insertAttempts(tx, attempts);
      await insertLosses(tx, losses);
      const stored = attempts.filter(({ attempt_id }) => fresh.has(attempt_id));
      // All reservations are locked before any counter, in one order, so that two transactions rarely wait for each
      // other.
      if (ending.length > 0) await lockReservations(tx, [...ending.map(({ id }) => id), ...stored.map(reservationOf)]);
      const endingIds = ending.map(({ id }) => id);
      if (stored.length > 0) await attemptsStored?.(tx, stored, endingIds);
      return { fresh, released: ending.length > 0 ? await endReservations(tx, ending, 'committed') : released };
    });
  }
}

/** The rows that are stored in one transaction. */
interface Together {
  readonly attempts: readonly NewAttempt[];
  readonly losses: readonly NewLoss[];
  readonly ending: readonly EndedReservation[];
}

const reservationOf = ({ reservation_id }: NewAttempt): string => reservation_id;

const union = <T>(a: ReadonlySet<T>, b: ReadonlySet<T>): ReadonlySet<T> => new Set([...a, ...b]);
