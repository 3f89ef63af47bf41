import { gammaln } from 'simple-statistics';

/**
 * The logarithm of the likelihood ratio of counts: a Dirichlet mixture of shares, centred at the expected ones, against the
 * expected ones. Under them it is a martingale that starts at 1, so it exceeds 1/p at any time with the probability p at
 * most (Lindon and Malek 2020, "Anytime-valid inference for multinomial count data", theorem 2.4).
 *
 * @param shares the expected ones; all are positive, and the sum is 1.
 * @param concentration the number of observations that the prior counts for.
 */
export function logMixtureRatio(counts: readonly number[], shares: readonly number[], concentration: number): number {
  const total = counts.reduce((sum, count) => sum + count, 0);
  return counts.reduce(
    (sum, count, at) => {
      const share = shares[at] as number;
      const prior = concentration * share;
      return sum + gammaln(prior + count) - gammaln(prior) - count * Math.log(share);
    },
    gammaln(concentration) - gammaln(concentration + total),
  );
}
