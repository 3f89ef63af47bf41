import { describe, expect, it } from 'vitest';
import { checkSampleRatio } from '../../../src/domain/experiments/sample_ratio.js';

const counts = (...pairs: readonly (readonly [subjects: number, weight: number])[]) =>
  pairs.map(([subjects, weight]) => ({ subjects, weight }));

describe('checkSampleRatio', () => {
  it('accepts counts in the ratio of the weights', () => {
    const check = checkSampleRatio(counts([5_020, 5_000], [2_990, 3_000], [1_990, 2_000]));
    expect(check.mismatch).toBe(false);
    expect(check.pValue).toBe(1);
    expect(check.expected).toEqual([5_000, 3_000, 2_000]);
  });

  it('detects a loss of a tenth of the subjects of one variant', () => {
    const check = checkSampleRatio(counts([10_000, 5_000], [9_000, 5_000]));
    expect(check.mismatch).toBe(true);
    expect(check.pValue).toBeLessThan(1e-6);
    expect(check.expected).toEqual([9_500, 9_500]);
  });

  it('does not accuse a few subjects', () => {
    expect(checkSampleRatio(counts([5, 5_000], [0, 5_000])).mismatch).toBe(false);
    expect(checkSampleRatio(counts([0, 5_000], [0, 5_000]))).toEqual({ pValue: 1, mismatch: false, expected: [0, 0] });
    expect(checkSampleRatio(counts([40, 5_000], [0, 5_000])).mismatch).toBe(true);
  });

  it('leaves out a variant without weight', () => {
    const check = checkSampleRatio(counts([500, 5_000], [7, 0], [500, 5_000]));
    expect(check).toEqual({ pValue: 1, mismatch: false, expected: [500, 0, 500] });
    expect(checkSampleRatio(counts([500, 10_000], [7, 0])).mismatch).toBe(false);
    expect(checkSampleRatio([])).toEqual({ pValue: 1, mismatch: false, expected: [] });
  });
});
