import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  configRates,
  costOfAttempt,
  nanoUsdOf,
  overlap,
  type PricedAttempt,
  priceAt,
  priceOfAttempt,
  ratesAt,
  type TokenCounts,
  tokenKindsOf,
} from '../../src/domain/cost.js';
import type { Price, PriceTier, PriceWindow, Rates } from '../../src/domain/rows.js';
import { limits } from '../../src/limits.js';

const at = (text: string) => new Date(`2026-11-29T${text}Z`);
const NOON = at('12:00:00');

const unknownRates: Rates = {
  input_micro_usd_per_million: null,
  cached_input_micro_usd_per_million: null,
  cache_write_micro_usd_per_million: null,
  output_micro_usd_per_million: null,
  reasoning_micro_usd_per_million: null,
  cache_write_long_micro_usd_per_million: null,
};

const price = (fields: Partial<Price>): Price => ({
  ...unknownRates,
  tiers: [],
  windows: [],
  id: 1,
  model_id: 1,
  valid_from: new Date(0),
  source: 'a test',
  created_at: new Date(0),
  revision: 1,
  ...fields,
});

/** 3, 0.3, 3.75, 6, 15 USD per million tokens. */
const complete = price({
  input_micro_usd_per_million: 3_000_000,
  cached_input_micro_usd_per_million: 300_000,
  cache_write_micro_usd_per_million: 3_750_000,
  cache_write_long_micro_usd_per_million: 6_000_000,
  output_micro_usd_per_million: 15_000_000,
});

const attempt = (fields: Partial<PricedAttempt>): PricedAttempt => ({
  provider: 'claude',
  model_name: 'opus',
  started_at: NOON,
  usage: { input_tokens: 1, output_tokens: 1 },
  config: undefined,
  prices: [complete],
  ...fields,
});
const config = {
  provider: 'claude',
  model_name: 'opus',
  price_given: true,
  cost_per_1k_input_tokens: 0.001,
  cost_per_1k_output_tokens: 0.002,
};
const nanoUsd = (fields: Partial<PricedAttempt>) => costOfAttempt(attempt(fields)).nanoUsd;
const unpriced = (fields: Partial<PricedAttempt>) => costOfAttempt(attempt(fields)).unpriced;

describe('costOfAttempt', () => {
  it('prices each kind of tokens at its own rate', () => {
    const usage: TokenCounts = {
      input_tokens: 1000,
      input_cache_read_tokens: 400,
      input_cache_write_tokens: 300,
      input_cache_write_long_tokens: 100,
      output_tokens: 50,
      output_reasoning_tokens: 20,
    };
    // 300 × 3000 + 400 × 300 + 200 × 3750 + 100 × 6000 + 50 × 15000 nano-USD
    expect(nanoUsd({ usage })).toBe(900_000n + 120_000n + 750_000n + 600_000n + 750_000n);
  });

  it('prices reasoning at its own rate when the price has one', () => {
    const usage = { input_tokens: 0, output_tokens: 50, output_reasoning_tokens: 20 };
    const prices = [price({ output_micro_usd_per_million: 1_000_000, reasoning_micro_usd_per_million: 2_000_000 })];
    expect(nanoUsd({ usage, prices })).toBe(30_000n + 40_000n);
  });

  it.each([
    [499, 0n],
    [500, 1n],
    [501, 1n],
    [1499, 1n],
    [1500, 2n],
  ])('rounds half a nano-USD up when %i tokens cost 10^-12 USD each', (tokens, expected) => {
    const prices = [price({ input_micro_usd_per_million: 1, output_micro_usd_per_million: 1 })];
    expect(nanoUsd({ prices, usage: { input_tokens: tokens, output_tokens: 0 } })).toBe(expected);
  });

  it('rounds once, not for each kind, when two kinds have fractions', () => {
    const prices = [price({ input_micro_usd_per_million: 1, output_micro_usd_per_million: 1 })];
    expect(nanoUsd({ prices, usage: { input_tokens: 300, output_tokens: 300 } })).toBe(1n);
    expect(nanoUsd({ prices, usage: { input_tokens: 250, output_tokens: 249 } })).toBe(0n);
  });

  it('is exact when the product exceeds the integers of a number', () => {
    const prices = [price({ input_micro_usd_per_million: 999_999_999, output_micro_usd_per_million: 0 })];
    const usage = { input_tokens: 99_999_999, output_tokens: 0 };
    // 99 999 999 × 999 999 999 = 99 999 998 900 000 001 pico-USD
    expect(nanoUsd({ prices, usage })).toBe(99_999_998_900_000n);
  });

  it('is 0 when the rates are 0', () => {
    const prices = [price({ input_micro_usd_per_million: 0, output_micro_usd_per_million: 0 })];
    expect(costOfAttempt(attempt({ prices }))).toEqual({ nanoUsd: 0n, unpriced: undefined });
  });

  it.each<[string, Partial<PricedAttempt>, string]>([
    ['the provider reported no usage', { usage: undefined }, 'NO_USAGE'],
    ['the output is not reported', { usage: { input_tokens: 1 } }, 'NO_USAGE'],
    ['the input is not reported', { usage: { output_tokens: 1 } }, 'NO_USAGE'],
    [
      'the cached tokens exceed the input',
      { usage: { input_tokens: 1, input_cache_read_tokens: 2, output_tokens: 0 } },
      'NO_USAGE',
    ],
    ['the model is not in the catalogue', { prices: undefined }, 'UNKNOWN_MODEL'],
    ['the model has no price', { prices: [] }, 'NO_PRICE'],
    ['the first price is valid later', { prices: [price({ valid_from: new Date(NOON.getTime() + 1) })] }, 'NO_PRICE'],
    ['the output has no rate', { prices: [price({ input_micro_usd_per_million: 1 })] }, 'NO_RATE'],
    [
      'cached input has no rate',
      {
        prices: [price({ input_micro_usd_per_million: 1, output_micro_usd_per_million: 1 })],
        usage: { input_tokens: 2, input_cache_read_tokens: 1, output_tokens: 0 },
      },
      'NO_RATE',
    ],
    [
      'it exceeds the limit',
      {
        prices: [price({ input_micro_usd_per_million: 1e12, output_micro_usd_per_million: 0 })],
        usage: { input_tokens: 1_000_001, output_tokens: 0 },
      },
      'TOO_HIGH',
    ],
  ])('is unknown, not 0, when %s', (_, fields, reason) => {
    expect(costOfAttempt(attempt(fields))).toEqual({ nanoUsd: undefined, unpriced: `UNPRICED_REASON_${reason}` });
  });

  it('accepts a cost of exactly the limit', () => {
    const prices = [price({ input_micro_usd_per_million: 1e12, output_micro_usd_per_million: 0 })];
    expect(nanoUsd({ prices, usage: { input_tokens: 1_000_000, output_tokens: 0 } })).toBe(limits.attemptCost);
  });

  it('needs no rate for a kind of which no tokens were used', () => {
    const prices = [price({ input_micro_usd_per_million: 1_000_000 })];
    expect(nanoUsd({ prices, usage: { input_tokens: 7, output_tokens: 0 } })).toBe(7000n);
  });

  it('applies the price of the config to all kinds of its own model', () => {
    const usage = {
      input_tokens: 100,
      input_cache_read_tokens: 90,
      input_cache_write_tokens: 5,
      output_tokens: 10,
      output_reasoning_tokens: 9,
    };
    expect(nanoUsd({ config, usage })).toBe(100n * 1000n + 10n * 2000n);
    expect(nanoUsd({ config, usage, prices: undefined })).toBe(120_000n);
  });

  it('treats a price of 0 in the config as a price', () => {
    const free = { ...config, cost_per_1k_input_tokens: 0, cost_per_1k_output_tokens: 0 };
    expect(nanoUsd({ config: free })).toBe(0n);
  });

  it('applies the price book to the fallback of a config, and to a config without a price', () => {
    const expected = 3000n + 15_000n;
    expect(nanoUsd({ config: { ...config, model_name: 'sonnet' } })).toBe(expected);
    expect(nanoUsd({ config: { ...config, provider: 'openai' } })).toBe(expected);
    expect(nanoUsd({ config: { ...config, price_given: false } })).toBe(expected);
    expect(unpriced({ config: { ...config, model_name: 'sonnet' }, prices: [] })).toBe('UNPRICED_REASON_NO_PRICE');
  });

  it('equals the rational sum, rounded once, for any usage and rates', () => {
    const count = fc.integer({ min: 0, max: limits.attemptTokens.max });
    const rate = fc.integer({ min: 0, max: 1_000_000_000 });
    fc.assert(
      fc.property(fc.array(fc.tuple(count, rate), { minLength: 6, maxLength: 6 }), (pairs) => {
        const names = Object.keys(unknownRates) as (keyof Rates)[];
        const kinds = Object.fromEntries(names.map((name, index) => [name, pairs[index]?.[0]]));
        const rates = Object.fromEntries(names.map((name, index) => [name, pairs[index]?.[1]]));
        const pico = pairs.reduce((sum, [tokens, price]) => sum + BigInt(tokens) * BigInt(price), 0n);
        const actual = nanoUsdOf(kinds as never, rates as never) as bigint;
        // Within half a nano-USD, and not below it.
        expect(2n * (actual * 1000n - pico) <= 1000n && 2n * (actual * 1000n - pico) > -1000n).toBe(true);
      }),
    );
  });
});

describe('tokenKindsOf', () => {
  it('counts every token of the totals in exactly one kind', () => {
    const part = fc.integer({ min: 0, max: 1_000_000 });
    fc.assert(
      fc.property(part, part, part, part, part, part, (plain, read, short, long, text, reasoning) => {
        const kinds = tokenKindsOf({
          input_tokens: plain + read + short + long,
          input_cache_read_tokens: read,
          input_cache_write_tokens: short + long,
          input_cache_write_long_tokens: long,
          output_tokens: text + reasoning,
          output_reasoning_tokens: reasoning,
        });
        expect(kinds).toEqual({
          input_micro_usd_per_million: plain,
          cached_input_micro_usd_per_million: read,
          cache_write_micro_usd_per_million: short,
          cache_write_long_micro_usd_per_million: long,
          output_micro_usd_per_million: text,
          reasoning_micro_usd_per_million: reasoning,
        });
      }),
    );
  });

  it('counts tokens as input or output when their kind is not reported', () => {
    expect(tokenKindsOf({ input_tokens: 5, output_tokens: 3 })).toMatchObject({
      input_micro_usd_per_million: 5,
      cached_input_micro_usd_per_million: 0,
      output_micro_usd_per_million: 3,
      reasoning_micro_usd_per_million: 0,
    });
  });

  it('rejects kinds that exceed their total', () => {
    expect(tokenKindsOf({ input_tokens: 5, output_tokens: 3, output_reasoning_tokens: 4 })).toBeUndefined();
    const long = { input_cache_write_tokens: 1, input_cache_write_long_tokens: 2 };
    expect(tokenKindsOf({ input_tokens: 5, output_tokens: 3, ...long })).toBeUndefined();
  });
});

describe('priceAt', () => {
  const first = price({ id: 1, valid_from: at('10:00:00.000') });
  const second = price({ id: 2, valid_from: at('11:00:00.000') });

  it.each([
    ['09:59:59.999', undefined],
    ['10:00:00.000', 1],
    ['10:59:59.999', 1],
    ['11:00:00.000', 2],
    ['23:00:00.000', 2],
  ])('finds at %s the price %s', (time, id) => {
    expect(priceAt([first, second], at(time))?.id).toBe(id);
  });

  it('finds the last price that has begun, for any prices', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.integer({ min: 0, max: 100 })), fc.integer({ min: 0, max: 100 }), (starts, now) => {
        const sorted = starts.sort((a, b) => a - b);
        const prices = sorted.map((start) => price({ id: start, valid_from: new Date(start) }));
        expect(priceAt(prices, new Date(now))?.id).toBe(sorted.filter((start) => start <= now).at(-1));
      }),
    );
  });

  it('changes no cost before the start of a new price', () => {
    const dearer = price({ ...complete, id: 2, input_micro_usd_per_million: 6_000_000, valid_from: NOON });
    const prices = [complete, dearer];
    expect(nanoUsd({ prices, started_at: new Date(NOON.getTime() - 1) })).toBe(18_000n);
    expect(nanoUsd({ prices, started_at: NOON })).toBe(21_000n);
  });
});

describe('a context tier', () => {
  const tier = (above_input_tokens: number, input: number): PriceTier => ({
    above_input_tokens,
    rates: { input_micro_usd_per_million: input },
  });
  const tiered = price({
    ...complete,
    tiers: [
      {
        above_input_tokens: 200_000,
        rates: { input_micro_usd_per_million: 6_000_000, output_micro_usd_per_million: 22_500_000 },
      },
    ],
  });

  it.each([
    [199_999, 599_997_000n + 15_000n],
    [200_000, 600_000_000n + 15_000n],
    [200_001, 1_200_006_000n + 22_500n],
  ])('prices the whole request with %i input tokens', (input_tokens, expected) => {
    expect(nanoUsd({ prices: [tiered], usage: { input_tokens, output_tokens: 1 } })).toBe(expected);
  });

  it('counts cached input towards the threshold', () => {
    const usage = { input_tokens: 200_001, input_cache_read_tokens: 200_000, output_tokens: 0 };
    expect(nanoUsd({ prices: [tiered], usage })).toBe(200_000n * 300n + 6000n);
  });

  it('keeps the rates that it does not state', () => {
    expect(ratesAt(tiered, NOON, 200_001)).toMatchObject({
      cached_input_micro_usd_per_million: 300_000,
      output_micro_usd_per_million: 22_500_000,
    });
  });

  it.each([[[tier(10, 1), tier(20, 2), tier(30, 3)]], [[tier(30, 3), tier(10, 1), tier(20, 2)]]])(
    'with the highest threshold applies, in any order',
    (tiers) => {
      const inputRate = (tokens: number) => ratesAt(price({ tiers }), NOON, tokens).input_micro_usd_per_million;
      expect([10, 11, 20, 21, 30, 31, 1e8].map(inputRate)).toEqual([null, 1, 1, 2, 2, 3, 3]);
    },
  );
});

describe('a time window', () => {
  const window = (start_minute: number, end_minute: number, fields: Partial<PriceWindow> = {}): PriceWindow => ({
    start_minute,
    end_minute,
    rates: { input_micro_usd_per_million: 9 },
    tiers: [],
    ...fields,
  });
  const inputRate = (windows: readonly PriceWindow[], time: string, tokens = 1) =>
    ratesAt(price({ ...complete, windows }), at(time), tokens).input_micro_usd_per_million;

  it.each([
    ['00:59:59.999', 3_000_000],
    ['01:00:00.000', 9],
    ['03:59:59.999', 9],
    ['04:00:00.000', 3_000_000],
  ])('of 01:00 to 04:00 gives at %s the rate %i', (time, expected) => {
    expect(inputRate([window(60, 240)], time)).toBe(expected);
  });

  it.each([
    ['16:29:59.999', 3_000_000],
    ['16:30:00.000', 9],
    ['23:59:59.999', 9],
    ['00:00:00.000', 9],
    ['00:29:59.999', 9],
    ['00:30:00.000', 3_000_000],
  ])('of 16:30 to 00:30 gives at %s the rate %i', (time, expected) => {
    expect(inputRate([window(990, 30)], time)).toBe(expected);
  });

  it('can last until midnight, and the whole day', () => {
    expect(inputRate([window(1380, 1440)], '23:59:59.999')).toBe(9);
    expect(inputRate([window(1380, 1440)], '00:00:00.000')).toBe(3_000_000);
    expect(inputRate([window(0, 1440)], '12:00:00.000')).toBe(9);
  });

  // 2026-11-20 is a Friday.
  it.each([
    ['2026-11-20T02:00:00Z', [1, 2, 3, 4, 5], 9],
    ['2026-11-21T02:00:00Z', [1, 2, 3, 4, 5], 3_000_000],
    ['2026-11-22T02:00:00Z', [7], 9],
    ['2026-11-23T02:00:00Z', [7], 3_000_000],
  ])('on certain days gives at %s for the days %j the rate %i', (time, weekdays, expected) => {
    const windows = [window(60, 240, { weekdays })];
    expect(ratesAt(price({ ...complete, windows }), new Date(time), 1).input_micro_usd_per_million).toBe(expected);
  });

  it.each([
    ['2026-11-20T23:00:00Z', 9],
    ['2026-11-21T00:29:59Z', 9],
    ['2026-11-21T23:00:00Z', 3_000_000],
    ['2026-11-20T00:29:59Z', 3_000_000],
  ])('that ends on the next day counts for the day on which it starts, at %s', (time, expected) => {
    const windows = [window(990, 30, { weekdays: [5] })];
    expect(ratesAt(price({ ...complete, windows }), new Date(time), 1).input_micro_usd_per_million).toBe(expected);
  });

  it('keeps the rates that it does not state', () => {
    expect(ratesAt(price({ ...complete, windows: [window(0, 1440)] }), NOON, 1)).toMatchObject({
      output_micro_usd_per_million: 15_000_000,
      cache_write_long_micro_usd_per_million: 6_000_000,
    });
  });

  it('replaces the tiers of the price by its own', () => {
    const tiers = [{ above_input_tokens: 10, rates: { input_micro_usd_per_million: 7 } }];
    const own = [{ above_input_tokens: 20, rates: { input_micro_usd_per_million: 8 } }];
    const rateAt = (windows: readonly PriceWindow[], time: string, tokens: number) =>
      ratesAt(price({ ...complete, tiers, windows }), at(time), tokens).input_micro_usd_per_million;
    const windows = [window(60, 240, { tiers: own })];
    expect([11, 20, 21].map((tokens) => rateAt(windows, '02:00:00', tokens))).toEqual([9, 9, 8]);
    expect([10, 11, 21].map((tokens) => rateAt(windows, '05:00:00', tokens))).toEqual([3_000_000, 7, 7]);
  });

  it.each([
    [window(60, 120), window(120, 180), false],
    [window(60, 121), window(120, 180), true],
    [window(990, 30), window(30, 60), false],
    [window(990, 30), window(29, 60), true],
    [window(990, 30), window(0, 10), true],
    [window(0, 1440), window(700, 701), true],
    [window(1380, 1440), window(0, 60), false],
    [window(60, 240, { weekdays: [1, 2] }), window(60, 240, { weekdays: [3] }), false],
    [window(60, 240, { weekdays: [1, 2] }), window(60, 240, { weekdays: [2, 3] }), true],
    [window(60, 240, { weekdays: [7] }), window(0, 1440), true],
    [window(990, 30, { weekdays: [7] }), window(0, 60, { weekdays: [1] }), true],
    [window(990, 30, { weekdays: [7] }), window(0, 60, { weekdays: [7] }), false],
  ])('overlaps another one exactly when they have a minute in common', (a, b, expected) => {
    expect([overlap(a, b), overlap(b, a)]).toEqual([expected, expected]);
  });

  it('overlaps another one exactly when a minute is in both, for any two windows', () => {
    const any = fc.tuple(fc.integer({ min: 0, max: 1439 }), fc.integer({ min: 1, max: 1440 }));
    const minutes = ([start, end]: readonly [number, number]) => {
      const length = end > start ? end - start : end + 1440 - start;
      return new Set(Array.from({ length }, (_, index) => (start + index) % 1440));
    };
    fc.assert(
      fc.property(any, any, (a, b) => {
        const common = [...minutes(a)].some((minute) => minutes(b).has(minute));
        expect(overlap(window(...a), window(...b))).toBe(common);
      }),
      { numRuns: 30 },
    );
  });
});

describe('priceOfAttempt', () => {
  it('prefers the price of the config to the price book', () => {
    expect(priceOfAttempt(attempt({ config }))).toEqual(configRates(config));
    expect(priceOfAttempt(attempt({}))).toBe(complete);
  });
});
