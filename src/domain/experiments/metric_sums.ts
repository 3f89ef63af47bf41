/*
 * The unit of analysis is the subject, because the calls of one subject are not independent. A metric is a ratio of sums
 * over the subjects: for example, the cost of all calls divided by the number of calls. For a mean over subjects, the
 * denominator of each subject is 1.
 */

/**
 * Sums over the subjects of one variant. For each subject, `y` is the numerator and `x` the denominator of the metric.
 */
export interface MetricSums {
  readonly subjects: number;
  readonly x: number;
  readonly xx: number;
  readonly y: number;
  readonly yy: number;
  readonly xy: number;
}

/** The sums of a metric that is a mean over subjects, computed from the sums of the values. */
export const meanSums = (subjects: number, y: number, yy: number): MetricSums => ({
  subjects,
  x: subjects,
  xx: subjects,
  y,
  yy,
  xy: y,
});

/** The value of a metric for one variant. */
export interface Estimate {
  readonly subjects: number;
  readonly value: number;
  /** The sum over the subjects of the squares of their deviations from the value, in the unit of the value. */
  readonly squares: number;
}

/**
 * The ratio of the sums. Its variance is that of the mean of `(y - value * x) / mean(x)` (delta method; Deng, Knoblich and
 * Lu 2018, "Applying the Delta Method in Metric Analytics", section 3.2).
 */
export function estimateOf({ subjects, x, xx, y, yy, xy }: MetricSums): Estimate | undefined {
  if (subjects <= 0 || x <= 0) return undefined;
  const value = y / x;
  // The difference of large sums can be slightly negative when it should be 0.
  const squares = Math.max(0, yy - 2 * value * xy + value * value * xx) * (subjects / x) ** 2;
  return Number.isFinite(value) && Number.isFinite(squares) ? { subjects, value, squares } : undefined;
}
