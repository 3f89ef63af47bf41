import { describe, expect, it } from 'vitest';
import { LATENCY_BINS, latencyBin } from '../../../src/domain/experiments/latency_histogram.js';
import {
  type LatencyCounts,
  quantileDifference,
  quantileInterval,
} from '../../../src/domain/experiments/quantile_difference.js';

/** Subjects whose calls have durations that are spread evenly from 100 ms to ten times as much on a logarithmic scale. */
function latencies(subjects: number, callsPerSubject = 1, factor = 1): LatencyCounts {
  const histogram = new Array<number>(LATENCY_BINS).fill(0);
  const calls = subjects * callsPerSubject;
  for (let at = 0; at < calls; at++) {
    const bin = latencyBin(factor * 100 * 10 ** ((at + 0.5) / calls));
    histogram[bin] = (histogram[bin] as number) + 1;
  }
  return { histogram, subjects, callsSquared: subjects * callsPerSubject ** 2 };
}

describe('quantileInterval', () => {
  it('contains the quantile and becomes narrower with the number of subjects', () => {
    let width = quantileInterval(latencies(100), 0.5, 0.05)?.high as number;
    expect(width).toBeGreaterThan(400);
    for (const subjects of [200, 1_000, 10_000, 100_000]) {
      const interval = quantileInterval(latencies(subjects), 0.5, 0.05);
      expect(interval?.low).toBeLessThan(316);
      expect(interval?.high).toBeGreaterThan(316);
      const now = (interval?.high as number) - (interval?.low as number);
      expect(now).toBeLessThanOrEqual(width);
      width = now;
    }
    // The bins around the quantile.
    expect(width).toBeLessThan(0.15 * 316);
  });

  it('has no upper bound while too few calls are longer than the quantile', () => {
    expect(quantileInterval(latencies(150), 0.99, 0.05)?.high).toBe(Number.POSITIVE_INFINITY);
    expect(quantileInterval(latencies(3_000), 0.99, 0.05)?.high).toBeLessThan(1_200);
  });

  it('is as wide for many calls of few subjects as for these subjects with one call', () => {
    expect(quantileInterval(latencies(500, 20), 0.5, 0.05)).toEqual(quantileInterval(latencies(500), 0.5, 0.05));
  });

  it('needs the minimum of subjects, and calls', () => {
    expect(quantileInterval(latencies(99, 50), 0.5, 0.05)).toBeUndefined();
    expect(quantileInterval({ histogram: [], subjects: 500, callsSquared: 0 }, 0.5, 0.05)).toBeUndefined();
  });
});

describe('quantileDifference', () => {
  const options = { alpha: 0.05, comparisons: 1 };

  it('detects a variant that is half as fast again', () => {
    const difference = quantileDifference(latencies(5_000, 1, 1.5), latencies(5_000), 0.95, options);
    expect(difference?.relative).toBeCloseTo(0.5, 1);
    expect(difference?.interval?.low).toBeGreaterThan(0);
    expect(difference?.relativeInterval?.low).toBeGreaterThan(0);
    expect(difference?.relativeInterval?.high).toBeLessThan(1);
  });

  it('does not exclude 0 for equal durations', () => {
    const { interval, relativeInterval, absolute } =
      quantileDifference(latencies(5_000), latencies(5_000), 0.5, options) ?? {};
    expect(absolute).toBe(0);
    expect(interval?.low).toBeLessThan(0);
    expect(interval?.high).toBeGreaterThan(0);
    expect(relativeInterval?.low).toBeCloseTo(
      -(relativeInterval?.high as number) / (1 + (relativeInterval?.high as number)),
      9,
    );
  });

  it('has no interval without bounds on both sides, and no value without calls', () => {
    const few = quantileDifference(latencies(150), latencies(150), 0.99, options);
    expect(few?.absolute).toBe(0);
    expect(few?.interval).toBeUndefined();
    const none = { histogram: [], subjects: 0, callsSquared: 0 };
    expect(quantileDifference(none, latencies(150), 0.5, options)).toBeUndefined();
    expect(quantileDifference(latencies(150), none, 0.5, options)).toBeUndefined();
  });
});
