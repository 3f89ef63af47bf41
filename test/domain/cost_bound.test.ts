import { describe, expect, it } from 'vitest';
import { ratesOf } from '../../src/domain/catalogue.js';
import { nanoUsdOf, ratesAt, tokenKindsOf } from '../../src/domain/cost.js';
import { highestCost } from '../../src/domain/cost_bound.js';

const price = ratesOf({
  input_micro_usd_per_million: 1_000_000,
  cache_write_micro_usd_per_million: 1_250_000,
  cached_input_micro_usd_per_million: 100_000,
  output_micro_usd_per_million: 5_000_001,
  tiers: [{ above_input_tokens: 1000, rates: { input_micro_usd_per_million: 2_000_000 } }],
  windows: [{ start_minute: 0, end_minute: 60, rates: { output_micro_usd_per_million: 9_000_000 }, tiers: [] }],
});

describe('highestCost', () => {
  it('prices the input at the highest rate that could apply, and rounds up', () => {
    const { windows: _, ...plain } = price;
    const cost = highestCost({ ...plain, windows: [] }, { input: 1000, output: 1 });
    expect(cost).toBe(1_250_000n + 5_001n);
  });

  it('includes the tiers that the input can reach, and every time window', () => {
    expect(highestCost(price, { input: 1001, output: 0 })).toBe(2_002_000n);
    expect(highestCost(price, { input: 0, output: 10 })).toBe(90_000n);
  });

  it('is unknown if a rate of input or output is unknown', () => {
    expect(highestCost({ ...price, input_micro_usd_per_million: null }, { input: 1, output: 1 })).toBeUndefined();
    expect(highestCost({ ...price, output_micro_usd_per_million: null }, { input: 1, output: 1 })).toBeUndefined();
  });

  it('is at least the cost of every attempt of at most that size', () => {
    const bound = { input: 3000, output: 700 };
    const highest = highestCost(price, bound) ?? -1n;
    for (let step = 0; step < 500; step++) {
      const [input, output] = [step * 6, (step * 7) % 700];
      const usage = { input_tokens: input, output_tokens: output, input_cache_write_tokens: step % 2 ? input : 0 };
      const kinds = tokenKindsOf(usage);
      const at = new Date(step * 3_000_000);
      expect(kinds && nanoUsdOf(kinds, ratesAt(price, at, input))).toBeLessThanOrEqual(highest);
    }
  });
});
