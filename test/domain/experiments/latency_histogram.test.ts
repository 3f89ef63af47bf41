import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  binEnd,
  binStart,
  LATENCY_BINS,
  latencyBin,
  latencyQuantile,
} from '../../../src/domain/experiments/latency_histogram.js';

const histogramOf = (durations: readonly number[]) => {
  const bins = new Array<number>(LATENCY_BINS).fill(0);
  for (const ms of durations) bins[latencyBin(ms)] = (bins[latencyBin(ms)] as number) + 1;
  return bins;
};

describe('latencyBin', () => {
  it('has every duration between the bounds of its bin', () => {
    fc.assert(
      fc.property(fc.double({ min: 0, max: 1e7, noNaN: true }), (ms) => {
        const bin = latencyBin(ms);
        expect(ms).toBeGreaterThanOrEqual(binStart(bin) * (1 - 1e-12));
        expect(ms).toBeLessThan(binEnd(bin) * (1 + 1e-12));
      }),
    );
    for (let power = 0; power <= 22; power++) expect(binStart(latencyBin(2 ** power))).toBe(2 ** power);
  });

  it('has bins of at most 7.2 %, and a bin for every number', () => {
    for (let bin = 1; bin < LATENCY_BINS - 1; bin++) expect(binEnd(bin) / binStart(bin)).toBeLessThan(1.072);
    expect([-1, 0, 0.99, Number.NaN].map(latencyBin)).toEqual([0, 0, 0, 0]);
    expect([2 ** 22, 1e12, Number.POSITIVE_INFINITY].map(latencyBin)).toEqual([221, 221, 221]);
  });
});

describe('latencyQuantile', () => {
  it('differs from the quantile of the durations by at most the width of a bin', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 1, max: 1e6, noNaN: true }), { minLength: 1, maxLength: 200 }),
        fc.constantFrom(0.5, 0.95, 0.99),
        (durations, share) => {
          const sorted = [...durations].sort((a, b) => a - b);
          const exact = sorted[Math.ceil(share * sorted.length) - 1] as number;
          const quantile = latencyQuantile(histogramOf(durations), share) as number;
          expect(quantile / exact).toBeGreaterThan(1 / 1.0718);
          expect(quantile / exact).toBeLessThan(1.0718);
        },
      ),
    );
  });

  it('has no value without calls', () => {
    expect(latencyQuantile([], 0.5)).toBeUndefined();
    expect(latencyQuantile(histogramOf([]), 0.5)).toBeUndefined();
  });
});
