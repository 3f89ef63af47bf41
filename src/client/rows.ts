import type { Agent as AgentMessage } from '../../gen/ts/agentllm/v1/agent.js';
import type {
  AgentLLMConfig,
  ApiKeyState,
  ExtraParams as ExtraParamsMessage,
} from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { CatalogueItem, WatchedCredential } from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import type { Budget as BudgetMessage } from '../../gen/ts/agentllm/v1/budget.js';
import type { Experiment as ExperimentMessage, ExperimentVariant } from '../../gen/ts/agentllm/v1/experiment.js';
import type {
  Model as ModelMessage,
  ModelPrice,
  PriceRates,
  PriceTier as PriceTierMessage,
  Provider as ProviderMessage,
} from '../../gen/ts/agentllm/v1/provider.js';
import { defaultWireApi } from '../domain/dialects.js';
import type { ExperimentSettings, VariantSettings } from '../domain/experiments/active_experiment.js';
import type {
  Agent,
  Budget,
  Config,
  Credential,
  ExtraParams,
  Model,
  OtherRates,
  Price,
  PriceTier,
  Provider,
} from '../domain/rows.js';
import { limits } from '../limits.js';

/*
 * Converts messages to the rows that the domain resolves from, the inverse of
 * the conversion in the service. Absent fields become null. Columns that no
 * message contains (such as the id of the encryption key) get a placeholder that
 * resolution does not read.
 */

/** Assigns ids to names: messages refer to resources by name, rows by id. The same name always has the same id. */
export class Ids {
  private readonly known = new Map<string, number>();

  of(name: string): number {
    const known = this.known.get(name);
    if (known !== undefined) return known;
    const id = this.known.size + 1;
    this.known.set(name, id);
    return id;
  }
}

const NEVER = new Date(0);
const orNull = <T>(value: T | undefined): T | null => value ?? null;

const times = (message: { created_at?: Date | undefined; updated_at?: Date | undefined; revision: bigint }) => ({
  created_at: message.created_at ?? NEVER,
  updated_at: message.updated_at ?? NEVER,
  revision: Number(message.revision),
});

/**
 * Stores the state of an API key in the column of its encryption key id, which only the service knows. `keyStateOf` reads
 * it back.
 */
const keyOf = (state: ApiKeyState) => ({
  key_id: state === 'API_KEY_STATE_NONE' || state === 'API_KEY_STATE_UNSPECIFIED' ? null : state,
  key_revision: null,
});

export const keyStateOf = (row: Config | Credential): ApiKeyState =>
  (row.key_id as ApiKeyState | null) ?? 'API_KEY_STATE_NONE';

export function agentRow(message: AgentMessage): Agent {
  const { etag: _, chain_etag: __, ...agent } = message;
  return {
    ...agent,
    ...times(message),
    role: message.role ?? '',
    llm_provider: message.llm_provider ?? '',
    llm_model: message.llm_model ?? '',
    llm_type: message.llm_type ?? '',
    temperature: message.temperature ?? 0,
    max_tokens: orNull(message.max_tokens),
    prompt_template: orNull(message.prompt_template),
    capabilities_json: orNull(message.capabilities_json),
    required_tools_json: orNull(message.required_tools_json),
    requires_memory: message.requires_memory ?? false,
    memory_name: orNull(message.memory_name),
    is_reserved: message.is_reserved ?? false,
    slot_name: orNull(message.slot_name),
    config_json: orNull(message.config_json),
    is_active: message.is_active ?? true,
    version: message.version ?? '',
    description: orNull(message.description),
    metadata_json: orNull(message.metadata_json),
    chain_revision: Number(message.revision),
  };
}

export function configRow(message: AgentLLMConfig, ids: Ids): Config {
  return {
    id: message.id,
    agent_id: message.agent_id,
    ...times(message),
    provider: message.provider ?? '',
    model_name: message.model_name ?? '',
    temperature: orNull(message.temperature),
    max_tokens: orNull(message.max_tokens),
    top_p: orNull(message.top_p),
    fallback_provider: orNull(message.fallback_provider),
    fallback_model: orNull(message.fallback_model),
    cost_per_1k_input_tokens: message.cost_per_1k_input_tokens ?? 0,
    cost_per_1k_output_tokens: message.cost_per_1k_output_tokens ?? 0,
    price_given: message.price_given ?? false,
    enabled: message.enabled ?? true,
    metadata_json: orNull(message.metadata_json),
    priority: message.priority ?? 0,
    extra_params: message.extra_params ? extraParams(message.extra_params) : null,
    ...keyOf(message.has_api_key_override ? message.api_key_state : 'API_KEY_STATE_NONE'),
    credential_id: message.credential_name === undefined ? null : ids.of(credentialKey(message.credential_name)),
  };
}

function extraParams(message: ExtraParamsMessage): ExtraParams {
  const { reasoning_effort, thinking_budget_tokens, stop_sequences, seed, request_timeout_ms } = message;
  return {
    ...(reasoning_effort !== undefined && { reasoning_effort }),
    ...(thinking_budget_tokens !== undefined && { thinking_budget_tokens }),
    ...(stop_sequences.length > 0 && { stop_sequences }),
    ...(seed !== undefined && { seed: Number(seed) }),
    ...(request_timeout_ms !== undefined && { request_timeout_ms }),
  };
}

export const credentialKey = (name: string): string => `credential ${name}`;
export const modelKey = (provider: string, name: string): string => `model ${provider}/${name}`;

export function credentialRow(message: WatchedCredential, ids: Ids): Credential {
  return {
    id: ids.of(credentialKey(message.name)),
    created_at: NEVER,
    updated_at: NEVER,
    revision: Number(message.revision),
    name: message.name,
    provider: message.provider,
    description: null,
    ...keyOf(message.api_key_state),
  };
}

export function providerRow(message: ProviderMessage, ids: Ids): Provider {
  const { etag: _, ...provider } = message;
  return {
    ...provider,
    ...times(message),
    id: ids.of(`provider ${message.name}`),
    display_name: orNull(message.display_name),
    enabled: message.enabled ?? true,
    allow_unknown_models: message.allow_unknown_models ?? false,
    origin: 'operator',
    // A service of an earlier release, and a cache file from it, has no such field.
    wire_api: message.wire_api === 'WIRE_API_UNSPECIFIED' ? defaultWireApi(message.dialect) : message.wire_api,
  };
}

export function modelRow(message: ModelMessage, ids: Ids): Model {
  const { etag: _, price: __, ...model } = message;
  return {
    ...model,
    ...times(message),
    id: ids.of(modelKey(message.provider, message.name)),
    display_name: orNull(message.display_name),
    context_window_tokens: orNull(message.context_window_tokens),
    max_output_tokens: orNull(message.max_output_tokens),
    supports_functions: orNull(message.supports_functions),
    supports_vision: orNull(message.supports_vision),
    supports_reasoning: orNull(message.supports_reasoning),
    supports_forced_tool_choice: orNull(message.supports_forced_tool_choice),
    supports_prefill: orNull(message.supports_prefill),
    supports_structured_output: orNull(message.supports_structured_output),
    as_of: orNull(message.as_of),
    retires_at: orNull(message.retires_at),
    replaced_by: orNull(message.replaced_by),
    origin: 'operator',
  };
}

/**
 * The current and the future prices of a model, oldest first. The watch does not deliver the whole price book.
 */
export function priceRows({ model: message, next_prices }: CatalogueItem, model: Model): readonly Price[] {
  const price = message?.price;
  // The service sends the price that is valid by the service's clock. Later prices become valid by the clock of this
  // process.
  const current = price ? [priceRow(price, model, price.valid_from)] : [];
  // A cache file of an earlier release has no later prices.
  return [...current, ...(next_prices ?? []).map((next) => priceRow(next, model, undefined))];
}

function priceRow(price: ModelPrice, model: Model, validSince: Date | undefined): Price {
  const rate = (value: bigint | undefined) => (value === undefined ? null : Number(value));
  return {
    id: model.id,
    model_id: model.id,
    input_micro_usd_per_million: rate(price.input_micro_usd_per_million),
    cached_input_micro_usd_per_million: rate(price.cached_input_micro_usd_per_million),
    cache_write_micro_usd_per_million: rate(price.cache_write_micro_usd_per_million),
    output_micro_usd_per_million: rate(price.output_micro_usd_per_million),
    reasoning_micro_usd_per_million: rate(price.reasoning_micro_usd_per_million),
    cache_write_long_micro_usd_per_million: rate(price.cache_write_long_micro_usd_per_million),
    // A cache file of an earlier release has no tiers and windows.
    tiers: (price.tiers ?? []).map(tierRow),
    windows: (price.windows ?? []).map(({ weekdays, ...window }) => ({
      ...window,
      rates: otherRates(window.rates),
      tiers: window.tiers.map(tierRow),
      ...(weekdays.length > 0 && { weekdays }),
    })),
    source: price.source,
    valid_from: price.valid_from ?? NEVER,
    created_at: validSince ?? NEVER,
    revision: Number(price.revision),
  };
}

const tierRow = ({ above_input_tokens, rates }: PriceTierMessage): PriceTier => ({
  above_input_tokens,
  rates: otherRates(rates),
});

const otherRates = (rates: PriceRates = {}): OtherRates =>
  Object.fromEntries(
    Object.entries(rates).flatMap(([rate, value]) => (typeof value === 'bigint' ? [[rate, Number(value)]] : [])),
  );

/** The fields of an experiment that a resolution uses. */
export const experimentSettings = (message: ExperimentMessage): ExperimentSettings => ({
  name: message.name,
  salt: message.salt,
  state: message.state,
  revision: Number(message.revision),
  variants: message.variants.map(variantSettings),
});

function variantSettings({ name, control, config_id, overrides = NO_OVERRIDES, buckets }: ExperimentVariant) {
  const { extra_params, ...others } = overrides;
  const set = Object.entries(others).filter(([, value]) => value !== undefined);
  return {
    name,
    control,
    config_id: config_id || null,
    overrides: { ...Object.fromEntries(set), ...(extra_params && { extra_params: extraParams(extra_params) }) },
    buckets,
  } satisfies VariantSettings;
}
const NO_OVERRIDES: NonNullable<ExperimentVariant['overrides']> = { extra_params: undefined };

/** The row of a budget that the watch has delivered. */
export const budgetRow = ({ revision, agent_name: _, etag: __, ...budget }: BudgetMessage): Budget => ({
  ...budget,
  description: budget.description ?? null,
  agent_id: budget.agent_id ?? null,
  rolling_hours: budget.rolling_hours ?? null,
  limit_nano_usd: budget.limit_nano_usd ?? 0n,
  step_down_provider: budget.step_down_provider ?? null,
  step_down_model: budget.step_down_model ?? null,
  warn_percent: budget.warn_percent ?? limits.defaultWarnPercent,
  enabled: budget.enabled ?? true,
  created_at: budget.created_at ?? new Date(0),
  updated_at: budget.updated_at ?? new Date(0),
  revision: Number(revision),
});
