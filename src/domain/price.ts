import type { PlannedHop } from './chain.js';
import { currentPrice } from './price_book.js';
import type { Config, Model, TieredRates } from './rows.js';
import type { ResolveView } from './view.js';

/** The price of a hop, and where it is stored. */
export interface HopPrice {
  readonly price: TieredRates & {
    /** Where the price was read. */
    readonly source: string;
    /** The start of its validity; undefined for the price of a config. */
    readonly valid_from: Date | undefined;
    /** Store revision at which it was entered. */
    readonly revision: number;
  };
  readonly source: 'VALUE_SOURCE_CONFIG' | 'VALUE_SOURCE_MODEL';
}

/**
 * The price of a hop: that of its config, else the one in the price book that is valid now. The price of a config is for
 * its model only; its fallback uses the price book.
 */
export function priceOf(
  view: Pick<ResolveView, 'pricesOf'>,
  hop: PlannedHop,
  model: Model | undefined,
  now: Date,
): HopPrice | undefined {
  if (hop.source === 'HOP_SOURCE_CONFIG' && hop.config?.price_given)
    return { price: configPrice(hop.config), source: 'VALUE_SOURCE_CONFIG' };
  const current = model && currentPrice(view.pricesOf(model.id), now);
  if (!current) return undefined;
  const { id: _, model_id: __, created_at: ___, ...price } = current;
  return { price, source: 'VALUE_SOURCE_MODEL' };
}

const configPrice = (config: Config): HopPrice['price'] => ({
  input_micro_usd_per_million: microUsdPerMillion(config.cost_per_1k_input_tokens),
  cached_input_micro_usd_per_million: null,
  cache_write_micro_usd_per_million: null,
  output_micro_usd_per_million: microUsdPerMillion(config.cost_per_1k_output_tokens),
  reasoning_micro_usd_per_million: null,
  cache_write_long_micro_usd_per_million: null,
  tiers: [],
  windows: [],
  source: `config ${config.id}`,
  valid_from: undefined,
  revision: config.revision,
});

/** Converts USD per thousand model tokens to micro-USD per million; the largest value, 10^15, is exact in a number. */
export const microUsdPerMillion = (usdPer1k: number): number => Math.round(usdPer1k * 1e9);
