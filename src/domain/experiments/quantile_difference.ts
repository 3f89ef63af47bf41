import { logMixtureRatio } from './beta_mixture.js';
import { MINIMUM_SUBJECTS } from './confidence_sequence.js';
import type { ComparisonOptions, Interval } from './difference.js';
import { binStart, callsIn, LATENCY_BINS, type LatencyHistogram, latencyQuantile } from './latency_histogram.js';

/** The durations of the calls of one variant, with the number of calls of its subjects. */
export interface LatencyCounts {
  readonly histogram: LatencyHistogram;
  readonly subjects: number;
  /** The sum over the subjects of the squares of their numbers of calls. */
  readonly callsSquared: number;
}

/** The number of observations to which the prior is equivalent. */
const CONCENTRATION = 100;

/**
 * An always-valid interval of a quantile. A duration is excluded if the share of shorter calls differs too much from
 * the level of the quantile (Howard and Ramdas 2022, "Sequential estimation of quantiles with applications to A/B
 * testing and best-arm identification", section 3).
 *
 * Because all calls of a subject may have the same duration, `n` calls count as `n^2 / sum(calls of a subject^2)`
 * observations (Kish 1965, "Survey sampling"). The interval is therefore valid for any correlation, and wider than
 * necessary for independent calls.
 */
export function quantileInterval(
  { histogram, subjects, callsSquared }: LatencyCounts,
  share: number,
  alpha: number,
): Interval | undefined {
  const calls = callsIn(histogram);
  if (subjects < MINIMUM_SUBJECTS || calls === 0 || callsSquared <= 0) return undefined;
  const weight = Math.min(1, calls / callsSquared);
  const isExcluded = (below: number) => {
    const ratio = logMixtureRatio([below * weight, (calls - below) * weight], [share, 1 - share], CONCENTRATION);
    return ratio >= -Math.log(alpha);
  };
  let low = 0;
  let below = 0;
  // `below` is the number of calls that are shorter than the start of the bin.
  for (let bin = 0; bin < LATENCY_BINS; bin++) {
    if (isExcluded(below)) {
      if (below < share * calls) low = binStart(bin);
      else return { low, high: binStart(bin) };
    }
    below += histogram[bin] ?? 0;
  }
  return { low, high: Number.POSITIVE_INFINITY };
}

/** The difference between the quantiles of a variant and the control. */
export interface QuantileDifference {
  readonly variant: number;
  readonly control: number;
  readonly absolute: number;
  /** undefined: too few subjects for bounds on both sides. */
  readonly interval: Interval | undefined;
  readonly relative: number | undefined;
  readonly relativeInterval: Interval | undefined;
  /** The intervals of the two quantiles, which hold together; `high` can be infinite. */
  readonly intervals: { readonly variant: Interval; readonly control: Interval } | undefined;
}

/** undefined: one of the two has no calls. Each quantile has half of the alpha of the comparison. */
export function quantileDifference(
  variantCounts: LatencyCounts,
  controlCounts: LatencyCounts,
  share: number,
  { alpha, comparisons }: Omit<ComparisonOptions, 'isProportion'>,
): QuantileDifference | undefined {
  const variant = latencyQuantile(variantCounts.histogram, share);
  const control = latencyQuantile(controlCounts.histogram, share);
  if (variant === undefined || control === undefined) return undefined;
  const level = alpha / comparisons / 2;
  const ofVariant = quantileInterval(variantCounts, share, level);
  const ofControl = quantileInterval(controlCounts, share, level);
  const intervals = ofVariant && ofControl && { variant: ofVariant, control: ofControl };
  return {
    variant,
    control,
    absolute: variant - control,
    interval: intervals && finite(ofVariant.low - ofControl.high, ofVariant.high - ofControl.low),
    relative: control === 0 ? undefined : variant / control - 1,
    relativeInterval: intervals && finite(ofVariant.low / ofControl.high - 1, ofVariant.high / ofControl.low - 1),
    intervals,
  };
}

const finite = (low: number, high: number): Interval | undefined =>
  Number.isFinite(low) && Number.isFinite(high) ? { low, high } : undefined;
