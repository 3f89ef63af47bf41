import { gammaln } from 'simple-statistics';

/**
 * The logarithm of the likelihood ratio of counts: a Dirichlet mixture of shares, centred at the expected shares,
 * against the expected shares. If the expected shares are true, the ratio is a martingale that starts at 1, so the
 * probability that it ever exceeds 1/p is at most p (Lindon and Malek 2020, "Anytime-valid inference for multinomial
 * count data", theorem 2.4).
 *
 * @param shares the expected shares; all are positive, and their sum is 1.
 * @param concentration the number of observations to which the prior is equivalent.
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
