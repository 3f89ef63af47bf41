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
export function estimateOf(sums: MetricSums): Estimate | undefined {
  const { subjects, x, y } = sums;
  if (subjects <= 0 || x <= 0) return undefined;
  const value = y / x;
  const squares = squaresOf(sums, value) * (subjects / x) ** 2;
  return Number.isFinite(value) && Number.isFinite(squares) ? { subjects, value, squares } : undefined;
}

/** A bound of the relative error of the sums, which are rounded to doubles, and of the products with the value. */
const ROUNDING = 8 * Number.EPSILON;
/** The part of a sum of squares that may be rounding. */
const NEGLIGIBLE = 1e-6;

/**
 * The sum of `(y - value * x)^2`. It is the difference of large sums. If that could be rounding, the bound of the error is
 * added: a variance that is too small would make chance look certain. Sums of whole numbers that a double has exactly need
 * none, so that equal values have no variance.
 */
function squaresOf(sums: MetricSums, value: number): number {
  const { xx, yy, xy } = sums;
  const product = 2 * value * xy;
  const square = value * value * xx;
  const squares = yy - product + square;
  const error = ROUNDING * (yy + Math.abs(product) + square);
  if (error < NEGLIGIBLE * squares) return squares;
  return Object.values(sums).every(Number.isSafeInteger) ? exactSquares(sums) : Math.max(0, squares) + error;
}

function exactSquares(sums: MetricSums): number {
  const [x, xx, y, yy, xy] = [BigInt(sums.x), BigInt(sums.xx), BigInt(sums.y), BigInt(sums.yy), BigInt(sums.xy)];
  return Math.max(0, Number(yy * x * x - 2n * y * x * xy + y * y * xx)) / sums.x ** 2;
}
