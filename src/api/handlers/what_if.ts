import type { WhatIfModel, WhatIfRequest, WhatIfResponse } from '../../../gen/ts/agentllm/v1/usage_service.js';
import { int64Amount } from '../../domain/amount.js';
import { configRates, nanoUsdOf, priceAt, ratesAt, type TokenCounts, tokenKindsOf } from '../../domain/cost.js';
import { priceSchema } from '../../domain/price_fields.js';
import type { Config, Price, TieredRates } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { type ReportedRanges, reportedRanges } from '../../domain/usage_period.js';
import { limits } from '../../limits.js';
import { Problems } from '../../problems.js';
import { onDatabase } from '../../store/failure.js';
import { pastConfigs, versionKey } from '../../store/usage/past_configs.js';
import { queryUsage } from '../../store/usage/query.js';
import { oldestAccepted } from '../../store/usage/retention.js';
import { readSums, readVectors, type StoredVector, type SumsVector, storedRange } from '../../store/usage/vectors.js';
import { timeSlice } from '../../time_slice.js';
import { checkRetained } from './query_usage.js';
import type { UsageBackend } from './record_usage.js';
import { modelOf } from './requests.js';
import { checkFilter, checkRange, filterOf, totalsMessage } from './usage_requests.js';

/** Prices past attempts with another model, another price or another share of cached input. */
export async function whatIf(
  { store, usageRetentionMs }: UsageBackend,
  state: State,
  request: WhatIfRequest,
  signal: AbortSignal,
): Promise<WhatIfResponse> {
  const otherPrice = checkRequest(request);
  const [since, until] = [request.since as Date, request.until as Date];
  const ranges = reportedRanges(since.getTime(), until.getTime(), []);
  await checkRetained(store, ranges, usageRetentionMs);
  const filter = filterOf(state, request.filter, since, until);
  const { cache_hit_percent: percent } = request;
  const model = request.model_name ? modelOf(state, request.provider, request.model_name) : undefined;
  const prices = model && state.pricesOf(model.id);
  const sum = new WhatIfSum(otherPrice ?? prices, percent);
  const { knex } = store.database;
  const stored = await onDatabase(store, storedRange);
  const oldest = oldestAccepted(Date.now(), usageRetentionMs);
  const oldestStored = stored ? oldestAccepted(stored.oldest.getTime(), 0) : Number.POSITIVE_INFINITY;
  const boundary = new Date(Math.min(Math.max(oldest, oldestStored, since.getTime()), until.getTime()));
  await onDatabase(store, async () => {
    for await (const chunk of readSums(knex, { ranges: sum.rangesOf(state, since, boundary), filter })) {
      for (const sums of chunk) sum.addSums(sums, pricesOf(state, sums));
      await pause(signal);
    }
    for await (const chunk of readVectors(knex, { from: boundary, to: until, filter })) {
      const configs = sum.keepsPrices ? await configsOf(store, chunk) : NO_CONFIGS;
      for (const vector of chunk) sum.add(vector, ownPrice(state, vector, configs));
      await pause(signal);
    }
  });
  const query = { ranges, periods: undefined, dimensions: ['model'] as const, filter, after: undefined };
  const { groups, totals } = await queryUsage(store, { ...query, limit: limits.whatIfModels });
  const messageOf = (provider: string, model_name: string, sums: typeof totals): WhatIfModel => ({
    provider,
    model_name,
    actual: totalsMessage(sums),
    ...sum.of(provider && `${provider}/${model_name}`),
  });
  return {
    models: groups.map((group) => messageOf(group.provider, group.model_name, group)),
    revision: BigInt(state.revision),
    totals: messageOf('', '', totals),
    approximate_attempts: sum.approximateAttempts,
  };
}

const NO_CONFIGS: ReadonlyMap<string, Config> = new Map();

async function pause(signal: AbortSignal): Promise<void> {
  if (timeSlice.isSpent) await timeSlice.next();
  signal.throwIfAborted();
}

function checkRequest(request: WhatIfRequest): TieredRates | undefined {
  const { provider, model_name, price, cache_hit_percent: percent } = request;
  const problems = new Problems();
  checkRange(problems, request, limits.usageRangeDays);
  checkFilter(problems, request.filter);
  const { min, max } = limits.cacheHitPercent;
  if (percent !== undefined && (percent < min || percent > max))
    problems.add('cache_hit_percent', `must be ${min} to ${max}, not ${percent}`);
  if (!model_name && !price && percent === undefined)
    problems.add('model_name', 'is required, unless price or cache_hit_percent is set');
  if (model_name && !provider) problems.add('provider', 'is required with model_name');
  if (!model_name && provider) problems.add('model_name', 'is required with provider');
  if (model_name && price) problems.add('price', 'cannot be combined with model_name');
  const parsed = price && priceSchema.safeParse(price);
  for (const issue of parsed?.error?.issues ?? [])
    problems.add(['price', ...issue.path.map(String)].join('.'), issue.message);
  problems.throwIfAny();
  return parsed?.data && ratesOf(parsed.data);
}

const ratesOf = (price: Record<string, unknown>): TieredRates => ({
  ...(Object.fromEntries(
    [
      'input_micro_usd_per_million',
      'cached_input_micro_usd_per_million',
      'cache_write_micro_usd_per_million',
      'cache_write_long_micro_usd_per_million',
      'output_micro_usd_per_million',
      'reasoning_micro_usd_per_million',
    ].map((name) => [name, price[name] ?? null]),
  ) as Omit<TieredRates, 'tiers' | 'windows'>),
  tiers: price['tiers'] as TieredRates['tiers'],
  windows: price['windows'] as TieredRates['windows'],
});

function pricesOf(state: State, { provider, model_name }: Pick<StoredVector, 'provider' | 'model_name'>) {
  const model = state.model(provider, model_name);
  return model ? state.pricesOf(model.id) : [];
}

/** The configs whose prices applied to attempts, at the revisions of these attempts. */
const configsOf = (store: UsageBackend['store'], vectors: readonly StoredVector[]) =>
  pastConfigs(store, [
    ...new Map(vectors.filter(isOfConfig).map((one) => [versionKey(versionOf(one)), versionOf(one)])).values(),
  ]);

const isOfConfig = ({ config_id, price_from_config }: StoredVector) => price_from_config && config_id !== null;
const versionOf = ({ config_id, price_revision }: StoredVector) => ({ id: config_id ?? 0, revision: price_revision });

/** The price that applied to an attempt. */
function ownPrice(state: State, vector: StoredVector, configs: ReadonlyMap<string, Config>): TieredRates | undefined {
  const config = isOfConfig(vector) ? configs.get(versionKey(versionOf(vector))) : undefined;
  return config ? configRates(config) : priceAt(pricesOf(state, vector), vector.started_at);
}

interface Calculated {
  cost_nano_usd: bigint;
  unpriced_attempts: bigint;
}

/** The costs by model. */
class WhatIfSum {
  approximateAttempts = 0n;
  private readonly sums = new Map<string, Calculated>();

  /**
   * @param other the other price, or the prices of the other model, oldest first; undefined: each attempt keeps its
   * price.
   */
  constructor(
    private readonly other: TieredRates | readonly Price[] | undefined,
    private readonly cacheHitPercent: number | undefined,
  ) {}

  /** Whether each attempt keeps its price. */
  get keepsPrices(): boolean {
    return this.other === undefined;
  }

  /** The calculation for a model, or for all models if the text is empty. */
  of(model: string): Calculated {
    const { cost_nano_usd, unpriced_attempts } = this.sums.get(model) ?? { cost_nano_usd: 0n, unpriced_attempts: 0n };
    return { cost_nano_usd: int64Amount(cost_nano_usd), unpriced_attempts };
  }

  add(vector: StoredVector, own: TieredRates | undefined): void {
    const usage = countsOf(vector);
    const price = this.priceFor(vector.started_at, own);
    this.count(vector, 1n, this.costOf(usage, price, vector.started_at, usage.input_tokens ?? 0));
  }

  /** The units of a range in which one price applies. With time windows, the rates change within a day. */
  rangesOf(state: State, since: Date, until: Date): ReportedRanges {
    const models = this.keepsPrices ? [...state.modelsInOrder.after()] : [];
    const prices = [...models.flatMap(({ id }) => state.pricesOf(id)), ...[this.other ?? []].flat()];
    const starts = prices.flatMap((price) => ('valid_from' in price ? (price as Price).valid_from.getTime() : []));
    const hasWindows = prices.some(({ windows }) => windows.length > 0);
    const inOrder = [...new Set(starts)].sort((a, b) => a - b);
    return reportedRanges(since.getTime(), until.getTime(), hasWindows ? 'hours' : inOrder);
  }

  addSums(sums: SumsVector, own: readonly Price[]): void {
    const attempts = BigInt(sums.attempts);
    this.approximateAttempts += attempts;
    const price = this.priceFor(sums.start, priceAt(own, sums.start));
    // Tiers do not apply, because the size of a single request is not known.
    this.count(sums, attempts, this.costOf(countsOf(sums), price, sums.start, 0));
  }

  private priceFor(at: Date, own: TieredRates | undefined): TieredRates | undefined {
    if (this.other === undefined) return own;
    if ('tiers' in this.other) return this.other;
    return priceAt(this.other, at) ?? this.other[0];
  }

  private costOf(usage: TokenCounts, price: TieredRates | undefined, at: Date, input: number): bigint | undefined {
    const kinds = tokenKindsOf(this.withCache(usage));
    return kinds && price && nanoUsdOf(kinds, ratesAt(price, at, input));
  }

  private withCache(usage: TokenCounts): TokenCounts {
    const { input_tokens: input } = usage;
    if (this.cacheHitPercent === undefined || input === undefined) return usage;
    const input_cache_read_tokens = Math.round((input * this.cacheHitPercent) / 100);
    return { ...usage, input_cache_read_tokens, input_cache_write_tokens: 0, input_cache_write_long_tokens: 0 };
  }

  private count(
    { provider, model_name }: Pick<StoredVector, 'provider' | 'model_name'>,
    attempts: bigint,
    cost: bigint | undefined,
  ): void {
    for (const key of ['', `${provider}/${model_name}`]) {
      const sum = this.sums.get(key) ?? { cost_nano_usd: 0n, unpriced_attempts: 0n };
      this.sums.set(key, sum);
      // Costs that are too high are unknown, as for recorded attempts.
      if (cost === undefined || cost > limits.attemptCost * attempts) sum.unpriced_attempts += attempts;
      else sum.cost_nano_usd += cost;
    }
  }
}

/** The counts of model tokens of a row; null is unknown. */
export const countsOf = (row: Pick<StoredVector, (typeof COUNTS)[number]>): TokenCounts =>
  Object.fromEntries(COUNTS.map((name) => [name, row[name] ?? undefined]));

const COUNTS = [
  'input_tokens',
  'input_cache_read_tokens',
  'input_cache_write_tokens',
  'input_cache_write_long_tokens',
  'output_tokens',
  'output_reasoning_tokens',
] as const;
