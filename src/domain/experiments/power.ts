import { boundary, MINIMUM_SUBJECTS } from './confidence_sequence.js';
import type { Pair } from './difference.js';

/** The quantile of the normal distribution for a power of 80 %. */
const POWER_QUANTILE = 0.8416212335729143;

const DAYS_PER_WEEK = 7;

/** Larger results are not useful and are not stated. */
const MOST_SUBJECTS = 1e12;

/**
 * The number of subjects of a variant and the control together with which the interval excludes 0 with a probability of at
 * least 80 %, if the difference is `effect`. undefined: it cannot be computed, or no number is large enough.
 *
 * @param share the part of the new subjects of both variants that are assigned to the variant.
 */
export function neededSubjects({ variances, level }: Pair, effect: number, share: number): number | undefined {
  if (!(effect > 0) || !(share > 0 && share < 1)) return undefined;
  const ofOne = variances.variant / share + variances.control / (1 - share);
  if (ofOne === 0) return undefined;
  const perVariant = (variances.variant + variances.control) / ofOne;
  const isEnough = (total: number) =>
    (boundary(total * perVariant, level) + POWER_QUANTILE) * Math.sqrt(ofOne / total) <= effect;
  let high = MINIMUM_SUBJECTS / Math.min(share, 1 - share);
  while (!isEnough(high)) {
    high *= 2;
    if (high > MOST_SUBJECTS) return undefined;
  }
  let low = high / 2;
  if (isEnough(low)) return Math.ceil(high);
  while (high - low > 1) {
    const middle = (low + high) / 2;
    if (isEnough(middle)) high = middle;
    else low = middle;
  }
  return Math.ceil(high);
}

/**
 * The weeks until enough subjects are counted. @param perDay the number of subjects per day; undefined or 0: unknown.
 */
export function weeksLeft(needed: number, subjects: number, perDay: number | undefined): number | undefined {
  if (needed <= subjects) return 0;
  return perDay ? (needed - subjects) / perDay / DAYS_PER_WEEK : undefined;
}
