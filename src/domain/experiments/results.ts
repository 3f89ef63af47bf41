import type { Experiment, Guardrail, Metric, Variant } from '../rows.js';
import { type ComparisonOptions, type Difference, differenceOf, type Interval, pairOf } from './difference.js';
import { directionOf } from './experiment_fields.js';
import { type Direction, type GuardrailState, guardMean, guardQuantile, type Margin } from './guardrail.js';
import { callsIn, latencyQuantile } from './latency_histogram.js';
import { estimateOf } from './metric_sums.js';
import { outcomesOf } from './outcome.js';
import { neededSubjects, weeksLeft } from './power.js';
import { type LatencyCounts, quantileDifference } from './quantile_difference.js';
import { checkSampleRatio, type SampleRatioCheck } from './sample_ratio.js';
import { type ExperimentSums, isProportion, metricSums, sumsOf, type View } from './sums.js';
import { ranMs } from './transition.js';
import { controlOf } from './variant.js';
import { type Verdict, verdictOf } from './verdict.js';

const BASIS_POINTS = 10_000;
const P95 = 0.95;
const HOUR_MS = 3_600_000;

/** The difference of a variant to the control. A quantile has no p-value. */
export type MetricDifference = Omit<Difference, 'pValue'> & Partial<Pick<Difference, 'pValue'>>;

/** The value of a metric for a variant, and its difference to the control. */
export interface MetricValue {
  readonly metric: Metric;
  readonly view: View;
  readonly subjects: number;
  readonly value: number | undefined;
  readonly difference: MetricDifference | undefined;
}

/** A guardrail for one variant. Without `state`, the variant or the control has no value. */
export interface GuardrailCheck {
  readonly guardrail: Guardrail;
  readonly variant: string;
  /** The value of the control. */
  readonly control: number | undefined;
  readonly state: GuardrailState | undefined;
}

export interface PowerNote {
  readonly variant: string;
  readonly needed: number | undefined;
  readonly subjects: number;
  readonly perDay: number | undefined;
  readonly weeksLeft: number | undefined;
}

export const direction = (metric: Metric): Direction =>
  metric.direction === 'METRIC_DIRECTION_HIGHER_IS_BETTER' ? 'higher is better' : 'lower is better';

/** The results of an experiment, computed from its sums. */
export class Results {
  private readonly control: Variant;
  private readonly others: readonly Variant[];

  constructor(
    private readonly experiment: Experiment,
    private readonly sums: ExperimentSums,
  ) {
    this.control = controlOf(experiment);
    this.others = experiment.variants.filter(({ control }) => !control);
  }

  /** All metrics, the primary metric first. Metrics of calls are listed in both views. */
  get metrics(): readonly (readonly [Metric, View])[] {
    const { primary_metric: primary } = this.experiment;
    const names = new Set([...this.sums.outcomes.map(({ name }) => name), ...outcomesOf(this.experiment)]);
    const all = [primary, ...CALL_METRICS, ...[...names].sort().map((name) => this.outcomeMetric(name))];
    const isFirst = (metric: Metric, at: number) => all.findIndex((other) => isSame(metric, other)) === at;
    return all.filter(isFirst).flatMap((metric) => viewsOf(metric).map((view) => [metric, view] as const));
  }

  /** An outcome that no metric of the experiment names has no direction. */
  private outcomeMetric(outcome: string): Metric {
    const named = [this.experiment.primary_metric, ...this.experiment.guardrails.map(({ metric }) => metric)];
    const found = named.find((metric) => metric.outcome === outcome);
    return found ?? { kind: 'EXPERIMENT_METRIC_KIND_OUTCOME', outcome, direction: 'METRIC_DIRECTION_UNSPECIFIED' };
  }

  valueOf(variant: Variant, metric: Metric, view: View): MetricValue {
    const { name, control } = variant;
    if (metric.kind === 'EXPERIMENT_METRIC_KIND_LATENCY_P95') {
      const { subjects, histogram } = this.latency(name);
      const difference = control ? undefined : this.quantile(name);
      return { metric, view, subjects, value: latencyQuantile(histogram, P95), difference };
    }
    const sums = metricSums(this.sums, name, metric, view);
    const base = metricSums(this.sums, this.control.name, metric, view);
    return {
      metric,
      view,
      subjects: sums.subjects,
      value: estimateOf(sums)?.value,
      difference: control ? undefined : differenceOf(sums, base, this.options(metric)),
    };
  }

  /** Quantiles of the duration of the calls of a variant; undefined without calls. */
  quantiles(variant: string): { p50: number; p95: number; p99: number } | undefined {
    const { histogram } = this.latency(variant);
    const [p50, p95, p99] = [0.5, P95, 0.99].map((share) => latencyQuantile(histogram, share));
    return p50 === undefined || p95 === undefined || p99 === undefined ? undefined : { p50, p95, p99 };
  }

  get sampleRatio(): SampleRatioCheck & { readonly counts: readonly number[] } {
    const counts = this.experiment.variants.map(({ name }) => this.sums.exposures.get(name) ?? 0);
    const check = checkSampleRatio(
      this.experiment.variants.map(({ weight_basis_points: weight }, at) => ({ subjects: counts[at] ?? 0, weight })),
    );
    return { ...check, counts };
  }

  get verdict(): Verdict {
    const metric = this.experiment.primary_metric;
    const compared = this.others.map((variant) => ({
      name: variant.name,
      difference: withPValue(this.valueOf(variant, metric, 'all').difference),
    }));
    return verdictOf(compared, direction(metric), this.sampleRatio.mismatch);
  }

  guardrails(): GuardrailCheck[] {
    return this.experiment.guardrails.flatMap((guardrail) =>
      this.others.map(({ name }) => this.checkGuardrail(guardrail, name)),
    );
  }

  private checkGuardrail(guardrail: Guardrail, variant: string): GuardrailCheck {
    const { metric } = guardrail;
    const margin = marginOf(guardrail);
    if (metric.kind === 'EXPERIMENT_METRIC_KIND_LATENCY_P95') {
      const difference = this.quantile(variant);
      const state = difference && guardQuantile(difference, margin);
      return { guardrail, variant, control: difference?.control, state };
    }
    const base = metricSums(this.sums, this.control.name, metric, 'all');
    const pair = pairOf(metricSums(this.sums, variant, metric, 'all'), base, this.options(metric));
    const state = pair && guardMean(pair, direction(metric), margin);
    return { guardrail, variant, control: estimateOf(base)?.value, state };
  }

  power(now: number): PowerNote[] {
    const { primary_metric: metric, smallest_effect_basis_points: points } = this.experiment;
    const base = metricSums(this.sums, this.control.name, metric, 'all');
    const days = ranMs(this.experiment, now) / (24 * HOUR_MS);
    return this.others.map(({ name, weight_basis_points: weight }) => {
      const sums = metricSums(this.sums, name, metric, 'all');
      const pair = pairOf(sums, base, this.options(metric));
      const effect = pair && (points / BASIS_POINTS) * Math.abs(pair.control.value);
      const share = weight / (weight + this.control.weight_basis_points);
      const subjects = sums.subjects + base.subjects;
      const needed = pair && neededSubjects(pair, effect ?? 0, share);
      const perDay = days * 24 >= 1 ? subjects / days : undefined;
      return {
        variant: name,
        needed,
        subjects,
        perDay,
        weeksLeft: needed === undefined ? undefined : weeksLeft(needed, subjects, perDay),
      };
    });
  }

  private options(metric: Metric): ComparisonOptions {
    const alpha = this.experiment.alpha_basis_points / BASIS_POINTS;
    return { alpha, comparisons: this.others.length, isProportion: isProportion(metric) };
  }

  private latency(variant: string): LatencyCounts {
    const { subjects, all } = sumsOf(this.sums, variant);
    const histogram = this.sums.histograms.get(variant) ?? [];
    return { histogram, subjects, callsSquared: callsIn(histogram) === 0 ? 0 : all.calls_squared };
  }

  private quantile(variant: string) {
    const { alpha, comparisons } = this.options(this.experiment.primary_metric);
    const counts = [this.latency(variant), this.latency(this.control.name)] as const;
    return quantileDifference(...counts, P95, { alpha, comparisons });
  }
}

const callMetric = (kind: Metric['kind']): Metric => ({ kind, outcome: '', direction: directionOf(kind) });

const CALL_METRICS: readonly Metric[] = [
  callMetric('EXPERIMENT_METRIC_KIND_SUCCESS_RATE'),
  callMetric('EXPERIMENT_METRIC_KIND_COST_PER_CALL'),
  callMetric('EXPERIMENT_METRIC_KIND_LATENCY_MEAN'),
  callMetric('EXPERIMENT_METRIC_KIND_LATENCY_P95'),
  callMetric('EXPERIMENT_METRIC_KIND_TOKENS_PER_CALL'),
];

const isSame = (a: Metric, b: Metric): boolean => a.kind === b.kind && a.outcome === b.outcome;

/** Outcomes belong to subjects, and quantiles come from the histogram of all calls. */
const viewsOf = ({ kind }: Metric): readonly View[] =>
  kind === 'EXPERIMENT_METRIC_KIND_OUTCOME' || kind === 'EXPERIMENT_METRIC_KIND_LATENCY_P95'
    ? ['all']
    : ['all', 'served'];

const marginOf = ({ absolute_margin, relative_margin_basis_points }: Guardrail): Margin =>
  absolute_margin === null
    ? { relative: (relative_margin_basis_points ?? 0) / BASIS_POINTS }
    : { absolute: absolute_margin };

const withPValue = (difference: MetricDifference | undefined) =>
  difference && { absolute: difference.absolute, interval: difference.interval, pValue: difference.pValue };

/** Whether an interval is on the better or on the worse side of 0. */
export function sideOf(metric: Metric, interval: Interval | undefined): 'better' | 'worse' | undefined {
  if (!interval || metric.direction === 'METRIC_DIRECTION_UNSPECIFIED') return undefined;
  const isHigher = interval.low > 0;
  if (!isHigher && interval.high >= 0) return undefined;
  return isHigher === (direction(metric) === 'higher is better') ? 'better' : 'worse';
}
