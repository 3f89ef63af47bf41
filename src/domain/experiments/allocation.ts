import { BUCKETS, type BucketRange } from './assignment.js';

/** A variant with its share of the subjects in basis points. */
export interface VariantWeight {
  readonly name: string;
  readonly weight: number;
}

/** A variant with its buckets, in ascending ranges that are not adjacent. */
export interface VariantBuckets {
  readonly name: string;
  readonly ranges: readonly BucketRange[];
}

/**
 * The buckets of variants after a change of weights. A variant with a lower weight, or a removed variant, gives up its
 * highest buckets. Variants with a higher weight, and new variants, take these buckets in ascending order, in the order
 * of `weights`. No other bucket moves, so the smallest possible number of buckets moves. Without previous buckets, the
 * ranges follow each other in the order of `weights`.
 */
export function allocate(
  previous: readonly VariantBuckets[],
  weights: readonly VariantWeight[],
): readonly VariantBuckets[] {
  checkWeights(weights);
  checkCover(previous);
  const weightOf = new Map(weights.map(({ name, weight }) => [name, weight]));
  const kept = new Map<string, readonly BucketRange[]>();
  const free: BucketRange[] = previous.length === 0 ? [{ start: 0, end: BUCKETS }] : [];
  for (const { name, ranges } of previous) {
    const keeps = Math.min(bucketCount(ranges), weightOf.get(name) ?? 0);
    const [low, high] = split(normalized(ranges), keeps);
    kept.set(name, low);
    free.push(...high);
  }
  let rest: readonly BucketRange[] = normalized(free);
  return weights.map(({ name, weight }) => {
    const ranges = kept.get(name) ?? [];
    const [taken, left] = split(rest, weight - bucketCount(ranges));
    rest = left;
    return { name, ranges: normalized([...ranges, ...taken]) };
  });
}

/** The number of buckets in ranges. */
export const bucketCount = (ranges: readonly BucketRange[]): number =>
  ranges.reduce((sum, { start, end }) => sum + end - start, 0);

/** A violation is a programming error: callers validate weights, and stored ranges are results of `allocate`. */
function checkWeights(weights: readonly VariantWeight[]): void {
  const sum = weights.reduce((total, { weight }) => total + weight, 0);
  const isValid = weights.every(({ weight }) => Number.isInteger(weight) && weight >= 0) && sum === BUCKETS;
  if (!isValid) throw new Error(`weights are whole basis points with the sum ${BUCKETS}, not ${sum}`);
  if (new Set(weights.map(({ name }) => name)).size !== weights.length)
    throw new Error('two variants have the same name');
}

function checkCover(variants: readonly VariantBuckets[]): void {
  const count = variants.reduce((sum, { ranges }) => sum + bucketCount(ranges), 0);
  if (variants.length > 0 && count !== BUCKETS) throw new Error(`the variants have ${count} buckets, not ${BUCKETS}`);
}

/** Splits ranges into the lowest `count` buckets and the rest. */
function split(ranges: readonly BucketRange[], count: number): [BucketRange[], BucketRange[]] {
  const [low, high]: [BucketRange[], BucketRange[]] = [[], []];
  let missing = count;
  for (const { start, end } of ranges) {
    const middle = Math.min(end, start + missing);
    if (middle > start) low.push({ start, end: middle });
    if (end > middle) high.push({ start: middle, end });
    missing -= middle - start;
  }
  return [low, high];
}

/** Ranges in ascending order; adjacent ranges are merged. */
function normalized(ranges: readonly BucketRange[]): BucketRange[] {
  const joined: BucketRange[] = [];
  for (const range of [...ranges].sort((a, b) => a.start - b.start)) {
    const last = joined.at(-1);
    if (last?.end === range.start) joined[joined.length - 1] = { start: last.start, end: range.end };
    else joined.push(range);
  }
  return joined;
}
