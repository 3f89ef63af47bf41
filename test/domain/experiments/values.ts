import type { MetricSums } from '../../../src/domain/experiments/metric_sums.js';

/** The sums of subjects, each with its numerator and denominator. */
export function sumsOf(subjects: readonly (readonly [y: number, x: number])[]): MetricSums {
  const sum = (of: (y: number, x: number) => number) => subjects.reduce((total, [y, x]) => total + of(y, x), 0);
  return {
    subjects: subjects.length,
    x: sum((_, x) => x),
    xx: sum((_, x) => x * x),
    y: sum((y) => y),
    yy: sum((y) => y * y),
    xy: sum((y, x) => x * y),
  };
}

/** The sums of subjects with one value each. */
export const sumsOfValues = (values: readonly number[]): MetricSums =>
  sumsOf(values.map((value) => [value, 1] as const));

/** The sums of subjects with one call each, of which some are successful. */
export const sumsOfSuccesses = (successes: number, subjects: number): MetricSums => ({
  subjects,
  x: subjects,
  xx: subjects,
  y: successes,
  yy: successes,
  xy: successes,
});
