import type { PlannedHop } from './chain.js';
import type { Config, Model, Price, Rates } from './rows.js';
import type { ResolveView } from './view.js';

/** What a hop costs, and where that stands. */
export interface HopPrice {
  readonly price: Rates & {
    /** Where the price was read. */
    readonly source: string;
    /** Since when it holds; undefined for the price on a config. */
    readonly valid_from: Date | undefined;
    /** Store revision at which it was entered. */
    readonly revision: number;
  };
  readonly source: 'VALUE_SOURCE_CONFIG' | 'VALUE_SOURCE_MODEL';
}

/**
 * The price of a hop: the one on its config, else the newest of the price book. A config's price is that of its own
 * model, so its fallback has the price book's. Times are not compared: a price is in the state from when it holds, by
 * the clock of the database, and another machine's clock may be behind that.
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
  source: `config ${config.id}`,
  valid_from: undefined,
  revision: config.revision,
});

/** USD per thousand tokens as micro-USD per million; the largest, 10^15, is exact in a number. */
const microUsdPerMillion = (usdPer1k: number): number => Math.round(usdPer1k * 1e9);

const isKnown = (price: Price) =>
  [
    price.input_micro_usd_per_million,
    price.cached_input_micro_usd_per_million,
    price.cache_write_micro_usd_per_million,
    price.output_micro_usd_per_million,
    price.reasoning_micro_usd_per_million,
  ].some((rate) => rate !== null);

const ratesIn = ({ id: _, model_id: __, created_at: ___, ...price }: Price): HopPrice['price'] => price;
