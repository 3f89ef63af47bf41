import type { Metric } from '../rows.js';
import { type MetricSums, meanSums } from './metric_sums.js';

/**
 * Sums of a quantity over the subjects: of the values, of their squares, and of their products with the numbers of
 * calls.
 */
export interface Moments {
  readonly sum: number;
  readonly squared: number;
  readonly by_calls: number;
}

/** The sums over the subjects of a variant for one view. */
export interface CallMoments {
  readonly calls: number;
  readonly calls_squared: number;
  readonly successes: Moments;
  readonly cost_nano_usd: Moments;
  readonly latency_ms: Moments;
  readonly tokens: Moments;
}

export interface VariantSums {
  readonly subjects: number;
  /** The number of subjects with at least one call that no fallback served. */
  readonly served_subjects: number;
  readonly aborted_calls: number;
  readonly unpriced_attempts: number;
  readonly all: CallMoments;
  readonly served: CallMoments;
}

/** The sums of an outcome over the subjects of a variant. */
export interface OutcomeSums {
  readonly variant: string;
  readonly name: string;
  readonly subjects: number;
  readonly means: number;
  readonly means_squared: number;
}

/** The sums from which the results of an experiment are computed. */
export interface ExperimentSums {
  readonly variants: ReadonlyMap<string, VariantSums>;
  /** The number of calls in each bin of durations. */
  readonly histograms: ReadonlyMap<string, readonly number[]>;
  /** The new subjects since the buckets last changed. */
  readonly exposures: ReadonlyMap<string, number>;
  readonly outcomes: readonly OutcomeSums[];
}

export type View = 'all' | 'served';

const NO_MOMENTS: Moments = { sum: 0, squared: 0, by_calls: 0 };
const NO_CALLS: CallMoments = {
  calls: 0,
  calls_squared: 0,
  successes: NO_MOMENTS,
  cost_nano_usd: NO_MOMENTS,
  latency_ms: NO_MOMENTS,
  tokens: NO_MOMENTS,
};
const NO_SUMS: VariantSums = {
  subjects: 0,
  served_subjects: 0,
  aborted_calls: 0,
  unpriced_attempts: 0,
  all: NO_CALLS,
  served: NO_CALLS,
};

/** The sums of a variant. For a variant without usage, all sums are 0. */
export const sumsOf = ({ variants }: ExperimentSums, variant: string): VariantSums => variants.get(variant) ?? NO_SUMS;

/** The sums of one metric of a variant, as a ratio over the subjects. */
export function metricSums(all: ExperimentSums, variant: string, metric: Metric, view: View): MetricSums {
  if (metric.kind === 'EXPERIMENT_METRIC_KIND_OUTCOME') {
    const found = all.outcomes.find((one) => one.variant === variant && one.name === metric.outcome);
    return meanSums(found?.subjects ?? 0, found?.means ?? 0, found?.means_squared ?? 0);
  }
  const sums = sumsOf(all, variant);
  const moments = sums[view];
  const subjects = view === 'all' ? sums.subjects : sums.served_subjects;
  const { calls, calls_squared } = moments;
  const { sum, squared, by_calls } = quantityOf(moments, metric);
  return { subjects, x: calls, xx: calls_squared, y: sum, yy: squared, xy: by_calls };
}

function quantityOf(moments: CallMoments, { kind }: Metric): Moments {
  if (kind === 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE') return moments.successes;
  if (kind === 'EXPERIMENT_METRIC_KIND_COST_PER_CALL') return moments.cost_nano_usd;
  if (kind === 'EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL') return moments.tokens;
  if (kind === 'EXPERIMENT_METRIC_KIND_ERROR_RATE') return failures(moments);
  return moments.latency_ms;
}

/** The failures of each subject are its calls minus its successes. */
const failures = ({ calls, calls_squared, successes }: CallMoments): Moments => ({
  sum: calls - successes.sum,
  squared: calls_squared - 2 * successes.by_calls + successes.squared,
  by_calls: calls_squared - successes.by_calls,
});

/** Whether the values of the calls of a metric are 0 or 1. */
export const isProportion = ({ kind }: Metric): boolean =>
  kind === 'EXPERIMENT_METRIC_KIND_SUCCESS_RATE' || kind === 'EXPERIMENT_METRIC_KIND_ERROR_RATE';
