import type { Knex } from 'knex';
import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { endReservation, lockReservations } from '../budgets/reservations.js';
import { databaseFailure, isAboutValues } from '../failure.js';
import type { Store } from '../store.js';
import { WriteQueue } from '../write/write_queue.js';
import { insertAttempts, type NewAttempt, readCosts } from './attempts.js';
import { insertLosses, type NewLoss } from './losses.js';

/** Attempts and reports of one call. */
export interface UsageBatch {
  readonly attempts: readonly NewAttempt[];
  readonly losses: readonly NewLoss[];
  /** The reservation that ends in the same transaction, after the attempts have drawn on it. */
  readonly ends?: EndedReservation | undefined;
}

export interface EndedReservation {
  readonly id: string;
  readonly agentId: number;
}

/** What became of the attempts of a batch, by id. An id that is in neither set was rejected by the database. */
export interface StoredBatch {
  readonly fresh: ReadonlySet<string>;
  readonly known: ReadonlySet<string>;
  /** The amount that the end of the reservation released, in nano-USD. */
  readonly released: bigint;
}

/** What one or more transactions have stored. */
interface Stored extends Omit<StoredBatch, 'released'> {
  /** By the id of the reservation. */
  readonly released: ReadonlyMap<string, bigint>;
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
    /** Whether `attemptsStored` has an effect now. */
    private readonly hasEffect: (attempts: readonly NewAttempt[]) => boolean = () => true,
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
      const ends = batches.flatMap((batch) => batch.ends ?? []);
      const { fresh, known, released } = await this.storeValid({ attempts, losses, ends });
      return batches.map((batch, at): PromiseFulfilledResult<StoredBatch> => {
        const ids = batch.attempts.map(({ attempt_id }) => attempt_id).filter((id) => fresh.has(id) || known.has(id));
        const mine = new Set(ids.filter((id) => fresh.has(id) && owners.get(id) === at));
        const amount = (batch.ends && released.get(batch.ends.id)) ?? 0n;
        const rest = new Set(ids.filter((id) => !mine.has(id)));
        return { status: 'fulfilled', value: { fresh: mine, known: rest, released: amount } };
      });
    } catch (error) {
      return batches.map(() => ({ status: 'rejected', reason: databaseFailure(error) }));
    }
  }

  /** Stores attempts without those that the database rejects: one attempt never affects another one. */
  private async storeValid(all: Together): Promise<Stored> {
    const { attempts, losses, ends } = all;
    try {
      const { fresh, released } = await this.commit(all);
      const ids = attempts.map(({ attempt_id }) => attempt_id);
      return { fresh, known: new Set(ids.filter((id) => !fresh.has(id))), released };
    } catch (error) {
      if (!isAboutValues(error) || attempts.length === 0) throw error;
      if (attempts.length === 1) return this.storeValid({ attempts: [], losses, ends });
    }
    const middle = attempts.length >>> 1;
    const first = await this.storeValid({ attempts: attempts.slice(0, middle), losses, ends: [] });
    const second = await this.storeValid({ attempts: attempts.slice(middle), losses: [], ends });
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

  private async commitOnce({ attempts, losses, ends }: Together): Promise<Pick<Stored, 'fresh' | 'released'>> {
    const { knex } = this.store.database;
    // Without a further effect one statement is the transaction.
    const attemptsStored = this.hasEffect(attempts) ? this.attemptsStored : undefined;
    const released = new Map<string, bigint>();
    if (losses.length === 0 && ends.length === 0 && !attemptsStored)
      return { fresh: attempts.length === 0 ? new Set() : await insertAttempts(knex, attempts), released };
    return knex.transaction(async (tx) => {
      const fresh = attempts.length === 0 ? new Set<string>() : await insertAttempts(tx, attempts);
      await insertLosses(tx, losses);
      const stored = attempts.filter(({ attempt_id }) => fresh.has(attempt_id));
      // All of them before any counter, in one order: two transactions then rarely wait for each other.
      if (ends.length > 0) await lockReservations(tx, [...ends.map(({ id }) => id), ...stored.map(reservationOf)]);
      if (stored.length > 0) await attemptsStored?.(tx, stored);
      for (const { id, agentId } of [...ends].sort((a, b) => (a.id < b.id ? -1 : 1)))
        released.set(id, await endReservation(tx, { id, agentId, state: 'committed' }));
      return { fresh, released };
    });
  }
}

/** What is stored in one transaction. */
interface Together {
  readonly attempts: readonly NewAttempt[];
  readonly losses: readonly NewLoss[];
  readonly ends: readonly EndedReservation[];
}

const reservationOf = ({ reservation_id }: NewAttempt): string => reservation_id;

const union = <T>(a: ReadonlySet<T>, b: ReadonlySet<T>): ReadonlySet<T> => new Set([...a, ...b]);
