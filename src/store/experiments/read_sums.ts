import type { Knex } from 'knex';
import type { CallMoments, ExperimentSums, Moments, OutcomeSums, VariantSums } from '../../domain/experiments/sums.js';
import type { Experiment } from '../../domain/rows.js';
import { onDatabase } from '../failure.js';
import type { Store } from '../store.js';

type Row = Readonly<Record<string, unknown>>;

/** Reads the sums of an experiment at one point in time. */
export function readSums(store: Store, experiment: Experiment): Promise<ExperimentSums> {
  return onDatabase(store, (db) =>
    db.transaction((tx) => readAll(tx, experiment), { isolationLevel: 'repeatable read', readOnly: true }),
  );
}

async function readAll(tx: Knex, { id, allocation_revision }: Experiment): Promise<ExperimentSums> {
  const of = (table: string): Knex.QueryBuilder => tx(table).where({ experiment_id: id });
  const variants: Row[] = await of('llm_experiment_variants').select('*');
  const bins: Row[] = await of('llm_experiment_latency').select('variant', 'bin', 'calls');
  const exposures: Row[] = await of('llm_experiment_exposures')
    .where({ allocation_revision })
    .select('variant', 'subjects');
  const outcomes: Row[] = await of('llm_experiment_outcome_sums').select('*');
  return {
    variants: new Map(variants.map((row) => [String(row['variant']), variantSums(row)])),
    histograms: histogramsOf(bins),
    exposures: new Map(exposures.map((row) => [String(row['variant']), Number(row['subjects'])])),
    outcomes: outcomes.map(outcomeSums),
  };
}

function variantSums(row: Row): VariantSums {
  const count = (name: string) => Number(row[name]);
  return {
    subjects: count('subjects'),
    served_subjects: count('served_subjects'),
    aborted_calls: count('aborted_calls'),
    unpriced_attempts: count('unpriced_attempts'),
    all: callMoments(row, ''),
    served: callMoments(row, 'served_'),
  };
}

function callMoments(row: Row, prefix: string): CallMoments {
  const value = (name: string) => Number(row[prefix + name]);
  const moments = (name: string): Moments => ({
    sum: value(name),
    squared: value(`${name}_squared`),
    by_calls: value(`${name}_by_calls`),
  });
  return {
    calls: value('calls'),
    calls_squared: value('calls_squared'),
    successes: moments('successes'),
    cost_nano_usd: moments('cost_nano_usd'),
    latency_ms: moments('latency_ms'),
    tokens: moments('tokens'),
  };
}

function histogramsOf(bins: readonly Row[]): ReadonlyMap<string, readonly number[]> {
  const histograms = new Map<string, number[]>();
  for (const row of bins) {
    const variant = String(row['variant']);
    const histogram = histograms.get(variant) ?? [];
    const bin = Number(row['bin']);
    while (histogram.length <= bin) histogram.push(0);
    histogram[bin] = Number(row['calls']);
    histograms.set(variant, histogram);
  }
  return histograms;
}

const outcomeSums = (row: Row): OutcomeSums => ({
  variant: String(row['variant']),
  name: String(row['name']),
  subjects: Number(row['subjects']),
  means: Number(row['means']),
  means_squared: Number(row['means_squared']),
});
