import { outcomesOf } from '../../domain/experiments/outcome.js';
import { errorCode } from '../../error_properties.js';
import { limits } from '../../limits.js';
import { databaseFailure, isAboutValues } from '../failure.js';
import type { Store } from '../store.js';
import { WriteQueue } from '../write/write_queue.js';
import { type NewOutcome, type OutcomeResult, storeOutcomes } from './outcomes.js';

/** SQLSTATEs of a conflict with another transaction; the transaction is repeated. */
const CONFLICT = /^(40001|40P01)$/;
const TRIES = 3;

/** Waiting batches are stored by one transaction with at most this many outcomes, so that no transaction takes long. */
const OUTCOMES_AT_ONCE = 1000;

type Stored = readonly OutcomeResult[];

/**
 * Stores outcomes in one transaction at a time on one connection, so that outcomes never make writes of the
 * configuration wait for the pool. Batches that arrive during a transaction are stored together in the next one.
 */
export class OutcomeWriter {
  private readonly queue: WriteQueue<readonly NewOutcome[], Stored>;

  constructor(private readonly store: Store) {
    const options = { items: limits.batchWrites, weight: OUTCOMES_AT_ONCE, longestWaitMs: limits.maxCallMs };
    this.queue = new WriteQueue(options, (batches) => this.storeTogether(batches));
  }

  /** Stores a batch of outcomes with different ids; resolves with one result for each when it is committed. */
  add(batch: readonly NewOutcome[], signal: AbortSignal | undefined): Promise<Stored> {
    return this.queue.add({ item: batch, weight: batch.length, signal });
  }

  private async storeTogether(batches: readonly (readonly NewOutcome[])[]): Promise<PromiseSettledResult<Stored>[]> {
    const outcomes = new Map<string, NewOutcome>();
    for (const outcome of batches.flat())
      if (!outcomes.has(outcome.outcome_id)) outcomes.set(outcome.outcome_id, outcome);
    try {
      const results = await this.commit([...outcomes.values()]);
      const byId = new Map([...outcomes.keys()].map((id, at) => [id, results[at] as OutcomeResult]));
      return batches.map((batch) => ({ status: 'fulfilled', value: batch.map((one) => resultOf(one, byId)) }));
    } catch (error) {
      // During an outage, each batch alone would wait as long as all of them.
      if (batches.length === 1 || !isAboutValues(error))
        return batches.map(() => ({ status: 'rejected', reason: databaseFailure(error) }));
    }
    // One batch must not fail because of the values of another one.
    const settled: PromiseSettledResult<Stored>[] = [];
    for (const batch of batches) settled.push(...(await this.storeTogether([batch])));
    return settled;
  }

  private readonly metricNames = (id: number): ReadonlySet<string> => {
    const experiment = this.store.state.experiments.withId(id);
    return new Set(experiment ? outcomesOf(experiment) : []);
  };

  private async commit(outcomes: readonly NewOutcome[]): Promise<Stored> {
    for (let tries = 1; ; tries++) {
      try {
        return await this.store.database.knex.transaction((tx) => storeOutcomes(tx, outcomes, this.metricNames));
      } catch (error) {
        if (!CONFLICT.test(errorCode(error) ?? '') || tries === TRIES) throw error;
      }
    }
  }
}

/** The result of an outcome. An outcome with the same id in a later batch is known. */
function resultOf({ outcome_id: id }: NewOutcome, results: Map<string, OutcomeResult>): OutcomeResult {
  const result = results.get(id) as OutcomeResult;
  if (result.status === 'new') results.set(id, { status: 'known' });
  return result;
}
