import { gammaln } from 'simple-statistics';
import { describe, expect, it } from 'vitest';
import { logMixtureRatio } from '../../../src/domain/experiments/beta_mixture.js';

describe('gammaln', () => {
  it('has the published values', () => {
    // Logarithms of factorials (OEIS A000142) and of sqrt(pi).
    expect(gammaln(11)).toBeCloseTo(Math.log(3_628_800), 13);
    expect(gammaln(21)).toBeCloseTo(Math.log(2_432_902_008_176_640_000), 12);
    expect(gammaln(0.5)).toBeCloseTo(Math.log(Math.sqrt(Math.PI)), 14);
    // Abramowitz and Stegun, table 6.4: log10 of 100!.
    expect(gammaln(101) / Math.LN10).toBeCloseTo(157.9700036547, 9);
  });
});

describe('logMixtureRatio', () => {
  it('is the ratio of the probabilities of the counts', () => {
    // One observation: the prior mean is the expected share, so the ratio is 1.
    expect(logMixtureRatio([1, 0], [0.3, 0.7], 10)).toBeCloseTo(0, 12);
    // Two alike: (a + 1) / (A + 1) instead of the share, with a = 3 and A = 10.
    expect(logMixtureRatio([2, 0], [0.3, 0.7], 10)).toBeCloseTo(Math.log(4 / 11 / 0.3), 12);
    expect(logMixtureRatio([1, 1], [0.3, 0.7], 10)).toBeCloseTo(Math.log(7 / 11 / 0.7), 12);
  });

  it('is a martingale: its mean over the next observation is its present value', () => {
    const shares = [0.2, 0.3, 0.5];
    for (const counts of [
      [0, 0, 0],
      [5, 1, 9],
      [40, 300, 20],
    ]) {
      const next = shares.map((share, at) => {
        const after = counts.map((count, other) => count + (other === at ? 1 : 0));
        return share * Math.exp(logMixtureRatio(after, shares, 100));
      });
      const present = Math.exp(logMixtureRatio(counts, shares, 100));
      expect(next.reduce((sum, value) => sum + value, 0) / present).toBeCloseTo(1, 9);
    }
  });
});
