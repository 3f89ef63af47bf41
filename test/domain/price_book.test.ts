import { describe, expect, it } from 'vitest';
import { ratesOf } from '../../src/domain/catalogue.js';
import { currentPrice, endOf, hasRate, startNow } from '../../src/domain/price_book.js';
import type { Price } from '../../src/domain/rows.js';

const at = (time: number) => new Date(time);
const MINUTE = 60_000;
/** A price with its start and the time at which it was added. */
const price = (id: number, start: number, added = start): Price => ({
  ...ratesOf({ input_micro_usd_per_million: id }),
  id,
  model_id: 1,
  valid_from: at(start),
  source: 'a test',
  created_at: at(added),
  revision: id,
});

describe('currentPrice', () => {
  const prices = [price(1, 0), price(2, 10 * MINUTE, 0), price(3, 20 * MINUTE, 0)];

  it.each([
    [0, 1],
    [10 * MINUTE, 2],
    [20 * MINUTE - 1, 2],
    [20 * MINUTE, 3],
  ])('is at %i ms the price %i, from exactly its start', (now, id) => {
    expect(currentPrice(prices, at(now))?.id).toBe(id);
  });

  it('is a price that was valid when it was added, even if the clock of this machine is slow', () => {
    expect(currentPrice([price(1, 0), price(2, 10 * MINUTE, 10 * MINUTE - 5)], at(0))?.id).toBe(2);
  });

  it('is undefined before the first price, and while no rate is known', () => {
    expect(currentPrice([price(1, 10 * MINUTE, 0)], at(MINUTE))).toBeUndefined();
    expect(currentPrice([], at(0))).toBeUndefined();
    expect(currentPrice([price(1, 0), { ...price(2, 1), input_micro_usd_per_million: null }], at(5))).toBeUndefined();
  });
});

describe('startNow', () => {
  it('is now, or the first later time at which no price starts', () => {
    expect(startNow([], at(5))).toEqual(at(5));
    expect(startNow([price(1, 0)], at(5))).toEqual(at(5));
    expect(startNow([price(1, 4), price(2, 5), price(3, 6)], at(5))).toEqual(at(7));
  });

  it('is later than the start of the current price if the clock was set back', () => {
    expect(startNow([price(1, 10 * MINUTE)], at(5 * MINUTE))).toEqual(at(10 * MINUTE + 1));
  });

  it('is before a price that is not valid yet', () => {
    expect(startNow([price(1, 10 * MINUTE, 0)], at(5 * MINUTE))).toEqual(at(5 * MINUTE));
  });
});

describe('endOf', () => {
  it('is the start of the next price', () => {
    const prices = [price(1, 1), price(2, 2)];
    expect([1, 2].map((start) => endOf(prices, at(start)))).toEqual([at(2), undefined]);
  });
});

describe('hasRate', () => {
  it('is true for a price with any rate, 0 included', () => {
    expect(hasRate(ratesOf({}))).toBe(false);
    expect(hasRate(ratesOf({ cache_write_long_micro_usd_per_million: 0 }))).toBe(true);
    expect(hasRate(ratesOf({ tiers: [{ above_input_tokens: 1, rates: { output_micro_usd_per_million: 1 } }] }))).toBe(
      false,
    );
  });
});
