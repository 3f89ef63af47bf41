import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { alwaysValidP, boundary } from '../../../src/domain/experiments/confidence_sequence.js';

describe('boundary', () => {
  it('is lowest near 1000 subjects, and a quarter higher at 100 and 100 000', () => {
    const lowest = boundary(1_000, 0.05);
    for (const subjects of [300, 500, 800, 1_250, 2_000, 5_000])
      expect(boundary(subjects, 0.05)).toBeGreaterThan(lowest * 0.9995);
    expect(boundary(100, 0.05) / lowest).toBeCloseTo(1.25, 1);
    expect(boundary(100_000, 0.05) / lowest).toBeCloseTo(1.2, 1);
  });

  it('has the value of Lambert’s W at its optimum', () => {
    // The square at the optimum is W = -W_{-1}(-alpha^2 / e); scipy.special.lambertw gives these.
    expect(boundary(1_000, 0.05) ** 2).toBeCloseTo(9.2105, 1);
    expect(boundary(1_000, 0.01) ** 2).toBeCloseTo(12.7693, 1);
  });

  it('is higher than that of a test that is made once, and grows without bound', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1e9 }), (subjects) => {
        expect(boundary(subjects, 0.05)).toBeGreaterThan(1.96);
        expect(boundary(subjects, 0.01)).toBeGreaterThan(boundary(subjects, 0.05));
      }),
    );
    expect(boundary(1e15, 0.05)).toBeGreaterThan(boundary(1e9, 0.05) + 0.5);
  });
});

describe('alwaysValidP', () => {
  it('is alpha on the boundary, below it outside and above it inside', () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 1e7 }),
        fc.double({ min: 0.0001, max: 0.5, noNaN: true }),
        (subjects, alpha) => {
          const limit = boundary(subjects, alpha);
          expect(alwaysValidP(limit, subjects, alpha)).toBeCloseTo(alpha, 10);
          expect(alwaysValidP(-limit * 1.01, subjects, alpha)).toBeLessThan(alpha);
          expect(alwaysValidP(limit * 0.99, subjects, alpha)).toBeGreaterThan(alpha);
        },
      ),
    );
  });

  it('is 1 without a difference', () => expect(alwaysValidP(0, 5_000, 0.05)).toBe(1));
});
