import type { ModelUsage } from '../../gen/ts/agentllm/v1/receipt.js';
import type { UnpricedReason } from '../../gen/ts/agentllm/v1/usage.js';
import { limits } from '../limits.js';
import { microUsdPerMillion } from './price.js';
import type { Config, Price, PriceTier, PriceWindow, Rates, TieredRates } from './rows.js';

/*
 * The cost of an attempt. Rates are integers in micro-USD per million model tokens, which is 10^-12 USD per token, so a
 * sum of tokens times rates is exact. The sum is rounded once, to whole nano-USD.
 */

/** The counts of model tokens that a cost depends on; undefined: the provider did not report the kind. */
export type TokenCounts = Partial<
  Pick<
    ModelUsage,
    | 'input_tokens'
    | 'input_cache_read_tokens'
    | 'input_cache_write_tokens'
    | 'input_cache_write_long_tokens'
    | 'output_tokens'
    | 'output_reasoning_tokens'
  >
>;

/** Model tokens by the rate that they are billed at. Every token is in exactly one kind. */
export type TokenKinds = Readonly<Record<keyof Rates, number>>;

/** A cost in nano-USD, or the reason why it is unknown. */
export type Cost =
  | { readonly nanoUsd: bigint; readonly unpriced: undefined }
  | { readonly nanoUsd: undefined; readonly unpriced: Exclude<UnpricedReason, 'UNPRICED_REASON_UNSPECIFIED'> };

const PICO_PER_NANO = 1000;
const KINDS = [
  'input_micro_usd_per_million',
  'cached_input_micro_usd_per_million',
  'cache_write_micro_usd_per_million',
  'cache_write_long_micro_usd_per_million',
  'output_micro_usd_per_million',
  'reasoning_micro_usd_per_million',
] as const satisfies readonly (keyof Rates)[];
const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
const EVERY_DAY: readonly number[] = [1, 2, 3, 4, 5, 6, 7];
/** A Sunday, in days since the epoch. */
const A_SUNDAY = 3;

/** The price that is valid at a time. @param prices of one model, oldest first. */
export function priceAt(prices: readonly Price[], at: Date): Price | undefined {
  let [from, to] = [0, prices.length];
  while (from < to) {
    const middle = (from + to) >>> 1;
    if ((prices[middle] as Price).valid_from.getTime() <= at.getTime()) from = middle + 1;
    else to = middle;
  }
  return prices[from - 1];
}

/**
 * The rates for a request: first those of the time window in which the request begins, or else those of the price; then
 * the rates of the tier that matches its input tokens replace them. A tier and a window state only the rates that
 * differ.
 */
export function ratesAt(price: TieredRates, at: Date, inputTokens: number): Rates {
  const { tiers, windows, ...base } = price;
  const window = windows.find((one) => isWithin(one, at));
  const tier = tierFor(window ? window.tiers : tiers, inputTokens);
  return { ...base, ...window?.rates, ...tier?.rates };
}

type WindowTimes = Pick<PriceWindow, 'start_minute' | 'end_minute' | 'weekdays'>;

function isWithin({ start_minute: start, end_minute: end, weekdays }: WindowTimes, at: Date): boolean {
  const minute = at.getUTCHours() * 60 + at.getUTCMinutes();
  const startsOn = (day: number) => weekdays === undefined || weekdays.includes(((day + 6) % 7) + 1);
  const today = at.getUTCDay();
  if (start < end) return minute >= start && minute < end && startsOn(today);
  return (minute >= start && startsOn(today)) || (minute < end && startsOn(today - 1));
}

function tierFor(tiers: readonly PriceTier[], inputTokens: number): PriceTier | undefined {
  let highest: PriceTier | undefined;
  for (const tier of tiers)
    if (inputTokens > tier.above_input_tokens && tier.above_input_tokens > (highest?.above_input_tokens ?? -1))
      highest = tier;
  return highest;
}

/** Whether two windows have a minute in common: then one of them is in progress when the other starts. */
export function overlap(a: WindowTimes, b: WindowTimes): boolean {
  return startsOf(b).some((start) => isWithin(a, start)) || startsOf(a).some((start) => isWithin(b, start));
}

/** The starts of a window in one week. */
const startsOf = ({ start_minute, weekdays = EVERY_DAY }: WindowTimes): Date[] =>
  weekdays.map((day) => new Date((A_SUNDAY + day) * DAY_MS + start_minute * MINUTE_MS));

/**
 * The tokens of a usage by kind. Tokens whose kind the provider did not report count as input or as output.
 * @returns undefined if the input or the output is not reported, or if the kinds exceed their total.
 */
export function tokenKindsOf(usage: TokenCounts): TokenKinds | undefined {
  const { input_tokens: input, output_tokens: output } = usage;
  if (input === undefined || output === undefined) return undefined;
  const read = usage.input_cache_read_tokens ?? 0;
  const write = usage.input_cache_write_tokens ?? 0;
  const long = usage.input_cache_write_long_tokens ?? 0;
  const reasoning = usage.output_reasoning_tokens ?? 0;
  const kinds: TokenKinds = {
    input_micro_usd_per_million: input - read - write,
    cached_input_micro_usd_per_million: read,
    cache_write_micro_usd_per_million: write - long,
    cache_write_long_micro_usd_per_million: long,
    output_micro_usd_per_million: output - reasoning,
    reasoning_micro_usd_per_million: reasoning,
  };
  return KINDS.every((kind) => kinds[kind] >= 0) ? kinds : undefined;
}

/** The cost of tokens at fixed rates in nano-USD, half a nano-USD rounded up; undefined if a rate is unknown. */
export function nanoUsdOf(kinds: TokenKinds, rates: Rates): bigint | undefined {
  // A number is used while it is exact, because a bigint for each product would take longer than the rest of the
  // calculation.
  let picoUsd = PICO_PER_NANO / 2;
  for (const kind of KINDS) {
    const count = kinds[kind];
    if (count === 0) continue;
    const rate = rateOf(rates, kind);
    if (rate === null) return undefined;
    picoUsd += count * rate;
  }
  if (picoUsd > Number.MAX_SAFE_INTEGER) return largeNanoUsdOf(kinds, rates);
  return BigInt((picoUsd - (picoUsd % PICO_PER_NANO)) / PICO_PER_NANO);
}

function largeNanoUsdOf(kinds: TokenKinds, rates: Rates): bigint {
  let picoUsd = BigInt(PICO_PER_NANO / 2);
  for (const kind of KINDS) picoUsd += BigInt(kinds[kind]) * BigInt(rateOf(rates, kind) ?? 0);
  return picoUsd / BigInt(PICO_PER_NANO);
}

/** Reasoning without a rate is priced as output. */
const rateOf = (rates: Rates, kind: keyof Rates): number | null =>
  rates[kind] ?? (kind === 'reasoning_micro_usd_per_million' ? rates.output_micro_usd_per_million : null);

/**
 * The price of an attempt: the price of its config if the attempt used the model of the config, or else the price of
 * the price book that is valid at the start of the attempt. The price book also applies to the fallback of a config.
 * @param config the config of the attempt at the start of the call.
 * @param prices of the model, oldest first; undefined if the model is not in the catalogue.
 */
export function priceOfAttempt(attempt: PricedAttempt): TieredRates | undefined {
  const { config, provider, model_name, prices, started_at } = attempt;
  if (config?.price_given && config.provider === provider && config.model_name === model_name)
    return configRates(config);
  return prices && priceAt(prices, started_at);
}

/** The inputs of the cost of an attempt. */
export interface PricedAttempt {
  readonly provider: string;
  readonly model_name: string;
  readonly started_at: Date;
  readonly usage: TokenCounts | undefined;
  readonly config: PricedConfig | undefined;
  readonly prices: readonly Price[] | undefined;
}

type PricedConfig = Pick<
  Config,
  'provider' | 'model_name' | 'price_given' | 'cost_per_1k_input_tokens' | 'cost_per_1k_output_tokens'
>;

/** The price of a config. Its two rates apply to all kinds of input and to all kinds of output. */
export function configRates(config: PricedConfig): TieredRates {
  const input = microUsdPerMillion(config.cost_per_1k_input_tokens);
  const output = microUsdPerMillion(config.cost_per_1k_output_tokens);
  return {
    input_micro_usd_per_million: input,
    cached_input_micro_usd_per_million: input,
    cache_write_micro_usd_per_million: input,
    cache_write_long_micro_usd_per_million: input,
    output_micro_usd_per_million: output,
    reasoning_micro_usd_per_million: output,
    tiers: [],
    windows: [],
  };
}

/** The cost of an attempt, rounded once. It is unknown, never 0, if the usage, the price or a rate is unknown. */
export function costOfAttempt(attempt: PricedAttempt): Cost {
  const { usage, started_at } = attempt;
  const kinds = usage && tokenKindsOf(usage);
  if (!kinds) return unknown('UNPRICED_REASON_NO_USAGE');
  const price = priceOfAttempt(attempt);
  if (!price) return unknown(attempt.prices ? 'UNPRICED_REASON_NO_PRICE' : 'UNPRICED_REASON_UNKNOWN_MODEL');
  const isPlain = price.tiers.length === 0 && price.windows.length === 0;
  const nanoUsd = nanoUsdOf(kinds, isPlain ? price : ratesAt(price, started_at, usage?.input_tokens ?? 0));
  if (nanoUsd === undefined) return unknown('UNPRICED_REASON_NO_RATE');
  return nanoUsd > limits.attemptCost ? unknown('UNPRICED_REASON_TOO_HIGH') : { nanoUsd, unpriced: undefined };
}

const unknown = (unpriced: NonNullable<Cost['unpriced']>): Cost => ({ nanoUsd: undefined, unpriced });
