import { checkSampleRatio } from '../../src/domain/experiments/sample_ratio.js';
import { Random } from './random.js';

/**
 * The number of runs in which the check, read after every subject, reports a mismatch at some time.
 *
 * @param lost the part of the subjects of the last variant that are not counted.
 */
export function mismatches(
  {
    weights,
    subjects,
    lost,
  }: { readonly weights: readonly number[]; readonly subjects: number; readonly lost: number },
  runs: number,
  seed = 1,
): number {
  let found = 0;
  for (let run = 0; run < runs; run++) {
    const random = new Random(seed + run);
    const counts = weights.map((weight) => ({ subjects: 0, weight }));
    for (let at = 0; at < subjects; at++) {
      const variant = draw(weights, random);
      if (variant === weights.length - 1 && random.uniform() < lost) continue;
      (counts[variant] as { subjects: number }).subjects++;
      if (!checkSampleRatio(counts).mismatch) continue;
      found++;
      break;
    }
  }
  return found;
}

function draw(weights: readonly number[], random: Random): number {
  let bucket = random.below(10_000);
  for (const [at, weight] of weights.entries()) {
    if (bucket < weight) return at;
    bucket -= weight;
  }
  return weights.length - 1;
}
