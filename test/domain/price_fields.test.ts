import { describe, expect, it } from 'vitest';
import { ModelPrice } from '../../gen/ts/agentllm/v1/provider.js';
import { priceSchema } from '../../src/domain/price_fields.js';

const price = (fields: Parameters<typeof ModelPrice.fromPartial>[0]) => ModelPrice.fromPartial(fields);
const rates = { input_micro_usd_per_million: 1n };
const problems = (fields: Parameters<typeof ModelPrice.fromPartial>[0]) =>
  (priceSchema.safeParse(price(fields)).error?.issues ?? []).map(
    ({ path, message }) => `${path.join('.')}: ${message}`,
  );

describe('priceSchema', () => {
  it('reads a price with tiers and windows, without absent rates', () => {
    const read = priceSchema.parse(
      price({
        ...rates,
        cache_write_long_micro_usd_per_million: 2n,
        tiers: [{ above_input_tokens: 200_000, rates: { output_micro_usd_per_million: 3n } }],
        windows: [{ start_minute: 990, end_minute: 30, rates, tiers: [{ above_input_tokens: 1, rates }] }],
        source: 'a list',
      }),
    );
    expect(read).toEqual({
      input_micro_usd_per_million: 1,
      cache_write_long_micro_usd_per_million: 2,
      tiers: [{ above_input_tokens: 200_000, rates: { output_micro_usd_per_million: 3 } }],
      windows: [
        {
          start_minute: 990,
          end_minute: 30,
          rates: { input_micro_usd_per_million: 1 },
          tiers: [{ above_input_tokens: 1, rates: { input_micro_usd_per_million: 1 } }],
        },
      ],
      source: 'a list',
    });
  });

  it('names each tier with a threshold out of range, a threshold of another tier or no rate', () => {
    const tier = (above_input_tokens: number) => ({ above_input_tokens, rates });
    expect(problems({ tiers: [tier(0), tier(100_000_001)] })).toEqual([
      'tiers.0.above_input_tokens: must be a whole number between 1 and 100000000, not 0',
      'tiers.1.above_input_tokens: must be a whole number between 1 and 100000000, not 100000001',
    ]);
    expect(problems({ tiers: [tier(5), tier(6), tier(5)] })).toEqual([
      'tiers.2: must have another threshold than the other tiers',
    ]);
    expect(problems({ tiers: [{ above_input_tokens: 5 }, { above_input_tokens: 6, rates: {} }] })).toEqual([
      'tiers.0.rates: is required',
      'tiers.1.rates: must have at least one rate',
    ]);
    expect(problems({ tiers: [{ above_input_tokens: 5, rates: { input_micro_usd_per_million: -1n } }] })).toEqual([
      'tiers.0.rates.input_micro_usd_per_million: must be a whole number between 0 and 1000000000000, not -1',
    ]);
  });

  it('names each window with a minute out of range, or that overlaps an earlier one', () => {
    const window = (start_minute: number, end_minute: number) => ({ start_minute, end_minute, rates });
    expect(problems({ windows: [window(1440, 0)] })).toEqual([
      'windows.0.start_minute: must be a whole number between 0 and 1439, not 1440',
      'windows.0.end_minute: must be a whole number between 1 and 1440, not 0',
    ]);
    expect(problems({ windows: [window(0, 60), window(60, 120), window(100, 30)] })).toEqual([
      'windows.2: must not overlap another window',
    ]);
  });

  it('reads weekdays in order, and all seven as every day', () => {
    const window = { start_minute: 60, end_minute: 240, rates };
    const read = (weekdays: number[]) =>
      priceSchema.parse(price({ ...rates, windows: [{ ...window, weekdays }] })).windows[0]?.weekdays;
    expect(read([5, 1])).toEqual([1, 5]);
    expect(read([])).toBeUndefined();
    expect(read([7, 6, 5, 4, 3, 2, 1])).toBeUndefined();
    expect(problems({ windows: [{ ...window, weekdays: [0, 8] }] })).toEqual([
      'windows.0.weekdays.0: must be a whole number between 1 and 7, not 0',
      'windows.0.weekdays.1: must be a whole number between 1 and 7, not 8',
    ]);
    expect(problems({ windows: [{ ...window, weekdays: [3, 3] }] })).toEqual([
      'windows.0.weekdays: must not have 3 twice',
    ]);
  });

  it('accepts at most 8 tiers and 8 windows', () => {
    const tiers = Array.from({ length: 9 }, (_, at) => ({ above_input_tokens: at + 1, rates }));
    const windows = Array.from({ length: 9 }, (_, at) => ({ start_minute: at, end_minute: at + 1, rates }));
    expect(problems({ tiers, windows })).toEqual([
      'tiers: must have at most 8 entries',
      'windows: must have at most 8 entries',
    ]);
    expect(problems({ tiers: tiers.slice(1), windows: windows.slice(1) })).toEqual([]);
  });
});
