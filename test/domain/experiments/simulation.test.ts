import { describe, expect, it } from 'vitest';
import { ALPHA, peek } from '../../../bench/simulation/peeking.js';
import { peekAtQuantiles, QUANTILE_SCENARIOS } from '../../../bench/simulation/quantiles.js';
import { mismatches } from '../../../bench/simulation/sample_ratios.js';
import { DIFFERENT_SCENARIOS, NULL_SCENARIOS } from '../../../bench/simulation/scenarios.js';
import { MISMATCH_LEVEL } from '../../../src/domain/experiments/sample_ratio.js';

/*
 * Checks the error rates of experiments that are read after every call and stopped at the first result, by simulation with
 * fixed seeds. `npm run bench -- experiments` does the same with many more runs.
 */

const RUNS = 40;

describe('a person who looks after every call', () => {
  it.each(NULL_SCENARIOS.map((one) => [one.name, one] as const))(
    'sees a false difference at most as often as promised: %s',
    (_, scenario) => {
      const { different, missed, relativeMissed, naiveMissed } = peek(scenario, RUNS);
      expect(different).toBeLessThanOrEqual(ALPHA * RUNS);
      expect(missed).toBeLessThanOrEqual(ALPHA * RUNS);
      expect(relativeMissed).toBeLessThanOrEqual(ALPHA * RUNS);
      // A test that is made for one look is wrong several times as often, so the simulation can fail.
      expect(naiveMissed).toBeGreaterThan(2.5 * ALPHA * RUNS);
    },
  );

  it.each(DIFFERENT_SCENARIOS.map((one) => [one.name, one] as const))(
    'sees the true difference, and intervals that contain it: %s',
    (_, scenario) => {
      const { different, missed, relativeMissed } = peek(scenario, RUNS);
      expect(different).toBe(RUNS);
      expect(missed).toBeLessThanOrEqual(ALPHA * RUNS);
      expect(relativeMissed).toBeLessThanOrEqual(ALPHA * RUNS);
    },
  );
});

describe('a person who looks at quantiles of durations', () => {
  it.each(QUANTILE_SCENARIOS.map((one) => [one.name, one] as const))(
    'sees intervals that contain the true difference: %s',
    (_, scenario) => {
      const runs = 10;
      const { missed, different } = peekAtQuantiles(scenario, runs);
      expect(missed).toBeLessThanOrEqual(ALPHA * runs);
      if (scenario.means[0] !== scenario.means[1]) expect(different).toBe(runs);
    },
  );
});

describe('a person who looks at the sample ratio after every subject', () => {
  it.each([[[5000, 5000]], [[9000, 500, 500]]])('sees a false mismatch at most as often as promised: %j', (weights) => {
    expect(mismatches({ weights, subjects: 1_000, lost: 0 }, 200)).toBeLessThanOrEqual(MISMATCH_LEVEL * 200);
  });

  it('sees that a fifth of the subjects of a variant is lost', () => {
    expect(mismatches({ weights: [5000, 5000], subjects: 5_000, lost: 0.2 }, 40)).toBe(40);
  });
});
