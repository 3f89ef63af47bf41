/*
 * Counts the durations of calls in bins whose width grows with the duration: there are ten bins for each doubling, so a bin
 * is at most 7.2 % wide. The first bin has the durations below 1 ms, the last bin those of at least 2^22 ms (70 minutes).
 */

const BINS_PER_DOUBLING = 10;
const DOUBLINGS = 22;

export const LATENCY_BINS = BINS_PER_DOUBLING * DOUBLINGS + 2;

/** The bin of a duration in ms. */
export function latencyBin(ms: number): number {
  if (!(ms >= 1)) return 0;
  return Math.min(LATENCY_BINS - 1, Math.floor(Math.log2(ms) * BINS_PER_DOUBLING) + 1);
}

/** The shortest duration of a bin in ms. */
export const binStart = (bin: number): number => (bin === 0 ? 0 : 2 ** ((bin - 1) / BINS_PER_DOUBLING));

/** The exclusive upper end of a bin in ms; the last bin has no end. */
export const binEnd = (bin: number): number => (bin >= LATENCY_BINS - 1 ? Number.POSITIVE_INFINITY : binStart(bin + 1));

/** The number of calls in each bin; bins after the end of the list are empty. */
export type LatencyHistogram = readonly number[];

export const callsIn = (histogram: LatencyHistogram): number => histogram.reduce((sum, count) => sum + count, 0);

/** A quantile in ms, interpolated within its bin; undefined without calls. */
export function latencyQuantile(histogram: LatencyHistogram, share: number): number | undefined {
  const calls = callsIn(histogram);
  if (calls === 0) return undefined;
  const rank = share * calls;
  let below = 0;
  for (const [bin, count] of histogram.entries()) {
    if (count > 0 && below + count >= rank) return within(bin, Math.max(0, rank - below) / count);
    below += count;
  }
  return within(histogram.length - 1, 1);
}

/** A duration within a bin. The logarithm is interpolated, because the width of bins grows with the duration. */
function within(bin: number, part: number): number {
  if (bin === 0) return part;
  const end = Number.isFinite(binEnd(bin)) ? binEnd(bin) : binStart(bin);
  return binStart(bin) * (end / binStart(bin)) ** part;
}
