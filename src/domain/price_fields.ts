import { z } from 'zod';
import { limits } from '../limits.js';
import { maxElements } from '../max_elements.js';
import { overlap } from './cost.js';
import { int64, integer, list, text } from './fields.js';
import type { OtherRates, PriceTier, PriceWindow } from './rows.js';

/* The schemas of a price in a request. */

const rate = int64(limits.rate).optional();
const rates = {
  input_micro_usd_per_million: rate,
  cached_input_micro_usd_per_million: rate,
  cache_write_micro_usd_per_million: rate,
  output_micro_usd_per_million: rate,
  reasoning_micro_usd_per_million: rate,
  cache_write_long_micro_usd_per_million: rate,
};

/** The stored form of the rates of a tier or window, without absent rates. */
const otherRates = z
  .object(rates, 'is required')
  .refine((given) => Object.values(given).some((value) => value !== undefined), 'must have at least one rate')
  .transform(
    (given): OtherRates => Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined)),
  );

const listOf = <T extends z.ZodType>(item: T, max: number) =>
  z.array(item).max(max, `must have at most ${max} entries`);

const tiers = listOf(
  z.object({ above_input_tokens: integer(limits.tierTokens), rates: otherRates }),
  maxElements['agentllm.v1.ModelPrice.tiers'],
).superRefine((values: readonly PriceTier[], context) => {
  const thresholds = values.map(({ above_input_tokens }) => above_input_tokens);
  for (const [at, threshold] of thresholds.entries())
    if (thresholds.indexOf(threshold) < at)
      context.addIssue({ code: 'custom', path: [at], message: 'must have another threshold than the other tiers' });
});

const allDays = maxElements['agentllm.v1.PriceWindow.weekdays'];

const windows = listOf(
  z
    .object({
      start_minute: integer(limits.windowStart),
      end_minute: integer(limits.windowEnd),
      rates: otherRates,
      tiers,
      weekdays: list(integer(limits.weekday), allDays),
    })
    .transform(
      ({ weekdays, ...window }): PriceWindow =>
        weekdays.length % allDays === 0 ? window : { ...window, weekdays: weekdays.sort((a, b) => a - b) },
    ),
  maxElements['agentllm.v1.ModelPrice.windows'],
).superRefine((values: readonly PriceWindow[], context) => {
  for (const [at, window] of values.entries())
    if (values.slice(0, at).some((earlier) => overlap(earlier, window)))
      context.addIssue({ code: 'custom', path: [at], message: 'must not overlap another window' });
});

/** A price that a request sets. Its start and its revision are ignored. */
export const priceSchema = z.object({ ...rates, tiers, windows, source: text(limits.priceSource) });
