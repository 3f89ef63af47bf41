import { alwaysValidP, boundary, MINIMUM_SUBJECTS } from './confidence_sequence.js';
import { type Estimate, estimateOf, type MetricSums } from './metric_sums.js';

export interface Interval {
  readonly low: number;
  readonly high: number;
}

/** The difference of a variant to the control in one metric. */
export interface Difference {
  readonly absolute: number;
  /** undefined: too few subjects, or all of them have the same value. */
  readonly interval: Interval | undefined;
  /** The difference as a part of the absolute value of the control; undefined if the value of the control is 0. */
  readonly relative: number | undefined;
  /** undefined: there is no `interval`, or the data do not exclude that the value of the control is 0. */
  readonly relativeInterval: Interval | undefined;
  /** The p-value of the hypothesis that there is no difference, corrected for the number of comparisons. */
  readonly pValue: number | undefined;
}

export interface ComparisonOptions {
  /** The probability of a false result in any of the comparisons at any time. */
  readonly alpha: number;
  /** The number of variants that are compared with the control; alpha is divided by it (Bonferroni). */
  readonly comparisons: number;
  /** Whether the values of calls are 0 or 1. */
  readonly isProportion: boolean;
}

/** The estimates of a variant and the control for their comparison. */
export interface Pair {
  readonly variant: Estimate;
  readonly control: Estimate;
  /** The variances of the values of one subject. */
  readonly variances: { readonly variant: number; readonly control: number };
  /** The part of alpha of this comparison. */
  readonly level: number;
  readonly hasEnoughSubjects: boolean;
}

/** undefined: one of the two has no value. */
export function pairOf(variantSums: MetricSums, controlSums: MetricSums, options: ComparisonOptions): Pair | undefined {
  const [variant, control] = [estimateOf(variantSums), estimateOf(controlSums)];
  if (!variant || !control) return undefined;
  const varianceOf = options.isProportion ? ofProportion : ofMean;
  return {
    variant,
    control,
    variances: { variant: varianceOf(variant, control), control: varianceOf(control, variant) },
    level: options.alpha / options.comparisons,
    hasEnoughSubjects: Math.min(variant.subjects, control.subjects) >= MINIMUM_SUBJECTS,
  };
}

/**
 * The variance with one additional success and one additional failure. Without them, the variance would be 0 as long as
 * all calls succeed (Agresti and Caffo 2000, "Simple and effective confidence intervals for proportions and differences
 * of proportions").
 */
const ofProportion = ({ subjects, value, squares }: Estimate): number =>
  (squares + value ** 2 + (1 - value) ** 2) / (subjects + 1);

/**
 * The variance with one additional subject that has the value of the other variant, so that a variant with equal values
 * also has a variance. It is at least the variance of the other variant, scaled by the ratio of the values: as long as
 * a small variant has none of the few large values of a skewed metric, its mean and its variance are both too low, and
 * its intervals would be too narrow.
 */
function ofMean(one: Estimate, other: Estimate): number {
  const own = (one.squares + (one.value - other.value) ** 2) / one.subjects;
  const scale = Math.min(1, Math.abs(one.value) / Math.abs(other.value)) || 0;
  return Math.max(own, (other.squares / other.subjects) * scale ** 2);
}

/** An estimate of `variant - factor * control` with its interval. */
export interface Contrast {
  readonly value: number;
  readonly error: number;
  /** The equivalent number of subjects in each variant: the number with the same information. */
  readonly subjects: number;
  readonly interval: Interval | undefined;
}

/**
 * Estimates are asymptotically a Brownian motion in their information, 1 / variance, even when the weights of the
 * variants change (Jennison and Turnbull 2000, "Group sequential methods", chapter 11): the boundary depends only on
 * the information.
 */
export function contrastOf({ variant, control, variances, level, hasEnoughSubjects }: Pair, factor: number): Contrast {
  const value = variant.value - factor * control.value;
  const [ofVariant, ofControl] = [variances.variant, factor ** 2 * variances.control];
  const error = Math.sqrt(ofVariant / variant.subjects + ofControl / control.subjects);
  if (error === 0) return { value, error, subjects: 0, interval: undefined };
  const subjects = (ofVariant + ofControl) / error ** 2;
  const radius = boundary(subjects, level) * error;
  return { value, error, subjects, interval: hasEnoughSubjects ? around(value, radius) : undefined };
}

const around = (value: number, radius: number): Interval => ({ low: value - radius, high: value + radius });

/** undefined: one of the two has no value. */
export function differenceOf(
  variantSums: MetricSums,
  controlSums: MetricSums,
  options: ComparisonOptions,
): Difference | undefined {
  const pair = pairOf(variantSums, controlSums, options);
  if (!pair) return undefined;
  const { value: absolute, error, subjects, interval } = contrastOf(pair, 1);
  const base = Math.abs(pair.control.value);
  const single = interval && alwaysValidP(absolute / error, subjects, pair.level);
  return {
    absolute,
    interval,
    relative: base === 0 ? undefined : absolute / base,
    relativeInterval: interval && relativeInterval(pair, boundary(subjects, pair.level)),
    pValue: single === undefined ? undefined : Math.min(1, single * options.comparisons),
  };
}

/**
 * The ratios to the control whose contrast can be 0 (Fieller 1954, "Some problems in interval estimation"), minus 1.
 * They include 0 exactly if the interval of the difference includes 0.
 */
function relativeInterval({ variant, control, variances }: Pair, width: number): Interval | undefined {
  const ofVariant = (width ** 2 * variances.variant) / variant.subjects;
  const ofControl = (width ** 2 * variances.control) / control.subjects;
  const divisor = control.value ** 2 - ofControl;
  if (divisor <= 0) return undefined;
  const product = variant.value * control.value;
  const root = Math.sqrt(Math.max(0, product ** 2 - divisor * (variant.value ** 2 - ofVariant)));
  const [low, high] = [(product - root) / divisor - 1, (product + root) / divisor - 1];
  return control.value > 0 ? { low, high } : { low: -high, high: -low };
}
