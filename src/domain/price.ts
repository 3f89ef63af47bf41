import type { PlannedHop } from './chain.js';
import type { Config, Model, Price, TieredRates } from './rows.js';
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
 * The price of a hop: that of its config, else the newest one in the price book. The price of a config is for its model
 * only; its fallback uses the price book. Times are not compared: a price enters the state when it becomes valid by the
 * clock of the database, and the clock of this machine may be slow.
 */
export function priceOf(
  view: Pick<ResolveView, 'pricesOf'>,
  hop: PlannedHop,
  model: Model | undefined,
): HopPrice | undefined {
  if (hop.source === 'HOP_SOURCE_CONFIG' && hop.config?.price_given)
    return { price: configPrice(hop.config), source: 'VALUE_SOURCE_CONFIG' };
  const newest = model && view.pricesOf(model.id).at(-1);
  return newest && isKnown(newest) ? { price: ratesIn(newest), source: 'VALUE_SOURCE_MODEL' } : undefined;
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

const isKnown = (price: Price) =>
  [
    price.input_micro_usd_per_million,
    price.cached_input_micro_usd_per_million,
    price.cache_write_micro_usd_per_million,
    price.output_micro_usd_per_million,
    price.reasoning_micro_usd_per_million,
  ].some((rate) => rate !== null);

const ratesIn = ({ id: _, model_id: __, created_at: ___, ...price }: Price): HopPrice['price'] => price;
