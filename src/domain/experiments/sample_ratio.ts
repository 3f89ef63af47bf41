import { logMixtureRatio } from './beta_mixture.js';

/** A mismatch is reported when the p-value is below this level. */
export const MISMATCH_LEVEL = 0.01;

/** The new subjects of one variant since the buckets last changed, with its weight at that time. */
export interface SampleCount {
  readonly subjects: number;
  readonly weight: number;
}

export interface SampleRatioCheck {
  /** Always valid. */
  readonly pValue: number;
  readonly mismatch: boolean;
  /** The expected numbers of subjects by the weights, in the order of the counts. */
  readonly expected: readonly number[];
}

/**
 * The number of observations to which the prior is equivalent. With this number, a share of 55 instead of 50 % is
 * detected soonest.
 */
const CONCENTRATION = 100;

/**
 * Checks whether subjects are assigned in the ratio of the weights. A variant with a weight of 0 is left out, because
 * its subjects come from processes that do not know the new weights yet.
 */
export function checkSampleRatio(counts: readonly SampleCount[]): SampleRatioCheck {
  const counted = counts.filter(({ weight }) => weight > 0);
  const weights = counted.reduce((sum, { weight }) => sum + weight, 0);
  const subjects = counted.reduce((sum, one) => sum + one.subjects, 0);
  const shares = counted.map(({ weight }) => weight / weights);
  const observed = counted.map((one) => one.subjects);
  const ratio = counted.length < 2 ? 0 : logMixtureRatio(observed, shares, CONCENTRATION);
  const pValue = Math.min(1, Math.exp(-ratio));
  return {
    pValue,
    mismatch: pValue < MISMATCH_LEVEL,
    expected: counts.map(({ weight }) => (weights === 0 ? 0 : (subjects * weight) / weights)),
  };
}
