import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { boundary } from '../../../src/domain/experiments/confidence_sequence.js';
import { contrastOf, differenceOf, pairOf } from '../../../src/domain/experiments/difference.js';
import type { MetricSums } from '../../../src/domain/experiments/metric_sums.js';
import { sumsOf, sumsOfSuccesses, sumsOfValues } from './values.js';

const MEAN = { alpha: 0.05, comparisons: 1, isProportion: false };
const PROPORTION = { ...MEAN, isProportion: true };

/** Values with a mean and a standard deviation (of the population). */
const values = (count: number, mean: number, deviation: number) =>
  sumsOfValues(Array.from({ length: count }, (_, at) => mean + (at % 2 === 0 ? deviation : -deviation)));

const anySums: fc.Arbitrary<MetricSums> = fc
  .array(fc.tuple(fc.integer({ min: -100, max: 100 }), fc.integer({ min: 1, max: 5 })), { minLength: 2, maxLength: 20 })
  .map((subjects) => sumsOf(Array.from({ length: 10 }, () => subjects).flat()));

describe('differenceOf', () => {
  it('has an interval of the boundary times the standard error', () => {
    const difference = differenceOf(values(1_000, 10, 2), values(1_000, 9, 2), MEAN);
    expect(difference?.absolute).toBeCloseTo(1, 12);
    // Each variance has one more subject, which is 1 from its mean.
    const error = Math.sqrt((2 * (4_000 + 1)) / 1_000 / 1_000);
    expect(difference?.interval?.low).toBeCloseTo(1 - boundary(1_000, 0.05) * error, 9);
    expect(difference?.interval?.high).toBeCloseTo(1 + boundary(1_000, 0.05) * error, 9);
    expect(difference?.relative).toBeCloseTo(1 / 9, 12);
    expect(difference?.pValue).toBeLessThan(1e-20);
  });

  it('has no interval below the minimum of subjects in either variant', () => {
    for (const [variant, control] of [
      [99, 1_000],
      [1_000, 99],
    ] as const) {
      const difference = differenceOf(values(variant, 10, 2), values(control, 9, 2), MEAN);
      expect(difference?.interval).toBeUndefined();
      expect(difference?.relativeInterval).toBeUndefined();
      expect(difference?.pValue).toBeUndefined();
      expect(difference?.absolute).toBeCloseTo(1, 1);
    }
    expect(differenceOf(values(100, 10, 2), values(100, 9, 2), MEAN)?.interval).toBeDefined();
  });

  it('has an interval for values that are constant in each variant, and none if they are all equal', () => {
    const difference = differenceOf(values(200, 2, 0), values(200, 3, 0), MEAN);
    expect(difference?.interval?.high).toBeLessThan(0);
    expect(difference?.relativeInterval?.high).toBeLessThan(0);
    expect(differenceOf(values(200, 3, 0), values(200, 3, 0), MEAN)?.interval).toBeUndefined();
    expect(differenceOf(values(200, 0, 0), values(200, 0, 0), MEAN)).toMatchObject({
      absolute: 0,
      relative: undefined,
    });
  });

  it('has an interval as long as all calls succeed', () => {
    const difference = differenceOf(sumsOfSuccesses(300, 300), sumsOfSuccesses(300, 300), PROPORTION);
    expect(difference?.absolute).toBe(0);
    expect(difference?.interval?.low).toBeLessThan(-0.01);
    expect(difference?.interval?.high).toBeGreaterThan(0.01);
    expect(difference?.pValue).toBe(1);
  });

  it('divides alpha between the comparisons', () => {
    const [variant, control] = [values(500, 10.1, 2), values(500, 10, 2)];
    const one = differenceOf(variant, control, MEAN);
    const three = differenceOf(variant, control, { ...MEAN, comparisons: 3 });
    const third = differenceOf(variant, control, { ...MEAN, alpha: 0.05 / 3 });
    expect(three?.interval).toEqual(third?.interval);
    expect(three?.interval?.high).toBeGreaterThan(one?.interval?.high as number);
    expect(three?.pValue).toBe(Math.min(1, 3 * (third?.pValue as number)));
  });

  it('takes the variation of a skewed metric from the other variant while its large values are missing', () => {
    const rare = sumsOfValues(Array.from({ length: 1_000 }, (_, at) => (at % 50 === 0 ? 51 : 1)));
    const none = sumsOfValues(new Array<number>(100).fill(1));
    // Without it the variant would be cheaper with confidence: the mean of the control is 2 ± 0.22.
    expect(differenceOf(none, rare, MEAN)?.interval?.high).toBeGreaterThan(0);
  });

  it('excludes 0 from the relative interval, from the absolute one and by the p-value together', () => {
    fc.assert(
      fc.property(anySums, anySums, fc.integer({ min: 1, max: 9 }), (variant, control, comparisons) => {
        const difference = differenceOf(variant, control, { ...MEAN, comparisons });
        const { interval, relativeInterval, pValue } = difference ?? {};
        if (!interval) return;
        const isOutside = interval.low > 0 || interval.high < 0;
        expect((pValue as number) < 0.05).toBe(isOutside);
        if (relativeInterval) expect(relativeInterval.low > 0 || relativeInterval.high < 0).toBe(isOutside);
        expect(interval.low).toBeLessThanOrEqual(difference?.absolute as number);
        expect(interval.high).toBeGreaterThanOrEqual(difference?.absolute as number);
      }),
    );
  });

  it('states the relative difference in the direction of the absolute one for a negative control', () => {
    const difference = differenceOf(values(1_000, -5, 1), values(1_000, -10, 1), MEAN);
    expect(difference?.relative).toBeCloseTo(0.5, 12);
    expect(difference?.relativeInterval?.low).toBeGreaterThan(0.4);
    expect(difference?.relativeInterval?.high).toBeLessThan(0.6);
  });

  it('has no relative interval while the control may be 0', () => {
    const difference = differenceOf(values(1_000, 1, 1), values(1_000, 0.01, 1), MEAN);
    expect(difference?.relative).toBeCloseTo(99, 6);
    expect(difference?.interval?.low).toBeGreaterThan(0);
    expect(difference?.relativeInterval).toBeUndefined();
  });

  it('does not depend on the unit of the values', () => {
    const scale = ({ y, yy, xy, ...rest }: MetricSums) => ({ ...rest, y: y * 1e9, yy: yy * 1e18, xy: xy * 1e9 });
    const [variant, control] = [values(400, 3, 2), values(700, 4, 3)];
    const [one, other] = [differenceOf(variant, control, MEAN), differenceOf(scale(variant), scale(control), MEAN)];
    expect(other?.interval?.low).toBeCloseTo((one?.interval?.low as number) * 1e9, 0);
    expect(other?.relativeInterval?.low).toBeCloseTo(one?.relativeInterval?.low as number, 9);
    expect(other?.pValue).toBeCloseTo(one?.pValue as number, 9);
  });

  it('is undefined for a variant without a value', () => {
    expect(differenceOf(sumsOfValues([]), values(100, 1, 1), MEAN)).toBeUndefined();
    expect(differenceOf(values(100, 1, 1), sumsOfValues([]), MEAN)).toBeUndefined();
  });
});

describe('contrastOf', () => {
  it('is 0 at the bounds of the relative interval', () => {
    const [variant, control] = [values(300, 9, 4), values(500, 10, 5)];
    const pair = pairOf(variant, control, MEAN);
    const relative = differenceOf(variant, control, MEAN)?.relativeInterval;
    if (!pair || !relative) throw new Error('no interval');
    const width = boundary(contrastOf(pair, 1).subjects, 0.05);
    for (const bound of [relative.low, relative.high]) {
      const { value, error } = contrastOf(pair, 1 + bound);
      expect(Math.abs(value) / error).toBeCloseTo(width, 9);
    }
  });
});
