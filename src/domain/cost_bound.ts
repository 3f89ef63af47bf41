import type { PriceTier, Rates, TieredRates } from './rows.js';

const PICO_PER_NANO = 1000n;

/** An upper bound of the model tokens of one attempt. */
export interface TokenBound {
  readonly input: number;
  readonly output: number;
}

/**
 * The highest cost of an attempt of at most this size, in nano-USD, rounded up. Every input token is priced at the
 * highest input rate of all time windows and of all context tiers that the input can reach.
 * @returns undefined if a rate of input or output is unknown, because the cost then has no bound.
 */
export function highestCost(price: TieredRates, bound: TokenBound): bigint | undefined {
  let highest = 0n;
  for (const rates of possibleRates(price, bound.input)) {
    const cost = costAt(rates, bound);
    if (cost === undefined) return undefined;
    if (cost > highest) highest = cost;
  }
  return highest;
}

function* possibleRates({ tiers, windows, ...base }: TieredRates, input: number): Generator<Rates> {
  yield* withTiers(base, tiers, input);
  for (const window of windows) yield* withTiers({ ...base, ...window.rates }, window.tiers, input);
}

function* withTiers(rates: Rates, tiers: readonly PriceTier[], input: number): Generator<Rates> {
  yield rates;
  for (const tier of tiers) if (input > tier.above_input_tokens) yield { ...rates, ...tier.rates };
}

function costAt(rates: Rates, { input, output }: TokenBound): bigint | undefined {
  const { input_micro_usd_per_million: plain, output_micro_usd_per_million: written } = rates;
  if (plain === null || written === null) return undefined;
  const inputRate = Math.max(
    plain,
    rates.cached_input_micro_usd_per_million ?? 0,
    rates.cache_write_micro_usd_per_million ?? 0,
    rates.cache_write_long_micro_usd_per_million ?? 0,
  );
  const outputRate = Math.max(written, rates.reasoning_micro_usd_per_million ?? 0);
  const picoUsd = BigInt(input) * BigInt(inputRate) + BigInt(output) * BigInt(outputRate);
  return (picoUsd + PICO_PER_NANO - 1n) / PICO_PER_NANO;
}
