/** The quantile of values in any order (nearest rank). */
export function quantile(values: ArrayLike<number>, share: number): number {
  if (values.length === 0) throw new Error('no values to compute a quantile of');
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))] as number;
}

/** The median; for an even number of values the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new Error('no values to compute a median of');
  const sorted = values.toSorted((a, b) => a - b);
  const at = sorted.length >> 1;
  const upper = sorted[at] as number;
  return sorted.length % 2 === 1 ? upper : ((sorted[at - 1] as number) + upper) / 2;
}

/** The measurements of one round. */
export interface Pair<T> {
  readonly ours: T;
  readonly reference: T;
}

/**
 * Measures both sides in turns. The order alternates with every round, so that a machine that becomes slower or warmer
 * favours neither side.
 */
export async function interleave<T>(
  rounds: number,
  ours: (round: number) => Promise<T>,
  reference: (round: number) => Promise<T>,
): Promise<Pair<T>[]> {
  const pairs: Pair<T>[] = [];
  for (let round = 0; round < rounds; round++) {
    if (round % 2 === 0) {
      const first = await ours(round);
      pairs.push({ ours: first, reference: await reference(round) });
    } else {
      const first = await reference(round);
      pairs.push({ reference: first, ours: await ours(round) });
    }
  }
  return pairs;
}

/** Medians of one measure over the rounds, and the median of the ratios or differences of each round. */
export function compare<T>(
  pairs: readonly Pair<T>[],
  measure: (side: T) => number,
  how: 'ratio' | 'difference' = 'ratio',
): { ours: number; reference: number; compared: number } {
  const both = pairs.map(({ ours, reference }) => [measure(ours), measure(reference)] as const);
  return {
    ours: median(both.map(([ours]) => ours)),
    reference: median(both.map(([, reference]) => reference)),
    compared: median(both.map(([ours, reference]) => (how === 'ratio' ? ours / reference : ours - reference))),
  };
}
