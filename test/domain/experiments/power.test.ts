import { describe, expect, it } from 'vitest';
import { boundary } from '../../../src/domain/experiments/confidence_sequence.js';
import { type Pair, pairOf } from '../../../src/domain/experiments/difference.js';
import { neededSubjects, weeksLeft } from '../../../src/domain/experiments/power.js';
import { sumsOfSuccesses } from './values.js';

const pair = (alpha = 0.05) =>
  pairOf(sumsOfSuccesses(400, 500), sumsOfSuccesses(400, 500), { alpha, comparisons: 1, isProportion: true }) as Pair;

describe('neededSubjects', () => {
  it('is the smallest number whose interval excludes 0 with a power of 80 %', () => {
    for (const share of [0.5, 0.1, 0.9]) {
      const needed = neededSubjects(pair(), 0.05, share) as number;
      const { variances } = pair();
      const distance = (total: number) => {
        const error = Math.sqrt(variances.variant / (total * share) + variances.control / (total * (1 - share)));
        const subjects = (variances.variant + variances.control) / error ** 2;
        return 0.05 / error - boundary(subjects, 0.05);
      };
      // 0.8416 is the 80 % quantile of the normal distribution.
      expect(distance(needed)).toBeGreaterThanOrEqual(0.8416);
      expect(distance(needed - 2)).toBeLessThan(0.8417);
    }
  });

  it('is fewest for equal shares, and grows with a smaller effect, with certainty and with other variants', () => {
    const needed = neededSubjects(pair(), 0.05, 0.5) as number;
    expect(neededSubjects(pair(), 0.05, 0.1)).toBeGreaterThan(2 * needed);
    expect(neededSubjects(pair(), 0.025, 0.5)).toBeGreaterThan(3.9 * needed);
    expect(neededSubjects(pair(0.01), 0.05, 0.5)).toBeGreaterThan(needed);
    // A test that is made once needs 2 * 2 * 0.16 * (1.96 + 0.84)^2 / 0.05^2 = 2009 subjects.
    expect(needed / 2009).toBeGreaterThan(1.5);
    expect(needed / 2009).toBeLessThan(2.2);
  });

  it('is at least the minimum of subjects in the smaller variant', () => {
    expect(neededSubjects(pair(), 10, 0.5)).toBe(200);
    expect(neededSubjects(pair(), 10, 0.1)).toBe(1_000);
  });

  it('is not known for an effect of 0, for a variant without weight, and if nothing varies', () => {
    expect(neededSubjects(pair(), 0, 0.5)).toBeUndefined();
    expect(neededSubjects(pair(), Number.NaN, 0.5)).toBeUndefined();
    expect(neededSubjects(pair(), 0.05, 0)).toBeUndefined();
    expect(neededSubjects(pair(), 1e-9, 0.5)).toBeUndefined();
    expect(neededSubjects({ ...pair(), variances: { variant: 0, control: 0 } }, 0.05, 0.5)).toBeUndefined();
  });
});

describe('weeksLeft', () => {
  it('divides the missing subjects by the rate', () => {
    expect(weeksLeft(3_520, 1_000, 40)).toBe(9);
    expect(weeksLeft(1_000, 1_000, 40)).toBe(0);
    expect(weeksLeft(1_000, 2_000, undefined)).toBe(0);
    expect(weeksLeft(1_001, 1_000, undefined)).toBeUndefined();
    expect(weeksLeft(1_001, 1_000, 0)).toBeUndefined();
  });
});
