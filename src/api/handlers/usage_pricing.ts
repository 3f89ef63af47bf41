import type { UsageRecord } from '../../../gen/ts/agentllm/v1/usage.js';
import { type Cost, costOfAttempt, priceAt } from '../../domain/cost.js';
import type { Config } from '../../domain/rows.js';
import type { State } from '../../domain/state.js';
import { onDatabase } from '../../store/failure.js';
import { type ConfigVersion, pastConfigs, versionKey } from '../../store/usage/past_configs.js';
import { readHead } from '../../store/write/head.js';
import type { ReadBackend } from './backend.js';

/** The cost of an attempt, and the price from which it was computed. */
export interface PricedRecord {
  readonly cost: Cost;
  /** The revision of the price; 0 if the cost is unknown. */
  readonly price_revision: number;
  readonly price_from_config: boolean;
}

/** Prices records with one state, and with the configs at the revisions of the calls. */
export class UsagePricing {
  private constructor(
    readonly state: State,
    private readonly past: ReadonlyMap<string, Config>,
  ) {}

  /** Waits until this replica has the revisions of the records, and reads the configs that have changed since. */
  static async open(backend: ReadBackend, records: readonly UsageRecord[], signal: AbortSignal): Promise<UsagePricing> {
    const { store } = backend;
    await reach(backend, records, signal);
    const { state } = store;
    const versions = new Map<string, ConfigVersion>();
    for (const record of records) {
      const version = versionOf(record, state);
      if (version && !isCurrent(state.configs.get(version.id), version)) versions.set(versionKey(version), version);
    }
    return new UsagePricing(state, await pastConfigs(store, [...versions.values()]));
  }

  price(record: UsageRecord): PricedRecord {
    const { state } = this;
    const { provider, model_name, started_at, usage } = record.attempt as NonNullable<UsageRecord['attempt']>;
    const model = state.model(provider, model_name);
    const config = this.configOf(record);
    const prices = model && state.pricesOf(model.id);
    const cost = costOfAttempt({ provider, model_name, started_at: started_at as Date, usage, config, prices });
    if (cost.nanoUsd === undefined) return { cost, price_revision: 0, price_from_config: false };
    const fromConfig = config?.price_given && config.provider === provider && config.model_name === model_name;
    if (fromConfig) return { cost, price_revision: config.revision, price_from_config: true };
    const price = prices && priceAt(prices, started_at as Date);
    return { cost, price_revision: price?.revision ?? 0, price_from_config: false };
  }

  /** The config of an attempt; undefined for a config of another agent, because its price must not be used. */
  private configOf(record: UsageRecord): Config | undefined {
    const id = record.attempt?.config_id;
    if (id === undefined) return undefined;
    const version = versionOf(record, this.state);
    const current = this.state.configs.get(id);
    const config = !version || isCurrent(current, version) ? current : this.past.get(versionKey(version));
    return config?.agent_id === record.agent_id ? config : undefined;
  }
}

const isCurrent = (config: Config | undefined, { revision }: ConfigVersion) =>
  config !== undefined && config.revision <= revision;

/** The config of a record at the revision of the call; undefined without a config, or if the revision is unknown. */
function versionOf({ attempt, revision }: UsageRecord, state: State): ConfigVersion | undefined {
  if (attempt?.config_id === undefined || revision <= 0n) return undefined;
  const reported = revision > BigInt(state.revision) ? state.revision : Number(revision);
  return { id: attempt.config_id, revision: reported };
}

/** A revision that the store does not have, for example after a restore, is treated as the newest revision. */
async function reach(
  { store, feed }: ReadBackend,
  records: readonly UsageRecord[],
  signal: AbortSignal,
): Promise<void> {
  let newest = 0n;
  for (const { revision } of records) if (revision > newest) newest = revision;
  if (newest <= BigInt(store.state.revision)) return;
  const head = await onDatabase(store, (db) => readHead(db));
  await feed.reached(newest < BigInt(head.revision) ? newest : head.revision, signal);
}
