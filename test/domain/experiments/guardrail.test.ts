import { describe, expect, it } from 'vitest';
import { type Pair, pairOf } from '../../../src/domain/experiments/difference.js';
import { guardMean, guardQuantile } from '../../../src/domain/experiments/guardrail.js';
import { LATENCY_BINS, latencyBin } from '../../../src/domain/experiments/latency_histogram.js';
import { type QuantileDifference, quantileDifference } from '../../../src/domain/experiments/quantile_difference.js';
import { sumsOfSuccesses, sumsOfValues } from './values.js';

const OPTIONS = { alpha: 0.05, comparisons: 1 };

const errors = (variant: number, control: number, subjects = 1_000) =>
  pairOf(sumsOfSuccesses(variant, subjects), sumsOfSuccesses(control, subjects), {
    ...OPTIONS,
    isProportion: true,
  }) as Pair;
const means = (variant: number, control: number) => {
  const values = (mean: number) => sumsOfValues(Array.from({ length: 1_000 }, (_, at) => mean + (at % 2) - 0.5));
  return pairOf(values(variant), values(control), { ...OPTIONS, isProportion: false }) as Pair;
};

describe('guardMean', () => {
  it('is violated when the whole interval is beyond an absolute margin', () => {
    const margin = { absolute: 0.05 };
    const state = guardMean(errors(200, 50), 'lower is better', margin);
    expect(state).toMatchObject({ permitted: 0.05, violated: true });
    expect(state.observed).toBeCloseTo(0.15, 12);
    expect(state.interval?.low).toBeGreaterThan(0.05);
    // Worse with confidence, but not by more than the margin.
    const worse = guardMean(errors(130, 50), 'lower is better', margin);
    expect(worse.interval?.low).toBeGreaterThan(0);
    expect(worse.violated).toBe(false);
    expect(guardMean(errors(50, 200), 'lower is better', margin).violated).toBe(false);
  });

  it('is not violated below the minimum of subjects', () => {
    const state = guardMean(errors(99, 0, 99), 'lower is better', { absolute: 0.05 });
    expect(state).toMatchObject({ observed: 1, interval: undefined, violated: false });
  });

  it('is violated when the variant is beyond a relative margin, with the uncertainty of the control', () => {
    const margin = { relative: 0.5 };
    expect(guardMean(errors(400, 200), 'lower is better', margin)).toMatchObject({ permitted: 0.1, violated: true });
    expect(guardMean(errors(330, 200), 'lower is better', margin).violated).toBe(false);
    expect(guardMean(errors(20, 10), 'lower is better', margin).violated).toBe(false);
  });

  it('is violated by a relative margin when the control has no errors at all', () => {
    expect(guardMean(errors(100, 0), 'lower is better', { relative: 0.5 })).toMatchObject({
      permitted: 0,
      violated: true,
    });
    expect(guardMean(errors(2, 0), 'lower is better', { relative: 0.5 }).violated).toBe(false);
  });

  it('is violated by lower values where higher ones are better', () => {
    const state = guardMean(means(0.7, 1), 'higher is better', { relative: 0.1 });
    expect(state.observed).toBeCloseTo(0.3, 9);
    expect(state.interval?.low).toBeGreaterThan(0.1);
    expect(state.violated).toBe(true);
    expect(guardMean(means(1.3, 1), 'higher is better', { relative: 0.1 }).violated).toBe(false);
    expect(guardMean(means(0.7, 1), 'higher is better', { relative: 0.9 }).violated).toBe(false);
  });

  it('takes a relative margin from the absolute value of a negative control', () => {
    expect(guardMean(means(-3, -2), 'higher is better', { relative: 0.2 })).toMatchObject({ violated: true });
    expect(guardMean(means(-2, -3), 'higher is better', { relative: 0.2 }).violated).toBe(false);
    expect(guardMean(means(-2.3, -2), 'higher is better', { relative: 0.5 }).violated).toBe(false);
    expect(guardMean(means(-1, -2), 'lower is better', { relative: 0.2 }).violated).toBe(true);
  });
});

describe('guardQuantile', () => {
  const slow = (factor: number, subjects = 5_000) => {
    const latencies = (scale: number) => {
      const histogram = new Array<number>(LATENCY_BINS).fill(0);
      for (let at = 0; at < subjects; at++) {
        const bin = latencyBin(scale * 100 * 10 ** (at / subjects));
        histogram[bin] = (histogram[bin] as number) + 1;
      }
      return { histogram, subjects, callsSquared: subjects };
    };
    return quantileDifference(latencies(factor), latencies(1), 0.95, OPTIONS) as QuantileDifference;
  };

  it('is violated when the bounds of the two quantiles are further apart than the margin', () => {
    expect(guardQuantile(slow(2), { relative: 0.3 }).violated).toBe(true);
    expect(guardQuantile(slow(2), { absolute: 300 }).violated).toBe(true);
    expect(guardQuantile(slow(2), { relative: 1.5 }).violated).toBe(false);
    expect(guardQuantile(slow(2), { absolute: 2_000 }).violated).toBe(false);
    expect(guardQuantile(slow(0.5), { relative: 0 }).violated).toBe(false);
    expect(guardQuantile(slow(2), { relative: 0.3 }).permitted / (0.3 * 891)).toBeCloseTo(1, 1);
  });

  it('is not violated without an interval', () => {
    expect(guardQuantile(slow(9, 99), { relative: 0.1 })).toMatchObject({ interval: undefined, violated: false });
  });
});
