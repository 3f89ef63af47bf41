import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { estimateOf, meanSums } from '../../../src/domain/experiments/metric_sums.js';
import { sumsOf, sumsOfValues } from './values.js';

const NOTHING = { subjects: 0, x: 0, xx: 0, y: 0, yy: 0, xy: 0 };

describe('estimateOf', () => {
  it('is the mean and the sum of squares for one value per subject', () => {
    expect(estimateOf(sumsOfValues([2, 4, 4, 4, 5, 5, 7, 9]))).toEqual({ subjects: 8, value: 5, squares: 32 });
    expect(meanSums(8, 40, 232)).toEqual(sumsOfValues([2, 4, 4, 4, 5, 5, 7, 9]));
  });

  it('divides the sums of all calls, so that a subject with more calls counts more', () => {
    const estimate = estimateOf(
      sumsOf([
        [3, 1],
        [1, 3],
      ]),
    );
    expect(estimate?.value).toBe(1);
    // (3 - 1)^2 + (1 - 3)^2, divided by the square of the mean number of calls, 2.
    expect(estimate?.squares).toBeCloseTo(2, 12);
  });

  it('has no variation if all calls have the same value, whatever their number', () => {
    const calls = fc.array(fc.integer({ min: 1, max: 50 }), { minLength: 1, maxLength: 50 });
    fc.assert(
      fc.property(calls, fc.double({ min: 1e-9, max: 1e9, noNaN: true }), (counts, value) => {
        const estimate = estimateOf(sumsOf(counts.map((count) => [count * value, count] as const)));
        expect(estimate?.value).toBeCloseTo(value, 3);
        expect(estimate?.squares).toBeGreaterThanOrEqual(0);
        expect(estimate?.squares).toBeLessThanOrEqual(1e-9 * value ** 2);
      }),
    );
  });

  it('is never less certain than a double can tell, for large values that differ little', () => {
    const deviations = fc.array(fc.integer({ min: -500, max: 500 }), { minLength: 100, maxLength: 200 });
    fc.assert(
      fc.property(
        deviations,
        fc.oneof(fc.integer({ min: 1000, max: 1_000_000 }), fc.integer({ min: 1000, max: 1_000_000_000_000 })),
        (all, base) => {
          const values = all.map((deviation) => BigInt(base + deviation));
          const total = (of: (value: bigint) => bigint) => values.reduce((sum, value) => sum + of(value), 0n);
          const [sum, squared] = [total((value) => value), total((value) => value * value)];
          const estimate = estimateOf(meanSums(values.length, Number(sum), Number(squared)));
          const exact = Number(squared * BigInt(values.length) - sum * sum) / values.length;
          expect(estimate?.squares).toBeGreaterThanOrEqual(exact * (1 - 1e-6));
          // For values of a usual size this is the exact variance.
          if (base < 1_000_000) expect(estimate?.squares).toBeLessThanOrEqual(exact * (1 + 1e-6));
        },
      ),
    );
  });

  it('has no value without subjects, without calls, and for sums that are not numbers', () => {
    expect(estimateOf(NOTHING)).toBeUndefined();
    expect(estimateOf({ ...NOTHING, subjects: 3 })).toBeUndefined();
    expect(estimateOf({ ...sumsOfValues([1, 2]), yy: Number.NaN })).toBeUndefined();
    expect(estimateOf({ ...sumsOfValues([1, 2]), y: Number.POSITIVE_INFINITY })).toBeUndefined();
  });
});
