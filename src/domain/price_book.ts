import type { Price, TieredRates } from './rows.js';

/*
 * The prices of a model over time. A price is valid from its start until the start of the next price. A price can be added
 * before its start.
 */

/**
 * How much later than the clock of this machine a new price may start and still be valid. The database states the time
 * of a price, and the clocks of machines differ.
 */
const CLOCK_TOLERANCE_MS = 1000;

/**
 * The price that is valid now; undefined if there is none, or if none of its rates is known. A price that was valid when
 * it was added is valid even if the clock of this machine is slow.
 * @param prices of one model, oldest first.
 */
export function currentPrice(prices: readonly Price[], now: Date): Price | undefined {
  const current = prices.findLast(
    ({ valid_from, created_at }) =>
      valid_from.getTime() <= Math.max(now.getTime(), created_at.getTime() + CLOCK_TOLERANCE_MS),
  );
  return current && hasRate(current) ? current : undefined;
}

/** The start of a price that is valid from now. It is later than that of the current price, which it replaces. */
export function startNow(prices: readonly Price[], now: Date): Date {
  const starts = new Set(prices.map(({ valid_from }) => valid_from.getTime()));
  let start = Math.max(now.getTime(), (currentPrice(prices, now)?.valid_from.getTime() ?? 0) + 1);
  while (starts.has(start)) start++;
  return new Date(start);
}

/** The end of the validity of a price that starts at a time: the start of the next price. */
export const endOf = (prices: readonly Price[], start: Date): Date | undefined =>
  prices.find(({ valid_from }) => valid_from.getTime() > start.getTime())?.valid_from;

/** Whether a price has a rate without its tiers and windows. */
export const hasRate = ({ tiers: _, windows: __, ...rates }: TieredRates): boolean =>
  [
    rates.input_micro_usd_per_million,
    rates.cached_input_micro_usd_per_million,
    rates.cache_write_micro_usd_per_million,
    rates.output_micro_usd_per_million,
    rates.reasoning_micro_usd_per_million,
    rates.cache_write_long_micro_usd_per_million,
  ].some((rate) => rate !== null && rate !== undefined);
