import type { Role } from '../../gen/ts/agentllm/v1/access_service.js';
import type { SubstitutionPolicy } from '../../gen/ts/agentllm/v1/agent.js';
import type { BudgetAction, BudgetPeriod, BudgetScope } from '../../gen/ts/agentllm/v1/budget.js';
import type { ExperimentMetricKind, ExperimentState, MetricDirection } from '../../gen/ts/agentllm/v1/experiment.js';
import type { Dialect, ParameterRule as RuleMessage, WireApi } from '../../gen/ts/agentllm/v1/provider.js';

import type { BucketRange } from './experiments/assignment.js';

/*
 * The entities as the store, the state in memory and the change log represent them. A
 * field has the same name in the row, the database column, the proto message and
 * the path of a field violation. Rows are immutable; a change replaces the row.
 */

/** The columns of every entity. */
interface Row {
  readonly id: number;
  readonly created_at: Date;
  readonly updated_at: Date;
  /** Store revision of the last change. */
  readonly revision: number;
}

/** A row of `agent_configs`. */
export interface Agent extends Row {
  readonly name: string;
  readonly agent_type: string;
  readonly role: string;
  readonly llm_provider: string;
  readonly llm_model: string;
  readonly llm_type: string;
  readonly temperature: number;
  readonly max_tokens: number | null;
  readonly prompt_template: string | null;
  readonly capabilities_json: string | null;
  readonly required_tools_json: string | null;
  readonly requires_memory: boolean;
  readonly memory_name: string | null;
  readonly is_reserved: boolean;
  readonly slot_name: string | null;
  readonly config_json: string | null;
  readonly is_active: boolean;
  readonly version: string;
  readonly description: string | null;
  readonly metadata_json: string | null;
  readonly substitution_policy: SubstitutionPolicy;
  /** Revision of the last change to order or membership of the agent's configs. */
  readonly chain_revision: number;
}

/** Parameters that have no column in the schema of the original Python system. */
export interface ExtraParams {
  readonly reasoning_effort?: string;
  readonly thinking_budget_tokens?: number;
  readonly stop_sequences?: readonly string[];
  readonly seed?: number;
  readonly request_timeout_ms?: number;
}

/**
 * A row of `agent_llm_configs`, without its ciphertext, which never leaves the store (`key_id` shows that there is
 * one).
 */
export interface Config extends Row {
  readonly agent_id: number;
  readonly provider: string;
  readonly model_name: string;
  /** null: not sent. */
  readonly temperature: number | null;
  readonly max_tokens: number | null;
  readonly top_p: number | null;
  readonly fallback_provider: string | null;
  readonly fallback_model: string | null;
  readonly cost_per_1k_input_tokens: number;
  readonly cost_per_1k_output_tokens: number;
  /** Whether the two costs are a price; a price can be 0. */
  readonly price_given: boolean;
  readonly enabled: boolean;
  readonly metadata_json: string | null;
  readonly priority: number;
  readonly extra_params: ExtraParams | null;
  /** Id of the encryption key of the config's API key; null: no key is stored with the config. */
  readonly key_id: string | null;
  /** Revision at which the API key was stored. */
  readonly key_revision: number | null;
  readonly credential_id: number | null;
}

/** A row of `llm_credentials`, without its ciphertext. */
export interface Credential extends Row {
  readonly name: string;
  readonly provider: string;
  readonly description: string | null;
  readonly key_id: string | null;
  readonly key_revision: number | null;
}

/** How a model, or all models of a provider, handle one parameter. */
export type ParameterRule = Pick<RuleMessage, 'parameter' | 'support'> & Partial<RuleMessage>;

/** The last writer of a catalogue row. The seeds update only rows that they wrote last. */
export type Origin = 'seed' | 'operator';

/** A row of `llm_providers`. */
export interface Provider extends Row {
  readonly name: string;
  readonly display_name: string | null;
  readonly aliases: readonly string[];
  readonly dialect: Dialect;
  readonly base_url: string;
  readonly api_key_env_vars: readonly string[];
  readonly built_in: boolean;
  readonly enabled: boolean;
  readonly allow_unknown_models: boolean;
  readonly parameter_rules: readonly ParameterRule[];
  readonly origin: Origin;
  readonly wire_api: WireApi;
}

/** A row of `llm_models`. An unknown value is null. */
export interface Model extends Row {
  readonly provider: string;
  readonly name: string;
  readonly display_name: string | null;
  readonly context_window_tokens: number | null;
  readonly max_output_tokens: number | null;
  readonly supports_functions: boolean | null;
  readonly supports_vision: boolean | null;
  readonly supports_reasoning: boolean | null;
  readonly supports_forced_tool_choice: boolean | null;
  readonly supports_prefill: boolean | null;
  readonly supports_structured_output: boolean | null;
  readonly parameter_rules: readonly ParameterRule[];
  readonly as_of: Date | null;
  /** The shutdown date. */
  readonly retires_at: Date | null;
  readonly replaced_by: string | null;
  readonly built_in: boolean;
  readonly origin: Origin;
}

/** The rates of a price in whole micro-USD per million tokens; null is unknown. */
export interface Rates {
  readonly input_micro_usd_per_million: number | null;
  readonly cached_input_micro_usd_per_million: number | null;
  readonly cache_write_micro_usd_per_million: number | null;
  readonly output_micro_usd_per_million: number | null;
  readonly reasoning_micro_usd_per_million: number | null;
  /** The rate of one-hour cache writes; `cache_write_…` is the rate of 5-minute cache writes. */
  readonly cache_write_long_micro_usd_per_million: number | null;
}

/** The rates of a tier or window that differ from the rates without it. */
export type OtherRates = { readonly [R in keyof Rates]?: number };

/** A context tier: rates of the whole request if it has more input tokens than the threshold. */
export interface PriceTier {
  readonly above_input_tokens: number;
  readonly rates: OtherRates;
}

/** A time window in UTC, in minutes of a day; an end that is not later than the start is on the next day. */
export interface PriceWindow {
  readonly start_minute: number;
  readonly end_minute: number;
  readonly rates: OtherRates;
  /** They replace the tiers of the price. */
  readonly tiers: readonly PriceTier[];
  /** The days on which it starts, as in ISO 8601 (Monday is 1), in ascending order; absent: every day. */
  readonly weekdays?: readonly number[];
}

/** Rates that depend on the size of a request and on the time of day. */
export interface TieredRates extends Rates {
  readonly tiers: readonly PriceTier[];
  readonly windows: readonly PriceWindow[];
}

/** A row of `llm_prices`: immutable, valid until the next price of the model. */
export interface Price extends TieredRates {
  readonly id: number;
  readonly model_id: number;
  readonly valid_from: Date;
  readonly source: string;
  readonly created_at: Date;
  readonly revision: number;
}

/** A row of `llm_budgets`. */
export interface Budget extends Row {
  readonly name: string;
  readonly description: string | null;
  readonly scope: BudgetScope;
  /** The agent of BUDGET_SCOPE_AGENT. */
  readonly agent_id: number | null;
  /** The type of BUDGET_SCOPE_AGENT_TYPE; otherwise empty. */
  readonly agent_type: string;
  readonly period: BudgetPeriod;
  /** Empty: UTC, or the period has no time zone. */
  readonly time_zone: string;
  readonly rolling_hours: number | null;
  readonly limit_nano_usd: bigint;
  readonly action: BudgetAction;
  readonly step_down_provider: string | null;
  readonly step_down_model: string | null;
  readonly warn_percent: number;
  readonly enabled: boolean;
}

/** The settings in which a variant differs from its base config. */
export interface Overrides {
  readonly provider?: string;
  readonly model_name?: string;
  readonly temperature?: number;
  readonly max_tokens?: number;
  readonly top_p?: number;
  readonly extra_params?: ExtraParams;
}

/** A variant of an experiment; its name identifies it. */
export interface Variant {
  readonly name: string;
  readonly description: string | null;
  readonly control: boolean;
  /** The base config; null: the primary config at the time of the resolution. */
  readonly config_id: number | null;
  readonly overrides: Overrides;
  readonly weight_basis_points: number;
  readonly buckets: readonly BucketRange[];
}

/** A metric with its direction. */
export interface Metric {
  readonly kind: ExperimentMetricKind;
  /** The name of an outcome; otherwise empty. */
  readonly outcome: string;
  readonly direction: MetricDirection;
}

/** A metric that pauses the experiment; it has one of the two margins. */
export interface Guardrail {
  readonly metric: Metric;
  readonly relative_margin_basis_points: number | null;
  readonly absolute_margin: number | null;
}

/** A row of `llm_experiments`. */
export interface Experiment extends Row {
  readonly agent_id: number;
  readonly name: string;
  readonly hypothesis: string | null;
  readonly subject_kind: string;
  readonly salt: string;
  readonly state: ExperimentState;
  readonly variants: readonly Variant[];
  readonly primary_metric: Metric;
  readonly guardrails: readonly Guardrail[];
  readonly alpha_basis_points: number;
  readonly smallest_effect_basis_points: number;
  readonly state_reason: string;
  /** Empty: none. */
  readonly winner: string;
  readonly started_at: Date | null;
  readonly ended_at: Date | null;
  /** The time of the last start or resumption; null unless the experiment is running. */
  readonly running_since: Date | null;
  /** The total running time before `running_since`, in ms. */
  readonly ran_ms: number;
  /** The revision at which the buckets last changed. */
  readonly allocation_revision: number;
}

/** A row of `api_tokens`, without the time of its last use. */
export interface Token extends Row {
  /** Its id in the contract, for example `al_k3x9q2m7wd`. */
  readonly token_id: string;
  readonly name: string;
  readonly role: Role;
  /** For ROLE_AGENT: the names of the agents in scope; null: all. */
  readonly agents: readonly string[] | null;
  /** SHA-256 of its text, hexadecimal; null for a token that is bound to a certificate. */
  readonly token_hash: string | null;
  readonly certificate_identity: string | null;
  readonly expires_at: Date | null;
  readonly revoked_at: Date | null;
}

/** The entities whose changes get revisions, by their names in the change log. */
export interface Entities {
  agent: Agent;
  credential: Credential;
  config: Config;
  provider: Provider;
  model: Model;
  price: Price;
  token: Token;
  budget: Budget;
  experiment: Experiment;
}
export type Entity = keyof Entities;

/** Actor, method, reason and time of a revision. */
export interface Cause {
  readonly actor: string;
  readonly method: string;
  readonly reason: string;
  readonly created_at: Date;
}

/** One row before and after a change; a created row has no `before`, a deleted row no `after`. */
export type Change = {
  [E in Entity]: {
    readonly entity: E;
    readonly id: number;
    readonly before: Entities[E] | undefined;
    readonly after: Entities[E] | undefined;
  };
}[Entity];
