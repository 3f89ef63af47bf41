/*
 * Confidence sequences: with a probability of at least 1 - alpha, the intervals at all times contain the true value.
 * Results can therefore be read after every call, and the experiment can be stopped at any time.
 *
 * The boundary is the two-sided normal mixture of Robbins (1970, "Statistical methods related to the law of the iterated
 * logarithm"). With estimated variances the guarantee is asymptotic, in the sense of Waudby-Smith, Arbour, Sinha, Kennedy
 * and Ramdas (2021, "Time-uniform central limit theory and asymptotic confidence sequences", theorem 2.2): it holds for any
 * distribution with a finite variance if the number of subjects is large enough.
 */

/** The minimum number of subjects of each variant for an interval. */
export const MINIMUM_SUBJECTS = 100;

/**
 * The number of subjects of each variant for which the boundary is tuned: it is lowest there, and a quarter higher at
 * 100 and at 100 000 subjects.
 */
const TUNED_SUBJECTS = 1_000;

/**
 * The variance of the mixture, in units of the variance of one subject. It minimizes the boundary at TUNED_SUBJECTS
 * with a relative error of at most 0.1 %; the exact value needs Lambert's W (Howard, Ramdas, McAuliffe and Sekhon 2021,
 * "Time-uniform, nonparametric, nonasymptotic confidence sequences", section 3.5).
 */
function mixtureVariance(alpha: number): number {
  const evidence = -2 * Math.log(alpha);
  return (evidence + Math.log1p(evidence)) / TUNED_SUBJECTS;
}

/** Half the width of the interval in standard errors, after a number of subjects. */
export function boundary(subjects: number, alpha: number): number {
  const information = subjects * mixtureVariance(alpha);
  return Math.sqrt((1 + 1 / information) * (Math.log1p(information) - 2 * Math.log(alpha)));
}

/**
 * The always-valid p-value of an estimate that differs from the hypothesis by a number of standard errors: the smallest
 * level at which the sequence that is tuned for `alpha` excludes the hypothesis. It is the inverse of the likelihood
 * ratio of the mixture; the probability that this ratio ever exceeds 1/p is at most p (Ville's inequality).
 */
export function alwaysValidP(standardErrors: number, subjects: number, alpha: number): number {
  const information = subjects * mixtureVariance(alpha);
  const exponent = (standardErrors ** 2 / 2) * (information / (1 + information));
  return Math.min(1, Math.sqrt(1 + information) * Math.exp(-exponent));
}
